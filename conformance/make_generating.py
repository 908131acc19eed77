"""Write llmdoctor/modeldir/generating.json from the installed transformers: `python conformance/make_generating.py`.

Which model classes have no generate() (`can_generate()` is false), which model types have a class with one, and which have classes but none
with one. Nothing is built: the classes are imported and asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "llmdoctor" / "modeldir" / "generating.json"


def main() -> None:
    """Ask every class, and write the table."""
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    classes = [value for name in dir(transformers) if _is_model(value := getattr(transformers, name, None))]
    able = {each for each in classes if each.can_generate()}
    names = {each.__name__ for each in able}
    makers = {kind for each in able for kind in _types_of(each)}
    for name, mapping in vars(modeling_auto).items():  # gpt-sw3 is GPT-2's class under another type
        if name.startswith("MODEL_") and name.endswith("_MAPPING_NAMES"):
            makers |= {kind for kind, made in mapping.items() if names & set([made] if isinstance(made, str) else made)}
    owners = {kind for each in classes for kind in _types_of(each)}
    table = {
        "transformers": transformers.__version__,
        "other_classes": sorted(each.__name__ for each in set(classes) - able),
        "types": sorted(makers & set(CONFIG_MAPPING_NAMES)),
        "other_types": sorted(set(CONFIG_MAPPING_NAMES) & owners - makers),
    }
    TARGET.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(f"{len(able)} classes generate, {len(table['other_classes'])} do not")


def _types_of(model: Any) -> set[str]:
    """Return the model types of a class: one, or several if it is annotated with a union of configurations."""
    made = model.config_class
    return {each.model_type for each in getattr(made, "__args__", (made,)) if hasattr(each, "model_type")}


def _is_model(value: object) -> bool:
    from transformers import PreTrainedModel

    return isinstance(value, type) and issubclass(value, PreTrainedModel)


if __name__ == "__main__":
    main()
