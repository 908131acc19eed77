"""What the schemas of configs/ say about training targets is what the trainers of labels/ read, or refuse."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from llmdoctor.configs import trl
from llmdoctor.configs.formats import FORMATS
from llmdoctor.configs.types import Format, Key, Refused, Uses
from llmdoctor.labels.trainers import NAMES, trainer_named

TRAINERS = [trainer_named(name) for name in NAMES]
FORMS = [form for form in FORMATS if any(trainer.format == form.name for trainer in TRAINERS)]


def keys_of(form: Format) -> dict[str, Key]:
    if form is trl.FORMAT:
        return {
            name: key for each in ("SFTConfig", "DPOConfig", "KTOConfig", "RewardConfig") for name, key in trl.variant_of(each).keys.items()
        }
    return dict(form.variant({}).keys)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_meaning_for_labels_is_what_the_trainers_do(form: Format) -> None:
    keys, trainers = keys_of(form), [trainer for trainer in TRAINERS if trainer.format == form.name]
    read = {name for trainer in trainers for name in keys if name.partition(".")[0] in trainer.keys}
    relevant = {name for trainer in trainers for name in keys if any(fnmatchcase(name, pattern) for pattern in trainer.relevant)}
    used = {name for name, key in keys.items() if isinstance(key.meanings["labels"], Uses)}
    refused = {name for name, key in keys.items() if isinstance(key.meanings["labels"], Refused)}
    assert used <= read | relevant
    assert refused <= relevant
    assert {name for name in read if "." not in name} | relevant <= used | refused
