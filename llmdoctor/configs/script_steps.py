"""Steps of a training script that change what it holds in memory, beside the calls that `script` reads.

A step with one meaning is modelled; of the others it is said by name that they are not. Read in transformers 5.23.0 and peft 0.21.2.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmdoctor.configs.script_changes import Changes, foreign_names, own_models
from llmdoctor.configs.script_models import OTHER_LOADERS, Step, chain, is_model, models_of, refused_step
from llmdoctor.configs.script_values import Names, name_of, source_of
from llmdoctor.configs.types import Ignored, Meaning, Refused, Uses

# Calls by their last name.
_CALLS = frozenset(
    "gradient_checkpointing_disable resize_token_embeddings set_attn_implementation add_adapter load_adapter merge_and_unload".split()
)
_CASTS = frozenset({"float", "half", "bfloat16", "double"})
_DTYPES = frozenset({"float32", "bfloat16", "float16", "half", "float", "float64", "double"})
# Adapters of PEFT other than LoRA (peft 0.21, PEFT_TYPE_TO_CONFIG_MAPPING).
_ADAPTERS = frozenset(
    "AdaLoraConfig BOFTConfig BoneConfig FourierFTConfig HRAConfig IA3Config LNTuningConfig LoHaConfig LoKrConfig MultitaskPromptTuningConfig OFTConfig "
    "PolyConfig PrefixTuningConfig PromptEncoderConfig PromptTuningConfig RandLoraConfig VBLoRAConfig VeraConfig XLoraConfig".split()
)
_OVERRIDDEN = ("compute_loss", "training_step", "create_optimizer", "create_optimizer_and_scheduler")
_TRAINER_WORDS = ("optimizers", "max_seq_length", "compute_loss_func", "optimizer_cls_and_kwargs")
CAUSAL = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForVision2Seq")
_PACKAGES = {
    "unsloth": "Unsloth replaces the model's code",
    "liger_kernel": "Liger kernels that the script applies itself",
    "cut_cross_entropy": "cut cross entropy that the script applies itself",
}


def steps_of(
    tree: ast.Module,
    maker: ast.Call,
    names: Names,
    under: Mapping[int, str],
    *,
    adapters: int,
    recomputes: bool,
    arguments: Mapping[str, Meaning],
) -> list[Step]:
    """Return what a script does to its memory outside the calls that are read, in the order of the lines, one step for each name.

    `maker` is the call that makes the arguments, whose meanings are `arguments`: an attribute that is set on its result later is such a step, too.
    `under` has the conditions of conditions(), `adapters` is the line at which adapters are added, 0 if there are none,
    `recomputes` reports gradient checkpointing.
    """
    models = models_of(tree)
    reader = _StepReader(names=names, under=under, models=models, adapters=adapters, recomputes=recomputes)
    changes = Changes(
        names=names,
        under=under,
        models=models,
        results=_results(tree, maker, names),
        arguments=arguments,
        foreign=foreign_names(tree),
        own=own_models(tree),
    )
    found: dict[str, Step] = {}
    nodes = list(ast.walk(tree))
    several = [step for node in nodes for step in (*reader.steps(node), *changes.steps(node))]
    for step in sorted(several, key=lambda one: one.line):
        known = found.get(step.name)
        if known is None or (isinstance(step.meaning, Refused) and not isinstance(known.meaning, Refused)):
            found[step.name] = step
    return list(found.values())


def _results(tree: ast.Module, maker: ast.Call, names: Names) -> frozenset[str]:
    """Return the names of what `maker` makes."""
    stored = [
        (node.targets if isinstance(node, ast.Assign) else [node.target], node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
    ]
    return frozenset(
        name_of(target) for targets, value in stored if value is not None and names.behind(value) is maker for target in targets
    ) - {""}


def _owner(node: ast.Call) -> str:
    return name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _StepReader:
    names: Names
    under: Mapping[int, str]
    models: frozenset[str]
    adapters: int
    recomputes: bool

    def steps(self, node: ast.AST) -> Iterator[Step]:
        """Yield the steps of one node of the tree."""
        if isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from self._assigned(node, target)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            packages = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for package, what in _PACKAGES.items():
                if any(one.partition(".")[0] == package for one in packages):
                    yield self._refused(node, package, what)
        elif isinstance(node, ast.ClassDef) and any(name_of(base).endswith("Trainer") for base in node.bases):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name in _OVERRIDDEN:
                    yield self._refused(item, item.name, f"{node.name}.{item.name}()")

    def _call(self, node: ast.Call) -> Iterator[Step]:
        name, owner = name_of(node.func), _owner(node)
        compiles = name == "compile" and (owner == "torch" or self._chained(node))
        if name in _CALLS or name in _ADAPTERS or compiles or (name == "from_config" and is_model(owner)):
            yield self._refused(node, name, f"{name}()")
        elif name == "gradient_checkpointing_enable":
            yield self._known(node, name, Uses("checkpointing"), plain={"gradient_checkpointing_kwargs"})
        elif name == "prepare_model_for_kbit_training":
            yield from self._prepared(node)
        elif name == "enable_input_require_grads":
            yield self._input_gradients(node, name)
        elif name == "requires_grad_" and (self._chained(node) or self._freezes(node)):
            yield self._freezing(node, f"{owner}.{name}()", self.names.value(node.args[0]) if node.args else True)
        elif self._casts(node, name) and self._chained(node):
            yield self._refused(node, name, source_of(node))
        elif name == "from_pretrained" and (owner.startswith(OTHER_LOADERS) or (owner.startswith("AutoModelFor") and owner not in CAUSAL)):
            yield self._refused(node, owner, f"{owner}.from_pretrained()")
        elif name.endswith("Trainer"):
            for word in node.keywords:
                if word.arg in _TRAINER_WORDS and self.names.value(word.value) is not None:
                    yield self._refused(word.value, word.arg, f"{name}({word.arg}=...)")

    def _prepared(self, node: ast.Call) -> Iterator[Step]:
        name = name_of(node.func)
        yield self._known(node, name, Uses("prepared"), plain={"use_gradient_checkpointing", "gradient_checkpointing_kwargs", "model"})
        given = dict(self.names.arguments(node)).get("use_gradient_checkpointing")
        if given is None or self.names.value(given) is not False:
            yield self._known(node, "gradient_checkpointing_enable", Uses("checkpointing"), plain={"use_gradient_checkpointing"})

    def _input_gradients(self, node: ast.Call, name: str) -> Step:
        if self.adapters and not self.recomputes:
            return self._refused(node, name, f"{name}()")
        reason = "the trainer does so too under gradient checkpointing" if self.adapters else "the embeddings have gradients anyway"
        return Step(name, f"{name}() on line {node.lineno}", node.lineno, Ignored(reason))

    def _known(self, node: ast.Call, name: str, meaning: Meaning, plain: set[str]) -> Step:
        """Return a step that is modelled, or refused if it has other arguments or runs under a condition."""
        if id(node) in self.under or any(
            word not in (*plain, "gradient_checkpointing_kwargs", "model") for word, _ in self.names.arguments(node)
        ):
            return self._refused(node, name, f"{name}()")
        return Step(name, True, node.lineno, meaning)

    def _casts(self, node: ast.Call, name: str) -> bool:
        if name in _CASTS:
            return not node.args and not node.keywords
        if name not in ("to", "type"):
            return False
        return any(word.arg == "dtype" for word in node.keywords) or any(self._is_dtype(item) for item in node.args)

    def _is_dtype(self, node: ast.expr) -> bool:
        found = self.names.behind(node)
        return name_of(found) in _DTYPES or self.names.value(found) in _DTYPES

    def _freezes(self, node: ast.Call) -> bool:
        """Return whether a call of requires_grad_ freezes something, of whatever object: a function of the script may be given a part of the model."""
        return bool(node.args) and self.names.value(node.args[0]) is not True

    def _chained(self, node: ast.Call) -> bool:
        return isinstance(node.func, ast.Attribute) and bool(chain(node.func.value) & self.models)

    def _assigned(self, node: ast.Assign, target: ast.expr) -> Iterator[Step]:
        if not isinstance(target, ast.Attribute):
            return
        if target.attr == "requires_grad":
            yield self._freezing(node, source_of(target) + " =", self.names.value(node.value))
        elif target.attr in ("_attn_implementation", "attn_implementation"):
            yield self._refused(node, target.attr, f"{source_of(target)} =")

    def _freezing(self, node: ast.stmt | ast.expr, what: str, value: object) -> Step:
        """Return a step that freezes weights or trains them: nothing changes if all weights are frozen that adapters are added to later."""
        if value is False and id(node) not in self.under and node.lineno < self.adapters:
            return Step(
                "requires_grad", f"{what} on line {node.lineno}", node.lineno, Ignored("the weights below adapters are frozen anyway")
            )
        return self._refused(node, "requires_grad", what)

    def _refused(self, node: ast.AST, name: str, what: str) -> Step:
        return refused_step(node, name, what, self.under)
