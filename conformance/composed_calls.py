"""Hold `gencfg show` against composed calls: objects as arguments, embeddings as prompts, encoder-decoders, models of several parts.

    python conformance/composed_calls.py run OUT.jsonl            # with the transformers that is importable there, and CPU torch
    python conformance/composed_calls.py compare ROWS.jsonl...    # with this package; exit status 1 if under 99% of the rows agree

A call of the first command is a real from_pretrained() and a real generate() on a tiny model whose next token is fixed. A row agrees if the
exception, or else the number of new tokens, is the predicted one, or if the verdict names the argument that is not modelled or the condition. The first
command imports nothing of llmdoctor, so that it runs in an environment of another release:

    pip install --target /tmp/t/4.48.3 --no-deps transformers==4.48.3 tokenizers==0.21.4 'huggingface_hub<1'
    PYTHONPATH=/tmp/t/4.48.3 python conformance/composed_calls.py run /tmp/t/4.48.3.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
ENOUGH = 0.99
EMIT, EOS, SIZE = 145, 145, 200
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
TEXT = {**SIZES, "vocab_size": SIZE, "max_position_embeddings": 512}
IDS = {"bos_token_id": 143, "eos_token_id": EOS, "pad_token_id": 0}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **TEXT, **IDS},
    "llama-no-eos": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **TEXT},
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", **TEXT, **IDS, "head_dim": 8, "sliding_window": 64},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **TEXT, **IDS, "head_dim": 8},
    "t5": {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": SIZE,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "eos_token_id": EOS,
        "pad_token_id": 0,
    },
    "bart": {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "is_encoder_decoder": True,
        "vocab_size": SIZE,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 512,
        "decoder_start_token_id": 2,
        "bos_token_id": 0,
        "eos_token_id": EOS,
        "pad_token_id": 1,
        "forced_eos_token_id": EOS,
        "forced_bos_token_id": None,
    },
    "llava": {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 199,
        "image_token_id": 199,
        "text_config": {"model_type": "llama", **TEXT, **IDS},
        "vision_config": {"model_type": "clip_vision_model", **VISION},
    },
    "gemma3": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "mm_tokens_per_image": 4,
        "image_token_index": 199,
        "text_config": {"model_type": "gemma3_text", **TEXT, **IDS, "head_dim": 8, "sliding_window": 64},
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
    },
}
OWN = {"eos_token_id": EOS, "pad_token_id": 0}
# name: model, and what generate() gets. "@..." stands for an object; "prompt" is the number of ids, 0 for none.
CALLS: dict[str, dict[str, Any]] = {
    "forced_eos_beyond": {"kwargs": {"forced_eos_token_id": 200, "max_new_tokens": 4}, "emit": 60},
    "forced_eos_beyond_stops_before": {"kwargs": {"forced_eos_token_id": 200, "max_new_tokens": 4}},
    "forced_eos_list_beyond": {"kwargs": {"forced_eos_token_id": [145, 300], "max_new_tokens": 4}, "emit": 60},
    "forced_eos_in_file": {"gen": {**OWN, "forced_eos_token_id": 999}, "kwargs": {"max_new_tokens": 4}, "emit": 60},
    "forced_eos_user_config": {"user": {"forced_eos_token_id": 250, "max_new_tokens": 4}, "emit": 60},
    "forced_eos_last_id": {"kwargs": {"forced_eos_token_id": 199, "max_new_tokens": 4}, "emit": 60},
    "forced_bos_beyond": {"kwargs": {"forced_bos_token_id": 200, "max_new_tokens": 4}, "emit": 60},
    "forced_bos_beyond_one_id": {"kwargs": {"forced_bos_token_id": 200, "max_new_tokens": 4}, "prompt": 1, "emit": 60},
    "forced_bos_t5": {"model": "t5", "kwargs": {"forced_bos_token_id": 200, "max_new_tokens": 4}, "emit": 60},
    "forced_bos_t5_inside": {"model": "t5", "kwargs": {"forced_bos_token_id": 199, "max_new_tokens": 4}, "emit": 60},
    "embeds": {"kwargs": {"inputs_embeds": "@embeds", "max_new_tokens": 6}, "prompt": 0, "emit": 60},
    "embeds_stops": {"kwargs": {"inputs_embeds": "@embeds", "max_new_tokens": 6}, "prompt": 0},
    "embeds_max_length": {"kwargs": {"inputs_embeds": "@embeds", "max_length": 10}, "prompt": 0, "emit": 60},
    "embeds_min_length": {"kwargs": {"inputs_embeds": "@embeds", "max_length": 10, "min_length": 8}, "prompt": 0},
    "embeds_default": {"kwargs": {"inputs_embeds": "@embeds"}, "prompt": 0, "emit": 60},
    "embeds_and_ids": {"kwargs": {"inputs_embeds": "@embeds", "max_new_tokens": 6}, "emit": 60},
    "embeds_penalty": {"kwargs": {"inputs_embeds": "@embeds", "repetition_penalty": 1.2, "max_new_tokens": 3}, "prompt": 0, "emit": 60},
    "assistant": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6}, "emit": 60},
    "assistant_stops": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6}},
    "assistant_sampling": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6, "do_sample": True}, "emit": 60},
    "assistant_beams": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6, "num_beams": 2}, "emit": 60},
    "assistant_returns_two": {
        "kwargs": {"assistant_model": "@model", "max_new_tokens": 6, "num_return_sequences": 2, "do_sample": True},
        "emit": 60,
    },
    "assistant_batch": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6}, "batch": 2, "emit": 60},
    "assistant_static": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6, "cache_implementation": "static"}, "emit": 60},
    "assistant_no_cache": {"kwargs": {"assistant_model": "@model", "max_new_tokens": 6, "use_cache": False}, "emit": 60},
    "lookup": {"kwargs": {"prompt_lookup_num_tokens": 3, "max_new_tokens": 6}, "emit": 60},
    "lookup_beams": {"kwargs": {"prompt_lookup_num_tokens": 3, "max_new_tokens": 6, "num_beams": 2}, "emit": 60},
    "cache_and_static": {"kwargs": {"past_key_values": "@cache", "cache_implementation": "static", "max_new_tokens": 4}, "emit": 60},
    "cache_and_dynamic_name": {"kwargs": {"past_key_values": "@cache", "cache_implementation": "dynamic", "max_new_tokens": 4}, "emit": 60},
    "cache_and_user_static": {
        "user": {"cache_implementation": "static", "max_new_tokens": 4},
        "kwargs": {"past_key_values": "@cache"},
        "emit": 60,
    },
    "cache": {"kwargs": {"past_key_values": "@cache", "max_new_tokens": 4}, "emit": 60},
    "cache_max_length": {"kwargs": {"past_key_values": "@cache", "max_length": 9}, "emit": 60},
    "cache_tuple": {"kwargs": {"past_key_values": "@tuple", "max_new_tokens": 4}, "emit": 60},
    "static_name": {"kwargs": {"cache_implementation": "static", "max_new_tokens": 4}, "emit": 60},
    "static_file_kwarg_none": {
        "gen": {**OWN, "cache_implementation": "static"},
        "kwargs": {"cache_implementation": None, "max_new_tokens": 4},
        "emit": 60,
    },
    "t5_max_length": {"model": "t5", "kwargs": {"max_length": 6}, "emit": 60},
    "t5_default": {"model": "t5", "kwargs": {}, "emit": 60},
    "t5_new_tokens": {"model": "t5", "kwargs": {"max_new_tokens": 6}, "emit": 60},
    "t5_stops": {"model": "t5", "kwargs": {"max_new_tokens": 6}},
    "t5_decoder_ids": {"model": "t5", "kwargs": {"decoder_input_ids": "@decoder", "max_length": 8}, "emit": 60},
    "t5_decoder_ids_new": {"model": "t5", "kwargs": {"decoder_input_ids": "@decoder", "max_new_tokens": 5}, "emit": 60},
    "t5_long_prompt": {"model": "t5", "kwargs": {"max_length": 6}, "prompt": 30, "emit": 60},
    "t5_no_start": {
        "model": "t5",
        "gen": {"eos_token_id": EOS, "pad_token_id": 0},
        "config": {"decoder_start_token_id": None},
        "kwargs": {"max_new_tokens": 3},
        "emit": 60,
    },
    "t5_gen_without_start": {"model": "t5", "gen": {"eos_token_id": EOS, "pad_token_id": 0}, "kwargs": {"max_new_tokens": 3}, "emit": 60},
    "t5_min_length": {"model": "t5", "kwargs": {"min_length": 4, "max_length": 8}, "emit": 60},
    "bart_forced_eos": {"model": "bart", "kwargs": {"max_new_tokens": 5}, "emit": 60},
    "bart_max_length": {"model": "bart", "kwargs": {"max_length": 5}, "emit": 60},
    "bart_encoder_outputs": {"model": "bart", "kwargs": {"encoder_outputs": "@encoder", "max_new_tokens": 5}, "prompt": 0, "emit": 60},
    "llava_nested_eos": {"model": "llava", "kwargs": {"max_new_tokens": 5}},
    "llava_nested_eos_file": {"model": "llava", "gen": {"pad_token_id": 0}, "kwargs": {"max_new_tokens": 5}},
    "llava_outer_eos": {"model": "llava", "config": {"eos_token_id": 60}, "kwargs": {"max_new_tokens": 5}},
    "llava_user_config": {"model": "llava", "user": {"max_new_tokens": 5}},
    "gemma3_nested_eos": {"model": "gemma3", "kwargs": {"max_new_tokens": 5}},
    "gemma3_file": {"model": "gemma3", "gen": {**OWN, "cache_implementation": "hybrid"}, "kwargs": {"max_new_tokens": 5}, "emit": 60},
    "gemma2_class_cache": {"model": "gemma2", "kwargs": {"max_new_tokens": 5}, "emit": 60},
    "gemma2_hybrid_file": {
        "model": "gemma2",
        "gen": {**OWN, "cache_implementation": "hybrid"},
        "kwargs": {"max_new_tokens": 5},
        "emit": 60,
    },
    "gemma2_cache_given": {"model": "gemma2", "kwargs": {"past_key_values": "@cache", "max_new_tokens": 5}, "emit": 60},
    "gemma2_static": {"model": "gemma2", "kwargs": {"cache_implementation": "static", "max_new_tokens": 5}, "emit": 60},
    "gemma2_assistant": {"model": "gemma2", "kwargs": {"assistant_model": "@model", "max_new_tokens": 5}, "emit": 60},
    "qwen3": {"model": "qwen3", "kwargs": {"max_new_tokens": 5}, "emit": 60},
    "no_eos_criteria": {"model": "llama-no-eos", "kwargs": {"stopping_criteria": "@criteria", "max_new_tokens": 9}, "emit": 60},
    "processor_forbids": {"kwargs": {"logits_processor": "@processor", "max_new_tokens": 5}},
    "prefix_fn": {"kwargs": {"prefix_allowed_tokens_fn": "@prefix", "max_new_tokens": 5}},
    "streamer": {"kwargs": {"streamer": "@streamer", "max_new_tokens": 5}, "emit": 60},
    "streamer_beams": {"kwargs": {"streamer": "@streamer", "num_beams": 2, "max_new_tokens": 5}, "emit": 60},
    "negative_prompt": {"kwargs": {"negative_prompt_ids": "@ids", "guidance_scale": 1.5, "max_new_tokens": 5}, "emit": 60},
    "stop_strings_no_tokenizer": {"kwargs": {"stop_strings": ["x"], "max_new_tokens": 5}, "emit": 60},
    "misspelt": {"kwargs": {"max_new_token": 5}, "emit": 60},
    "no_prompt": {"kwargs": {"max_new_tokens": 5}, "prompt": 0, "emit": 60},
    "custom_generate": {"kwargs": {"custom_generate": "@custom", "max_new_tokens": 5}, "emit": 60},
}


# --- running ------------------------------------------------------------------------------------------------------------------------


def run(out: Path) -> None:
    """Write a row for each call: the version, and the exception or the number of new tokens."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as root, out.open("w") as file:
        for name, call in CALLS.items():
            row: dict[str, Any] = {"version": transformers.__version__, "call": name}
            try:
                row["new_tokens"] = generated(Path(root) / name, call)
            except Exception as error:
                row["error"] = {"type": type(error).__name__, "message": str(error)[:200]}
            file.write(json.dumps(row) + "\n")


