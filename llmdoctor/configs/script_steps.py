"""Steps of a training script that change what it holds in memory, beside the calls that `script` reads: they are named, not modelled."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Calls of functions and methods by their last name; `float` and `half` of a module are methods without an argument.
_CALLS = frozenset(
    "gradient_checkpointing_enable gradient_checkpointing_disable prepare_model_for_kbit_training requires_grad_ resize_token_embeddings "
    "enable_input_require_grads compile".split()
)
_CASTS = frozenset({"float", "half", "bfloat16"})
# Adapters of PEFT other than LoRA (peft 0.21, PEFT_TYPE_TO_CONFIG_MAPPING).
_ADAPTERS = frozenset(
    "AdaLoraConfig BOFTConfig BoneConfig FourierFTConfig HRAConfig IA3Config LNTuningConfig LoHaConfig LoKrConfig MultitaskPromptTuningConfig OFTConfig "
    "PolyConfig PrefixTuningConfig PromptEncoderConfig PromptTuningConfig RandLoraConfig VBLoRAConfig VeraConfig XLoraConfig".split()
)
_TRAINER_WORDS = ("optimizers", "max_seq_length")
_CAUSAL = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForVision2Seq")


def unread_steps(tree: ast.Module, maker: ast.Call) -> list[str]:
    """Return what a script does to its memory outside the calls that are read, each with its line, in the order of the lines.

    `maker` is the call that makes the arguments: an attribute that is set on its result later is such a step, too.
    """
    arguments = next(
        (
            _name(node.targets[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and node.value is maker and len(node.targets) == 1
        ),
        "",
    )
    found = sorted({(line, what) for node in ast.walk(tree) for line, what in _steps(node, arguments)})
    return [f"{what} on line {line}" for line, what in found]


def _steps(node: ast.AST, arguments: str) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and (target.attr == "requires_grad" or (arguments and _name(target.value) == arguments)):
                yield node.lineno, f"{_name(target.value) or 'an object'}.{target.attr} ="


def _calls(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = _name(node.func)
    owner = _name(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if (name in _CALLS and (name != "compile" or owner != "re")) or name in _ADAPTERS:
        yield node.lineno, f"{name}()"
    elif name in _CASTS and owner and not node.args and not node.keywords:
        yield node.lineno, f"{owner}.{name}()"
    elif name == "from_pretrained" and owner.startswith("AutoModelFor") and owner not in _CAUSAL:
        yield node.lineno, f"{owner}.from_pretrained()"
    elif name.endswith("Trainer"):
        for word in node.keywords:
            if word.arg in _TRAINER_WORDS:
                yield word.value.lineno, f"{name}({word.arg}=...)"


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
