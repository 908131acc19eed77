"""The nouns of a script's steps: what a step is, and which of the script's names hold the model that is trained."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmdoctor.configs.script_values import name_of
from llmdoctor.configs.types import Meaning, Refused

OTHER_LOADERS = ("AutoPeft", "Peft", "AutoLiger", "Fast", "AutoGPTQ", "AutoAWQ")
_CLASS = re.compile(r"AutoModel|[A-Z]\w*(For[A-Z]\w+|Model)$")
_MODEL_MAKERS = ("from_pretrained", "from_config", "get_peft_model", "prepare_model_for_kbit_training")
_PARTS = ("parameters", "named_parameters", "modules", "named_modules", "children", "named_children")


@dataclass(frozen=True, slots=True)
class Step:
    """A step: `name` is its key below `script.`, `value` what `--strategy` lists of it, `meaning` what it does to the memory."""

    name: str
    value: object
    line: int
    meaning: Meaning


def refused_step(node: ast.AST, name: str, what: str, under: Mapping[int, str]) -> Step:
    """Return a step that is not modelled; `under` has the conditions under which nodes run."""
    line: int = getattr(node, "lineno", 0)
    condition = f", under a condition ({under[id(node)]})," if id(node) in under else ""
    return Step(
        name, f"{what} on line {line}", line, Refused(f"{what} on line {line}{condition} can change the memory and is not modelled", ())
    )


def is_model(owner: str) -> bool:
    """Return whether `owner` is a class of models of transformers: AutoModelForCausalLM, T5ForConditionalGeneration, GPT2LMHeadModel."""
    return not owner.startswith(OTHER_LOADERS) and _CLASS.match(owner) is not None


def models_of(tree: ast.Module) -> frozenset[str]:
    """Return the names that hold a model or a part of one."""
    found = {"model"}
    for _ in range(2):  # a loop over the parts of a part
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _makes_model(node.value):
                found |= {name_of(target) for target in node.targets}
            elif isinstance(node, ast.For) and _is_part(node.iter, found):
                found |= {inner.id for inner in ast.walk(node.target) if isinstance(inner, ast.Name)}
    return frozenset(found - {""})


def _makes_model(node: ast.Call) -> bool:
    name, owner = name_of(node.func), name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if name == "from_pretrained":
        return is_model(owner) or owner.startswith(OTHER_LOADERS)
    return name in _MODEL_MAKERS or is_model(name)


def _is_part(node: ast.expr, models: set[str] | frozenset[str]) -> bool:
    """Return whether `node` calls model.parameters(), model.x.named_modules() and the like."""
    return isinstance(node, ast.Call) and name_of(node.func) in _PARTS and bool(chain(node.func) & models)


def chain(node: ast.AST) -> set[str]:
    """Return the names in a.b.c().d."""
    out: set[str] = set()
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        if isinstance(node, ast.Attribute):
            out.add(node.attr)
        node = node.func if isinstance(node, ast.Call) else node.value
    return out | ({node.id} if isinstance(node, ast.Name) else set())