def write(folder: Path, call: dict[str, Any]) -> None:
    """Write the files of a call's model, without weights."""
    folder.mkdir(exist_ok=True)
    config = {**MODELS[call.get("model", "llama")], **call.get("config", {}), "transformers_version": "4.41.2"}
    (folder / "config.json").write_text(json.dumps(config))
    if "gen" in call:
        (folder / "generation_config.json").write_text(json.dumps(call["gen"]))


def generated(folder: Path, call: dict[str, Any]) -> int:
    """Return how many new tokens a real generate() gives."""
    import torch
    import transformers

    write(folder, call)
    config = json.loads((folder / "config.json").read_text())
    loaded = transformers.AutoConfig.from_pretrained(str(folder))
    kind = getattr(transformers, config["architectures"][0])
    torch.manual_seed(0)
    made = kind(loaded)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in made.state_dict().items()}
    from safetensors.torch import save_file

    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    model = kind.from_pretrained(str(folder)).eval()

    def lead(_module: Any, _inputs: Any, output: Any) -> Any:
        forced = torch.zeros_like(output)
        forced[..., 61], forced[..., call.get("emit", EMIT)] = 25.0, 50.0
        return forced

    model.get_output_embeddings().register_forward_hook(lead)
    length = call.get("prompt", 4)
    arguments = {name: thing(value, model) for name, value in call.get("kwargs", {}).items()}
    if length:
        ids = torch.arange(10, 10 + length)[None].repeat(call.get("batch", 1), 1)
        arguments |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "user" in call:
        arguments["generation_config"] = transformers.GenerationConfig(**call["user"])
    rows = model.generate(**arguments)
    alone = config.get("is_encoder_decoder") or not (length or "inputs_embeds" in arguments)  # the decoder begins with a token of its own
    given = 1 if alone else length
    if "decoder_input_ids" in arguments:
        given = arguments["decoder_input_ids"].shape[1]
    return int(rows.shape[1]) - given


