"""Narrow every model type at its published size and run it: `python conformance/narrow_models.py [TYPE...]`.

For each model type of llmdoctor/modeldir/architectures.json that has a class for language modelling, the configuration class's defaults are
narrowed as `--mode run` and `mask test` narrow them, the model is built and runs a forward over a few tokens under eager attention. Printed for
each type: runs (and how it was cut), refused (in the library's words), missing package, needs an image (in every forward), or no cut. A type
without a usable cut, or a fault of the narrowing itself, makes the exit status 1.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).parent.parent))

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.types import ForwardInputs
from llmdoctor.modeldir import layerkinds

SECONDS = 300


def outcome(kind: str) -> tuple[str, str]:
    """Return what became of a model type at its published size, and the cut or the library's words."""
    import torch
    from transformers import CONFIG_MAPPING

    from llmdoctor.mask.live import _small, build, run

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        config = CONFIG_MAPPING[kind]()
        config.architectures = [layerkinds.table()["types"][kind]["class"]]
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            small = _small(folder)
    except build.LibraryRefusal as error:
        return "refused", str(error)
    except QuestionError as error:
        text = str(error)
        what = "no cut" if "no smaller one" in text else "needs an image" if "needs an image" in text else "missing package"
        return what, text.partition(": ")[2]
    except Exception as error:
        return "refused", f"the class cannot be made or saved: {build.words_of(error)}"
    try:
        model = build.build(small.config, "eager", "float32")
    except Exception as error:
        return "fault", build.words_of(error)
    seen = run.attempt(model, ForwardInputs(1, 9), "eager")
    if seen.error is not None:
        return "raises", seen.error
    return "runs", small.cut or "as it is"


def each(kinds: list[str]) -> Iterator[tuple[str, str, str]]:
    """Return outcome() of each type, made in another process, a new one if the last has died."""
    left = list(kinds)
    while left:
        with ProcessPoolExecutor(1) as pool:
            while left:
                kind = left.pop(0)
                try:
                    yield kind, *pool.submit(outcome, kind).result(timeout=SECONDS)
                except BrokenProcessPool:
                    yield kind, "fault", "the process died"
                    break
                except TimeoutError:
                    for worker in list(pool._processes.values()):
                        worker.kill()
                    yield kind, "fault", f"not done in {SECONDS} s"
                    break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*")
    options = parser.parse_args()
    from transformers.models.auto import modeling_auto as auto

    families = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
                "MODEL_FOR_MASKED_LM_MAPPING_NAMES")  # fmt: skip
    named = {kind for family in families for kind in getattr(auto, family)}
    tally: collections.Counter[str] = collections.Counter()
    for kind, what, words in each(options.types or sorted(named & set(layerkinds.table()["types"]))):
        tally[what] += 1
        print(f"{what:8} {kind}: {words[:300]}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in tally.most_common()))
    return int(any(tally[what] for what in ("no cut", "fault")))


if __name__ == "__main__":
    sys.exit(main())
