"""The list of formats, in the order in which they are recognised: the first whose keys fit reads a file."""

from __future__ import annotations

from llmdoctor.configs import accelerate, axolotl, deepspeed, llamafactory, ms_swift, peft, torchtune, trainer, trl
from llmdoctor.configs.types import Format

FORMATS: tuple[Format, ...] = (
    accelerate.FORMAT,
    axolotl.FORMAT,
    ms_swift.FORMAT,
    llamafactory.FORMAT,
    torchtune.FORMAT,
    trl.FORMAT,
    trainer.FORMAT,
    deepspeed.FORMAT,
    peft.FORMAT,
)