def thing(value: Any, model: Any) -> Any:
    """Return the object that an argument stands for."""
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    import torch
    import transformers

    name = value[1:]
    if name == "embeds":
        return model.get_input_embeddings()(torch.tensor([[10, 11, 12, 13]]))
    if name == "encoder":
        return model.get_encoder()(torch.tensor([[10, 11, 12, 13]]))
    if name == "tuple":
        return tuple((torch.zeros(1, 2, 0, 8), torch.zeros(1, 2, 0, 8)) for _ in range(2))
    if name == "criteria":
        return transformers.StoppingCriteriaList([transformers.MaxLengthCriteria(max_length=7)])
    made = {
        "model": lambda: model,
        "cache": transformers.DynamicCache,
        "decoder": lambda: torch.tensor([[0, 5, 6]]),
        "ids": lambda: torch.tensor([[10, 11, 12, 13]]),
        "processor": lambda: transformers.LogitsProcessorList([transformers.SuppressTokensLogitsProcessor([EOS])]),
        "prefix": lambda: lambda _batch, _ids: [60],
        "streamer": Streamer,
        "custom": lambda: lambda _model, input_ids, **_: input_ids,
    }
    return made[name]()


class Streamer:
    """What generate() asks of a streamer."""

    def put(self, value: Any) -> None:
        """Take the ids of a step."""

    def end(self) -> None:
        """Be told of the end."""


