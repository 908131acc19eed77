"""A text log: the lines of the libraries in it that this tool has a question for. The phrases are the libraries' own, held against them in tests."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.look.report import Seen, Try, model_near


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sign:
    """What a library writes, what it means, and the command that answers what is behind it ({model} is the model's directory)."""

    phrase: str
    means: str
    command: str
    answers: str


_CALL = ("llmdoctor check .", "the call that leaves it out")
_SHOW = "llmdoctor gencfg show {model}"
SIGNS = (
    Sign(
        "CUDA out of memory",
        "a device ran out of memory",
        "llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16",
        "what a step holds",
    ),
    Sign(
        "right-padding was detected",
        "a batch was padded on the right",
        "llmdoctor mask test {model}",
        "what padding changes in the answers",
    ),
    Sign("cannot be inferred from input because pad token", "generate() ran without an attention mask", *_CALL),
    Sign("attention mask and the pad token id were not set", "generate() ran without an attention mask", *_CALL),
    Sign(
        "Setting `pad_token_id` to `eos_token_id`", "no pad token is set: the eos stands in", _SHOW, "where each id comes from"
    ),  # to 5.12
    Sign("generation flags are not valid and may be ignored", "sampling settings do nothing", _SHOW, "which settings count in the end"),
    Sign("have been set. `max_new_tokens` will take precedence", "two limits are set", _SHOW, "which limit counts, and who set the other"),
    Sign(
        "DeepSpeedZeroOptimizer",
        "ZeRO is at work",
        "llmdoctor mem compare {model} --strategy deepspeed:zero2,bf16",
        "what it holds on a device",
    ),
)


def see_log(path: str, data: bytes) -> Seen:
    """What a text says that one of the commands can answer; a text without any such line is just text."""
    text = data.decode("utf-8", "replace")
    found = [(sign, text.count("\n", 0, at) + 1) for sign in SIGNS if (at := text.find(sign.phrase)) >= 0]
    if not found:
        return Seen("text", "TEXT: no line in it that this tool has a question for", (("lines", f"{text.count(chr(10)) + 1:,}"),))
    found.sort(key=lambda one: one[1])
    rows = tuple((f"line {line}", f"{sign.means}: ...{sign.phrase}...") for sign, line in found)
    model = model_near(path)
    tries = {sign.command: Try(sign.command.format(model=model), sign.answers) for sign, _ in found}
    return Seen("log", f"A LOG: {found[0][0].means} (line {found[0][1]})", rows, tuple(tries.values())[:3])
