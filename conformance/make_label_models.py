"""Tiny models with tokenizers and chat templates of many families, for conformance/make_labels.py --models.

    python conformance/make_label_models.py FOLDER

Each directory holds config.json (one layer, random weights are enough), tokenizer.json, tokenizer_config.json. The tokenizers are trained on
the sentences below; the chat templates are new, with the structure of their family: byte-level BPE (Qwen, Llama 3, DeepSeek, GLM, GPT-2), BPE with
byte fallback behind "▁" (Llama 2, Zephyr, Phi, Gemma), Unigram (T5). Nothing here imports llmdoctor.
"""

# ruff: noqa: E501 a chat template is one text
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = """What is two plus two? It is four. Name a river in France. The Loire is a river in France. The Ebro is a river in Spain.
You are a helpful assistant. Be brief. Answer in one word. Question: Answer: system user assistant tool model human gpt.
The weather in Paris is sunny, 21 degrees. get_weather {"city": "Paris", "unit": "celsius"} name arguments parameters function
<think> The user wants a river. </think> I think of the Seine, the Rhône and the Garonne. Rome is the capital of Italy.
Write a function that adds two numbers: def add(a, b): return a + b   # 1 2 3 4 5 6 7 8 9 0 Ünïcode naïve café 東京 🙂 -- ... !?
Today Date: Cutting Knowledge Date: December 2023 30 Nov 2026 Environment: ipython Reasoning: none""".split("\n")
ROLES = "{%- for m in messages %}"
TOOLS = "{%- for c in m.tool_calls or [] %}{{- '<tool_call>' + (c.function | tojson) + '</tool_call>' }}{%- endfor %}"
CHATML_TURN = "{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}" + TOOLS + "{{- '<|im_end|>\\n' }}"
QWEN3 = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}{%- for t in tools %}{{- t | tojson + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{%- set content = m.content or '' %}{%- if m.role == 'assistant' %}{%- set thought = '' %}"
    "{%- if '</think>' in content %}{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}{{- content }}"
    + TOOLS
    + "{{- '<|im_end|>\\n' }}{%- elif m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
CHATML_GEN = (
    ROLES
    + "{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}{% generation %}{{- (m.content or '') }}"
    + TOOLS
    + "{{- '<|im_end|>\\n' }}{% endgeneration %}{%- else %}{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
DEEPSEEK = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{- m.content }}{%- elif m.role == 'user' %}{{- '<｜User｜>' + m.content }}"
    "{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' + ((m.content or '').split('</think>') | last) + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"
)
LLAMA31 = (
    "{{- bos_token }}{%- set start = 0 %}{%- set system = '' %}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set start = 1 %}{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: '"
    " + (date_string or '26 Jul 2024') + '\\n\\n' + system + '<|eot_id|>' }}{%- for m in messages[start:] %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}{%- if m.role == 'assistant' %}{% generation %}{{- (m.content or '') | trim }}"
    + TOOLS
    + "{{- '<|eot_id|>' }}{% endgeneration %}{%- else %}{{- m.content | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
LLAMA2 = (
    "{%- set system = '' %}{%- if messages[0].role == 'system' %}{%- set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
    "{%- set messages = messages[1:] %}{%- endif %}{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}{%- if m.role == 'user' %}"
    "{{- bos_token + '[INST] ' + (system if loop.first else '') + m.content | trim + ' [/INST]' }}{%- else %}{{- ' ' + m.content | trim + ' ' + eos_token }}"
    "{%- endif %}{%- endfor %}"
)
ZEPHYR = (
    "{%- for m in messages %}{{- '<|' + m.role + '|>\\n' + (m.content or '') + eos_token + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)
PHI3 = (
    "{%- for m in messages %}{{- '<|' + m.role + '|>\\n' + (m.content or '') + '<|end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"
)
GEMMA = (
    "{{- bos_token }}{%- set lead = '' %}{%- if messages[0].role == 'system' %}{%- set lead = messages[0].content + '\\n\\n' %}{%- set messages = messages[1:] %}"
    "{%- endif %}{%- for m in messages %}{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (lead if loop.first else '')"
    " + (m.content or '') | trim + '<end_of_turn>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{%- elif m.role == 'user' %}"
    "{{- '[INST]' + m.content + '[/INST]' }}{%- elif m.role == 'assistant' %}{{- (m.content or '') + eos_token }}{%- endif %}{%- endfor %}"
)
GLM = (
    "{{- '[gMASK]<sop>' }}{%- for m in messages %}{{- '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\\n' + (m.content or '') }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)
PLAIN = (
    "{%- for m in messages %}{{- m.role | capitalize + ': ' + (m.content or '') }}{%- if m.role == 'assistant' %}{{- eos_token }}{%- endif %}{{- '\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)
CHATML = (
    "{%- for m in messages %}" + CHATML_TURN + "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def family(
    kind: str, special: list[str], template: str | None, tokenizer_class: str = "PreTrainedTokenizerFast", **more: Any
) -> dict[str, Any]:
    return {"kind": kind, "special": special, "template": template, "tokenizer_class": tokenizer_class, **more}


LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
DEEP = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
SP = ["<unk>", "<s>", "</s>"]
FAMILIES = {
    "qwen3_think": family("bytes", IM, QWEN3, "Qwen2Tokenizer", model_type="qwen2", eos="<|im_end|>", pad="<|endoftext|>"),
    "chatml_train": family("bytes", IM, CHATML_GEN, "Qwen2Tokenizer", model_type="qwen2", eos="<|im_end|>", pad="<|endoftext|>"),
    "chatml_endoftext": family("bytes", IM, CHATML, "Qwen2Tokenizer", model_type="qwen2", eos="<|endoftext|>", pad="<|endoftext|>"),
    "llama31_gen": family("bytes", LLAMA3, LLAMA31, bos="<|begin_of_text|>", eos="<|eot_id|>", add_bos=True),
    "deepseek_r1": family("bytes", DEEP, DEEPSEEK, "LlamaTokenizerFast", bos=DEEP[0], eos=DEEP[1], pad=DEEP[2], add_bos=True),
    "mistral_v7": family(
        "bytes",
        [*SP, "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
        MISTRAL,
        bos="<s>",
        eos="</s>",
        pad="<pad>",
        add_bos=True,
    ),
    "glm4": family(
        "bytes",
        ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        GLM,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
    ),
    "gpt2_plain": family(
        "bytes", ["<|endoftext|>"], PLAIN, "GPT2Tokenizer", model_type="gpt2", bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>"
    ),
    "llama2_sp": family("sp", SP, LLAMA2, "LlamaTokenizer", bos="<s>", eos="</s>", unk="<unk>", add_bos=True),
    "zephyr_sp": family("sp", SP, ZEPHYR, "LlamaTokenizerFast", bos="<s>", eos="</s>", unk="<unk>", pad="</s>", add_bos=True),
    "phi3_sp": family(
        "sp",
        [*SP, "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
        PHI3,
        bos="<s>",
        eos="<|endoftext|>",
        unk="<unk>",
        pad="<|endoftext|>",
        rstrip=("<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "gemma_sp": family(
        "sp_plain",
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        GEMMA,
        "GemmaTokenizerFast",
        model_type="gemma",
        bos="<bos>",
        eos="<eos>",
        unk="<unk>",
        pad="<pad>",
        add_bos=True,
    ),
    "unigram_base": family("unigram", ["<pad>", "</s>", "<unk>"], None, eos="</s>", unk="<unk>", pad="<pad>", add_eos=True),
    "metaspace_chatml": family(
        "metaspace", [*SP, "<|im_start|>", "<|im_end|>"], CHATML, bos="<s>", eos="<|im_end|>", unk="<unk>", pad="<unk>", add_bos=True
    ),
}


def tokenizer_of(one: dict[str, Any]) -> Tokenizer:
    kind, size = one["kind"], 480
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.train_from_iterator(
            SENTENCES * 3, trainers.UnigramTrainer(vocab_size=300, special_tokens=one["special"], unk_token="<unk>", show_progress=False)
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if kind == "metaspace" else "always")
        tokenizer.train_from_iterator(
            SENTENCES * 3, trainers.BpeTrainer(vocab_size=700, special_tokens=[*one["special"], *alphabet], show_progress=False)
        )
        value = json.loads(tokenizer.to_str())
        value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] not in alphabet]
        tokenizer = Tokenizer.from_str(json.dumps(value))
        if kind != "metaspace":
            steps = [normalizers.Replace(" ", "▁")]
            tokenizer.normalizer = normalizers.Sequence(steps if kind == "sp_plain" else [normalizers.Prepend("▁"), *steps])
            tokenizer.pre_tokenizer = None
        strip = [decoders.Strip(content=" ", left=1)] if kind != "sp_plain" else []
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=token in one.get("rstrip", ())) for token in one["special"]]
    )
    single = ([one["bos"]] if one.get("add_bos") else []) + ["$A"] + ([one["eos"]] if one.get("add_eos") else [])
    if len(single) > 1:
        ids = [(token, tokenizer.token_to_id(token)) for token in single if token != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=[*single, *(f"{token}:1" if token == "$B" else token for token in [one["bos"], "$B"] if one.get("add_bos"))]
            if one.get("add_bos")
            else ["$A", one["eos"], "$B", one["eos"]],
            special_tokens=ids,
        )
    return tokenizer


def write(folder: Path, one: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(one)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(number): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": False,
            "special": token.special,
        }
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config: dict[str, Any] = {
        "tokenizer_class": one["tokenizer_class"],
        "model_max_length": 10**30,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
    }
    config |= {f"{name}_token": one[name] for name in ("bos", "eos", "unk", "pad") if name in one}
    if one["tokenizer_class"].startswith(("Llama", "Gemma")):
        config |= {"add_bos_token": True, "add_eos_token": False}
    if one["template"] is not None:
        config["chat_template"] = one["template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))
    if one["kind"] == "bytes" and one["tokenizer_class"] in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        model = json.loads(tokenizer.to_str())["model"]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
        (folder / "merges.txt").write_text("\n".join(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]) + "\n")
    kind = one.get("model_type", "llama")
    number = tokenizer.token_to_id
    sizes = (
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 4096}
        if kind == "gpt2"
        else {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 4096,
        }
    )
    ids = {f"{name}_token_id": number(one[name]) for name in ("bos", "eos", "pad") if name in one}
    names = {"gpt2": "GPT2LMHeadModel", "qwen2": "Qwen2ForCausalLM", "gemma": "GemmaForCausalLM"}
    value = {
        "model_type": kind,
        "architectures": [names.get(kind, "LlamaForCausalLM")],
        "vocab_size": tokenizer.get_vocab_size(),
        **sizes,
        **ids,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(value))


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, one in FAMILIES.items():
        write(Path(sys.argv[1]) / name, one)
    print(f"{sys.argv[1]}: {len(FAMILIES)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