# --- comparing ----------------------------------------------------------------------------------------------------------------------


def compare(paths: list[Path]) -> int:
    """Print the rows in which `gencfg show` is wrong and does not say what is not modelled; return the exit status."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    failed = False
    total = good = 0
    with tempfile.TemporaryDirectory() as root:
        for path in paths:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            judged = [(row, judgement(Path(root), row)) for row in rows]
            wrong = [(row, words) for row, words in judged if words not in ("", "named")]
            for row, words in wrong:
                print(f"  {row['version']} {row['call']}: {words}")
            named = sum(words == "named" for _, words in judged)
            print(
                f"{rows[0]['version']}: {len(rows) - len(wrong)} of {len(rows)} agree, {named} of them because the verdict names what is not modelled"
            )
            total, good = total + len(rows), good + len(rows) - len(wrong)
            failed |= len(wrong) > (1 - ENOUGH) * len(rows)
    print(f"together: {good} of {total}, {good / total:.1%}")
    return int(failed)


def judgement(root: Path, row: dict[str, Any]) -> str:
    """Return how the answer differs from a row: "" if it agrees, "named" if it differs and the verdict names what is not modelled."""
    from llmdoctor.gencfg.options import GencfgOptions
    from llmdoctor.gencfg.show import show_report

    call = CALLS[row["call"]]
    folder = root / row["call"]
    write(folder, call)
    user = root / f"{row['call']}.json"
    user.write_text(json.dumps(call.get("user", {})))
    report = show_report(
        GencfgOptions(
            model=str(folder),
            config=str(user) if "user" in call else None,
            sets=tuple(f"{name}={json.dumps(value)}" for name, value in call.get("kwargs", {}).items()),
            transformers=row["version"],
            prompt_length=call.get("prompt", 4),
        )
    )
    assert report.verdict is not None
    predicted = report.result["error"] and report.result["error"]["type"]
    seen = row.get("error") and row["error"]["type"]
    stop = report.result["stop"]
    tokens = 1 if call.get("emit", EMIT) in stop["eos_token_id"] else stop["limit"]
    if predicted == seen and (seen or tokens == row["new_tokens"]):
        return ""
    if "not modelled" in report.verdict.text or (seen is None and "unless every sequence ends earlier" in report.verdict.text):
        return "named"
    what = f"{row['error']['type']}: {row['error']['message'][:90]}" if seen else f"{row['new_tokens']} tokens"
    return f"{predicted or f'{tokens} tokens'} predicted, {what} seen; {report.verdict.text[:120]}"


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(Path(sys.argv[2]))
    else:
        raise SystemExit(compare([Path(argument) for argument in sys.argv[2:]]))
