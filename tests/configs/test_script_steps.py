"""What a script does outside the calls that are read: steps with one meaning are modelled, the others refused by name; nothing is guessed."""

from __future__ import annotations

import pytest

from llmdoctor.configs.reading import read
from llmdoctor.configs.types import Configuration, Ignored, Refused

SCRIPT = """
import re, torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
model = AutoModelForCausalLM.from_pretrained("m", dtype=torch.bfloat16)
{step}
args = TrainingArguments(output_dir="o", per_device_train_batch_size=2)
{later}
trainer = Trainer(model=model, args=args)
trainer.train()
{after}
"""
LORA = "LoraConfig(r=4, target_modules=['q_proj'])"


def script(step: str = "", later: str = "", after: str = "") -> Configuration:
    return read("train.py", text=SCRIPT.format(step=step, later=later, after=after))


def refused(found: Configuration) -> set[str]:
    return {*found.of("memory", Refused), *found.rejected, *(one.key for one in found.unknown)}


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ("for p in model.parameters(): p.requires_grad = False", "script.requires_grad"),
        ("model.lm_head.requires_grad_(False)", "script.requires_grad"),
        ("model = torch.compile(model)", "script.compile"),
        ("model.float()", "script.float"),
        ("model.to(torch.float16)", "script.to"),
        ("for n, p in model.named_parameters(): p.data = p.data.to(dtype=torch.float32)", "script.to"),
        ("model.resize_token_embeddings(99)", "script.resize_token_embeddings"),
        ("config = IA3Config(task_type='CAUSAL_LM')", "script.IA3Config"),
        ("t = SFTTrainer(model, max_seq_length=2048)", "script.max_seq_length"),
        ("t = SFTTrainer(model, optimizers=(o, None))", "script.optimizers"),
        ("class T(Trainer):\n    def compute_loss(self, m, x): pass", "script.compute_loss"),
        ("from unsloth import FastLanguageModel", "script.unsloth"),
        ("if x: model.gradient_checkpointing_enable()", "script.gradient_checkpointing_enable"),
        ("model = prepare_model_for_kbit_training(model)", "script.prepare_model_for_kbit_training"),
        (f"if x: model = get_peft_model(model, {LORA})", "model_init.peft_config"),
        (f"c = {LORA} if x else None\nmodel = get_peft_model(model, c)", "model_init.peft_config"),
        (f"c = make({LORA})", "model_init.peft_config"),
        (
            f"t = ['q']\nt.append('v')\nmodel = get_peft_model(model, {LORA.replace('[', 't or [')})",
            "model_init.peft_config.target_modules",
        ),
        (f"model = get_peft_model(model, {LORA})\nmodel.enable_input_require_grads()", "script.enable_input_require_grads"),
        (f"model = get_peft_model(model, {LORA})\nmodel.requires_grad_(False)", "script.requires_grad"),
        (f"c = {LORA}\nc.r = 64\nmodel = get_peft_model(model, c)", "model_init.peft_config"),
        (f"c = {LORA}\nsetattr(c, 'r', 64)\nmodel = get_peft_model(model, c)", "model_init.peft_config"),
        ("for layer in model.model.layers:\n    for p in layer.parameters(): p.requires_grad_(False)", "script.requires_grad"),
        ("def freeze(m):\n    m.requires_grad_(False)\nfreeze(model.model.embed_tokens)", "script.requires_grad"),
        ("model.lm_head = make(model.lm_head)", "script.lm_head"),
        ("model.model.layers = model.model.layers[:4]", "script.layers"),
        ("del model.model.layers[4:]", "script.model"),
        ("model.model.layers.pop()", "script.pop"),
        ("model.set_input_embeddings(e)", "script.set_input_embeddings"),
        ("torch.set_default_dtype(torch.bfloat16)", "script.set_default_dtype"),
        ("class Net(torch.nn.Module): pass\nmodel = Net()", "script.Net"),
        ("from mine import freeze\nfreeze(model)", "script.freeze"),
        ("import mine.tools\nmine.tools.freeze(m=model.model)", "script.freeze"),
        ("t = Trainer(model, a, None, ds, None, None, None, None, None, None, (o, None))", "script.optimizers"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(step: str, key: str) -> None:
    assert key in refused(script(step))


@pytest.mark.parametrize(
    "step",
    [
        "# torch.compile, requires_grad, max_seq_length",
        "x = re.compile('a')",
        "y = float('1')",
        "loss = outputs['loss'].float()",
        "other.lr = 1",
        "model.to('cuda')",
        "model.config.use_cache = False",
        "model.is_parallelizable = True",
        "from mine import load\nds = load('data')",
        "tokenizer.pad_token = tokenizer.eos_token",
        "model.enable_input_require_grads()",
    ],
)
def test_what_changes_no_memory_is_not_refused(step: str) -> None:
    assert refused(script(step)) == set()


def test_attributes_that_are_set_later_have_the_meaning_of_their_argument() -> None:
    assert refused(script(later="args.gradient_checkpointing = True")) == {"script.gradient_checkpointing"}
    assert refused(script(later="args.report_to = 'none'")) == set()


@pytest.mark.parametrize(
    "step", ["model.gradient_checkpointing_enable()", "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=k)"]
)
def test_checkpointing_by_a_call_is_that_of_the_arguments(step: str) -> None:
    found = script(step)
    assert (found.normal.get("checkpointing"), found.normal.key("checkpointing")) == (True, "script.gradient_checkpointing_enable")


@pytest.mark.parametrize(
    ("call", "expected"), [("", (True, True)), (", use_gradient_checkpointing=False", (True, False)), (None, (False, False))]
)
def test_quantized_weights_are_prepared_by_the_script_only(call: str | None, expected: tuple[bool, bool]) -> None:
    prepare = "" if call is None else f"model = prepare_model_for_kbit_training(model{call})"
    text = SCRIPT.format(step=f"{prepare}\nmodel = get_peft_model(model, {LORA})", later="", after="")
    text = text.replace("dtype=torch.bfloat16", "quantization_config=BitsAndBytesConfig(load_in_4bit=True)")
    found = read("train.py", text=text)
    assert refused(found) == set()
    assert (found.normal.get("prepared"), found.normal.get("checkpointing", False)) == expected
    assert found.normal.get("quantization") == {"load_in_4bit": True}


def test_a_frozen_base_below_adapters_changes_nothing() -> None:
    found = script(f"for p in model.parameters(): p.requires_grad = False\nmodel = get_peft_model(model, {LORA})")
    assert refused(found) == set()
    assert "script.requires_grad" in found.of("memory", Ignored)
    assert found.normal.get("lora_rank") == 4


def test_a_configuration_that_nothing_uses_is_ignored_with_the_reason() -> None:
    found = script(f"lora = {LORA}")
    assert (refused(found), found.normal.get("adapter")) == (set(), None)
    assert found.of("memory", Ignored)["script.LoraConfig"] == "nothing uses it"
    assert script("bits = BitsAndBytesConfig(load_in_4bit=True)").normal.get("quantization") is None


@pytest.mark.parametrize(
    "step",
    [
        f"USE = False\nif USE: model = get_peft_model(model, {LORA})",
        f"USE = 'none'\nif USE == 'lora':\n    model = get_peft_model(model, {LORA})\nelse:\n    pass",
    ],
)
def test_branches_that_never_run_are_not_read(step: str) -> None:
    found = script(step)
    assert (refused(found), found.normal.get("adapter")) == (set(), None)
    assert script(step.replace("False", "True").replace("'none'", "'lora'")).normal.get("lora_rank") == 4


def test_what_follows_the_training_is_not_read() -> None:
    after = "base = AutoModelForCausalLM.from_pretrained('m')\nmodel.float()\nmodel.merge_and_unload()"
    assert refused(script(after=after)) == set()


def test_values_are_followed_through_names_dictionaries_and_functions() -> None:
    text = (
        f"def lora():\n    return {LORA}\nN = 2 * 2\nsettings = dict(output_dir='o', per_device_train_batch_size=N)\n"
        "t = SFTTrainer('m', args=SFTConfig(**settings), peft_config=lora())\n"
    )
    found = read("train.py", text=text)
    assert refused(found) == set()
    assert (found.normal.get("batch"), found.normal.get("lora_rank")) == (4, 4)
    assert refused(read("train.py", text=text.replace("t =", "settings['bf16'] = x\nt ="))) == {"**"}


def test_a_refusal_has_the_line_and_the_condition() -> None:
    reason = script("if x: model.float()").of("memory", Refused)["script.float"]
    assert reason == "model.float() on line 6, under a condition (if x), can change the memory and is not modelled"


@pytest.mark.parametrize(
    ("later", "key"),
    [
        ("setattr(args, 'bf16', True)", "script.bf16"),
        ("setattr(args, name, True)", "script.arguments"),
        ("args.per_device_train_batch_size *= 4", "script.per_device_train_batch_size"),
        ("args.bf16, args.fp16 = True, False", "script.bf16"),
        ("args.set_training(batch_size=16)", "script.set_training"),
        ("args = replace(args, per_device_train_batch_size=16)", "script.per_device_train_batch_size"),
        ("args.__dict__['bf16'] = True", "script.bf16"),
        ("vars(args).update(bf16=True)", "script.update"),
        ("trainer.args.bf16 = True", "script.bf16"),
    ],
)
def test_arguments_that_are_changed_after_they_were_made_are_refused(later: str, key: str) -> None:
    assert key in refused(script(later=later))


@pytest.mark.parametrize(
    "later", ["setattr(args, 'logging_steps', 5)", "args.set_logging(steps=5)", "args = replace(args, output_dir='p')"]
)
def test_changed_arguments_without_influence_are_not_refused(later: str) -> None:
    assert refused(script(later=later)) == set()


def test_a_model_that_is_made_from_a_configuration_is_float32() -> None:
    text = SCRIPT.replace('AutoModelForCausalLM.from_pretrained("m", dtype=torch.bfloat16)', "Qwen2ForCausalLM(config)")
    assert read("train.py", text=text.format(step="", later="", after="")).normal.get("load_dtype") == "float32"


def test_any_model_class_of_transformers_is_read() -> None:
    text = SCRIPT.replace("AutoModelForCausalLM", "T5ForConditionalGeneration").replace("bfloat16", "float16")
    assert read("train.py", text=text.format(step="", later="", after="")).normal.get("load_dtype") == "float16"


def test_adapters_that_keep_the_dtype_of_the_model() -> None:
    found = script(f"model = get_peft_model(model, {LORA}, autocast_adapter_dtype=False)")
    assert refused(found) == set()
    assert found.normal.get("lora_float32") is False


def test_names_of_older_releases_of_trl_in_a_script() -> None:
    text = "args = SFTConfig('o', warmup_ratio=0.1, bf16=True, gradient_checkpointing=True, max_seq_length=64)\n"
    found = read("train.py", text=text)
    assert {one.effect for one in found.unknown} == {"older", "renamed"}
    assert found.of("memory", Refused) == {}
    assert found.normal.get("sequence_length") == 64
    assert any("max_seq_length" in limit for limit in found.normal.limits)
