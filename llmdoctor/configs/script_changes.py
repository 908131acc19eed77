"""What a training script changes in place, after the calls that `script` reads: the arguments, and the model that is trained.

Every such change that can change the memory is a step that is refused by name. Read in transformers 5.23.0 (training_args.py, trainer.py).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmdoctor.configs.script_models import Step, chain, refused_step
from llmdoctor.configs.script_values import Names, name_of, source_of
from llmdoctor.configs.types import Ignored, Meaning

# Methods of TrainingArguments that set some of them (training_args.py), without set_logging, set_save and the like.
_SETTERS = frozenset("set_training set_evaluate set_optimizer set_dataloader".split())
_CONTAINERS = frozenset("append extend insert pop remove clear".split())
_PARTS = frozenset("set_input_embeddings set_output_embeddings set_submodule add_module register_module register_parameter".split())
# The first three have steps of their own (script_steps.py).
_HARMLESS = frozenset(
    "requires_grad attn_implementation _attn_implementation is_parallelizable model_parallel state_dict old_state_dict config generation_config name_or_path grad hf_device_map".split()
)
_POSITIONS = {7: "compute_loss_func", 10: "optimizers"}  # of Trainer.__init__
# Packages whose functions do to a model what is read here, or nothing.
_KNOWN = frozenset(
    "torch transformers peft trl accelerate datasets bitsandbytes deepspeed evaluate numpy huggingface_hub wandb tqdm mlflow torchinfo torchsummary "
    "safetensors tokenizers sklearn unsloth liger_kernel cut_cross_entropy".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Reads the changes of one script.

    `results` are the names of the arguments, whose meanings are `arguments`; `models` those of the model and its parts; `foreign` maps names that
    are imported from modules which are not read to the module; `own` are the model classes of the script; `under` has the conditions of conditions().
    """

    names: Names
    under: Mapping[int, str]
    results: frozenset[str]
    models: frozenset[str]
    arguments: Mapping[str, Meaning]
    foreign: Mapping[str, str]
    own: frozenset[str]

    def steps(self, node: ast.AST) -> Iterator[Step]:
        """Yield the steps of one node of the tree."""
        for owner, name in _stored(node, self.names):
            if self._is_arguments(owner):
                yield from self._argument(node, name, f"{source_of(owner)}.{name or '...'} =")
            elif self._is_part(owner) and name not in _HARMLESS and not _is_constant(node):
                yield self._refused(node, name or "model", f"{source_of(owner)}{f'.{name}' if name else '[...]'} =")
        if isinstance(node, ast.Call):
            yield from self._call(node)

    def _call(self, node: ast.Call) -> Iterator[Step]:
        name, owner = name_of(node.func), node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in _SETTERS and owner is not None and self._is_arguments(owner):
            yield self._refused(node, name, f"{source_of(node.func)}()")
        elif name == "replace" and node.args and self._is_arguments(node.args[0]):
            for word in node.keywords:
                yield from self._argument(node, word.arg, f"replace({source_of(node.args[0])}, {word.arg or '**'}=...)")
        elif name == "update" and owner is not None and (inner := _dictionary_of(owner)) is not None and self._is_arguments(inner):
            yield self._refused(node, name, source_of(node))
        elif owner is not None and name in _CONTAINERS | _PARTS and self._is_part(owner):
            yield self._refused(node, name, f"{source_of(node.func)}()")
        elif name in self.own:
            yield self._refused(node, name, f"{name}(), a model class of the script's own,")
        elif name == "set_default_dtype":
            yield self._refused(node, name, source_of(node))
        elif name.endswith("Trainer"):
            for place, argument in _POSITIONS.items():
                if len(node.args) > place and self.names.value(node.args[place]) is not None:
                    yield self._refused(node, argument, f"{name}(), argument {place + 1} ({argument})")
        if (module := self.foreign.get(_root(node.func))) and any(self._is_taken(item) for item in _taken(node)):
            yield self._refused(node, name, f"{source_of(node.func)}() of {module}, which is not read,")

    def _argument(self, node: ast.AST, name: str | None, what: str) -> Iterator[Step]:
        if name is None or not isinstance(self.arguments.get(name), Ignored):
            yield self._refused(node, name or "arguments", what)

    def _is_arguments(self, node: ast.expr) -> bool:
        """Return whether `node` is the object of arguments: a name of it, or trainer.args."""
        if isinstance(node, ast.Attribute) and node.attr == "args":
            return name_of(node.value).lower().endswith("trainer")
        return isinstance(node, ast.Name) and node.id in self.results

    def _is_part(self, node: ast.expr) -> bool:
        """Return whether `node` is the model or a part of it, and not of its configuration."""
        found = chain(node)
        return bool(found & self.models) and not found & {"config", "generation_config"}

    def _is_taken(self, node: ast.expr) -> bool:
        return self._is_arguments(node) or (isinstance(node, ast.Name | ast.Attribute) and self._is_part(node))

    def _refused(self, node: ast.AST, name: str, what: str) -> Step:
        return refused_step(node, name, what, self.under)


def foreign_names(tree: ast.Module) -> dict[str, str]:
    """Return {name: module} of what a script imports from modules that are neither the standard library nor a package that is known here."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
            module = node.names[0].name
        else:
            continue
        root = module.partition(".")[0]
        if root not in _KNOWN and root not in sys.stdlib_module_names:
            found |= dict.fromkeys(names, module)
    return found


def own_models(tree: ast.Module) -> frozenset[str]:
    """Return the names of the classes of models, or of their parts, that the script defines."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return frozenset(
        node.name
        for node in classes
        if any(name_of(base).endswith(("Module", "Model", "Sequential", "ForCausalLM")) for base in node.bases)
    )


def _is_constant(node: ast.AST) -> bool:
    """Return whether a literal is stored, which is no module: model.is_parallelizable = True."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)


def _taken(node: ast.Call) -> Iterator[ast.expr]:
    yield from node.args
    yield from (word.value for word in node.keywords)


def _root(node: ast.expr) -> str:
    """Return the first name of a.b.c."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _stored(node: ast.AST, names: Names) -> Iterator[tuple[ast.expr, str | None]]:
    """Yield (object, attribute) of what `node` stores or deletes; the attribute is None if it is not known, or an item of the object."""
    if isinstance(node, ast.Call) and name_of(node.func) in ("setattr", "delattr") and len(node.args) > 1:
        given = names.value(node.args[1])
        yield node.args[0], given if isinstance(given, str) else None
        return
    targets = (
        node.targets
        if isinstance(node, ast.Assign | ast.Delete)
        else [node.target]
        if isinstance(node, ast.AugAssign | ast.AnnAssign)
        else []
    )
    for target in targets:
        for one in target.elts if isinstance(target, ast.Tuple | ast.List) else (target,):
            if isinstance(one, ast.Attribute):
                yield one.value, one.attr
            elif isinstance(one, ast.Subscript) and (owner := _dictionary_of(one.value)) is not None:
                given = names.value(one.slice)
                yield owner, given if isinstance(given, str) else None
            elif isinstance(one, ast.Subscript) and isinstance(one.value, ast.Attribute):
                yield one.value, None


def _dictionary_of(node: ast.expr) -> ast.expr | None:
    """Return x of x.__dict__ and vars(x)."""
    if isinstance(node, ast.Attribute) and node.attr == "__dict__":
        return node.value
    return node.args[0] if isinstance(node, ast.Call) and name_of(node.func) == "vars" and node.args else None
