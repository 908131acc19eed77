"""A text log: the messages of libraries in it that a command can explain. A test compares the phrases with the libraries' sources."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.look.paths import model_near, quoted
from llmdoctor.look.types import Recognised, Suggestion


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sign:
    """A phrase that a library writes, what it means, and the command that finds the cause ({model} is the model's directory, {file} the log)."""

    phrase: str
    means: str
    command: str
    answers: str


_CALL = ("llmdoctor check .", "the call without an attention mask")
_SHOW = "llmdoctor gencfg show {model}"
SIGNS = (
    Sign("out of memory", "a device ran out of memory", "llmdoctor mem oom {file}", "which tensor it was, and what to change"),
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
    """Return the known messages of a log with their lines and commands."""
    text = data.decode("utf-8", "replace")
    found = [(sign, text.count("\n", 0, at) + 1) for sign in SIGNS if (at := text.find(sign.phrase)) >= 0]
    if not found:
        return Recognised("text", "a text file without any line that llmdoctor recognises", (("lines", f"{text.count(chr(10)) + 1:,}"),))
    found.sort(key=lambda one: one[1])
    rows = tuple((f"line {line}", f"{sign.means}: ...{sign.phrase}...") for sign, line in found)
    rows = (*rows, *_out_of_memory(text))
    model = model_near(path)
    suggestions = {sign.command: Suggestion(sign.command.format(model=model, file=quoted(path)), sign.answers) for sign, _ in found}
    return Recognised("log", f"a log: {found[0][0].means} (line {found[0][1]})", rows, tuple(suggestions.values())[:3])


def _out_of_memory(text: str) -> tuple[tuple[str, str], ...]:
    """Return the numbers of the last out-of-memory message of a log, as rows."""
    from llmdoctor.mem.oom import sentence
    from llmdoctor.mem.oom_message import messages_of

    messages = messages_of(text)
    if not messages:
        return ()
    message = messages[-1]
    size = () if message.capacity is None else (("device", f"--gpu-memory {message.capacity / 2**30:.2f}GiB"),)
    return (("memory", sentence(message)), *size)
