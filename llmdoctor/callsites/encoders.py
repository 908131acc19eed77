"""Files about encoder-decoders: their encoder reads the prompt, and the rules about decoder-only models do not apply."""

from __future__ import annotations

import re

from llmdoctor.callsites.module import Module

# Models whose encoder reads the prompt, so that padding on the right is correct: transformers 5.23, models/*/configuration_*.py with
# is_encoder_decoder = True, and the classes that load one of them. Flax and TF are prefixes of older releases.
_ENCODER_DECODERS = re.compile(
    r"^(Flax|TF)?("
    r"AutoModel(For(Seq2SeqLM|SpeechSeq2Seq)|WithLMHeadAndSeq2Seq)|AutoModelForSeq2SeqLMWithValueHead|(Vision|Speech)?EncoderDecoderModel|MarianMTModel|"
    r"(T5|MT5|UMT5|LongT5|T5Gemma2?|SwitchTransformers|Bart|MBart|PLBart|Mvp|LED|Pegasus|PegasusX|BigBirdPegasus|Blenderbot|BlenderbotSmall|M2M100|NllbMoe|"
    r"FSMT|(XLM)?ProphetNet|Whisper|Speech2Text|Moonshine|MoonshineStreaming|Dia|Florence2|Pix2Struct|Pop2Piano|Udop|Canary)ForConditionalGeneration|"
    r"SeamlessM4T(v2)?(Model|For\w+)|SpeechT5ForSpeechToText|Musicgen(Melody)?ForConditionalGeneration|Rag(Token|Sequence)ForGeneration)$"
)


def reads_with_an_encoder(module: Module) -> bool:
    """Return whether a file imports an encoder-decoder model."""
    return any(_ENCODER_DECODERS.match(origin.rpartition(".")[2]) for origin in module.imported.values())
