"""A text log: the messages of libraries in it that a command can explain. A test compares the phrases with the libraries' sources."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmdoctor.look.paths import model_near, quoted
from llmdoctor.look.types import Recognised, Suggestion


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sign:
    """A phrase that a library writes, what it means, and the command that finds the cause ({model} is the model's directory)."""

    phrase: str
    means: str
    command: str
    answers: str


_CALL = ("llmdoctor check .", "the call without an attention mask")
_SHOW = "llmdoctor gencfg show {model}"
_MEMORY = "llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16"
SIGNS = (
    Sign("out of memory", "a device ran out of memory", _MEMORY, "the memory of a training step"),
    Sign(
        "right-padding was detected",
        "a batch was padded on the right",
        "llmdoctor mask test {model}",
        "what padding changes in the answers",
    ),
    Sign("cannot be inferred from input because pad token", "generate() ran without an attention mask", *_CALL),
    Sign("attention mask and the pad token id were not set", "generate() ran without an attention mask", *_CALL),
    Sign(
        "Setting `pad_token_id` to `eos_token_id`",
        "no pad token is set, so the eos token is used instead",
        _SHOW,
        "where each id comes from",
    ),  # to 5.12
    Sign("generation flags are not valid and may be ignored", "sampling settings have no effect", _SHOW, "the effective settings"),
    Sign(
        "have been set. `max_new_tokens` will take precedence", "two limits are set", _SHOW, "which limit applies, and what set the other"
    ),
    Sign(
        "DeepSpeedZeroOptimizer",
        "DeepSpeed ZeRO is used",
        "llmdoctor mem compare {model} --strategy deepspeed:zero2,bf16",
        "the memory of each device",
    ),
)


def recognise_log(path: str, data: bytes) -> Recognised:
    """Return the known messages of a log with their lines and commands; an out-of-memory message that can be read comes first."""
    text = data.decode("utf-8", "replace")
    found = sorted(((text.count("\n", 0, at) + 1, sign) for sign in SIGNS if (at := text.find(sign.phrase)) >= 0), key=lambda one: one[0])
    memory = _out_of_memory(path, text)
    if memory is not None:
        found = [(line, sign) for line, sign in found if sign.command != _MEMORY]
    if not found and memory is None:
        return Recognised("text", "a text file without any line that llmdoctor recognises", (("lines", f"{text.count(chr(10)) + 1:,}"),))
    rows = tuple((f"line {line}", f"{sign.means}: ...{sign.phrase}...") for line, sign in found)
    model = model_near(path)
    suggestions = {sign.command: Suggestion(sign.command.format(model=model), sign.answers) for _, sign in found}
    if memory is not None:
        return Recognised("log", memory.what, (*memory.evidence, *rows), (*memory.suggestions, *suggestions.values())[:3])
    line, first = found[0]
    return Recognised("log", f"a log: {first.means} (line {line})", rows, tuple(suggestions.values())[:3])


def _out_of_memory(path: str, text: str) -> Recognised | None:
    """Return what the last out-of-memory message of a log states, read as `mem oom` reads it; None without one."""
    from llmdoctor.mem.oom import sentence
    from llmdoctor.mem.oom_failures import failures_of
    from llmdoctor.mem.oom_message import messages_of

    messages = messages_of(text)
    explain = Suggestion(f"llmdoctor mem oom {quoted(path)}", "which tensor it was, and what to change")
    if not messages:
        failures = failures_of(text)
        if not failures:
            return None
        first = failures[0]
        what = f"the log of a run that ran out of memory (line {first.line})"
        return Recognised("log", what, (("out of memory", first.means),), (replace(explain, answers="what it means, and what to change"),))
    message = messages[-1]
    command = _MEMORY.format(model=model_near(path))
    rows: tuple[tuple[str, str], ...] = (("out of memory", sentence(message)),)
    if message.capacity is not None:
        size = f"{message.capacity / 2**30:.2f}GiB"
        command, rows = f"{command} --gpu-memory {size}", (*rows, ("device", size))
    suggestions = (explain, Suggestion(command, "the memory of a training step on this device"))
    return Recognised("log", f"the log of a run that ran out of memory (line {message.line})", rows, suggestions)
