"""The rules over Python sources. What PYC001 and PYC009 state about generate() was run with transformers 5.23.0."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

EOS_NONE = Rule(
    code="PYC001",
    name="eos-set-to-none",
    severity=Severity.WARNING,
    summary="The eos_token_id of a model's generation config is set to None, [] or a negative id, or generate() is called with one of these.",
    reason="Without an eos_token_id nothing ends a sequence before the length limit. The assignment also outlives the call: every later generate() of this model and "
    "every checkpoint that save_pretrained() writes has no terminator. The rule does not apply to a config that is passed to a call, "
    "generate(generation_config=GenerationConfig(eos_token_id=None)), because the model's own id replaces None there (transformers 4.43 and later; 4.41 and 4.42 "
    "do not stop). It does not apply either if the same function, or another method of its class, assigns another value, as code does that saves the old value and restores it. The severity is "
    "warning because benchmarks and tests clear the id on purpose to get a fixed length.",
    bad="policy.generation_config.eos_token_id = None",
    good="config = GenerationConfig(max_new_tokens=256, min_new_tokens=256)   # a fixed length that no later call inherits",
    fix="Leave eos_token_id as it is. For a fixed length set min_new_tokens. To clear the id for one call, restore it afterwards.",
)
PAD_MASK = Rule(
    code="PYC002",
    name="mask-hides-eos",
    severity=Severity.INFO,
    summary="An attention mask is computed by comparing ids with a pad token that this file sets to the eos token.",
    reason="The comparison cannot distinguish padding from a real end of text. It also masks every eos inside a sequence: the end of each turn of a conversation and the "
    "last token of a training example. The model never attends to its own terminator, and the log-probabilities change. The severity is info because only ids that "
    "contain an eos are affected.",
    bad="tokenizer.pad_token = tokenizer.eos_token\nattention_mask = input_ids != tokenizer.pad_token_id",
    good='batch = tokenizer(texts, padding=True, return_tensors="pt")\nattention_mask = batch["attention_mask"]',
    fix="Use the mask that the tokenizer returns, compute the mask from lengths, or give the tokenizer a separate pad token.",
)
ZERO_FILL = Rule(
    code="PYC003",
    name="padding-filled-with-token-0",
    severity=Severity.WARNING,
    summary="Masked positions of token ids are overwritten with 0.",
    reason="Token 0 is an ordinary token: in the vocabularies of Qwen and GPT-2 it is an exclamation mark. If the mask comes from a pad token that is the eos token, real "
    "ends of text become exclamation marks. If the mask is not passed on, the model reads them. Code that searches for padding later finds none.",
    bad="input_ids = torch.masked_fill(query_responses, ~attention_mask, 0)",
    good="outputs = model(input_ids=query_responses, attention_mask=attention_mask, position_ids=position_ids)",
    fix="Leave the ids unchanged and pass attention_mask. If an id must be in the vocabulary, fill with pad_token_id.",
)
PROCESSED = Rule(
    code="PYC004",
    name="logprobs-of-processed-scores",
    severity=Severity.WARNING,
    summary="log_softmax is applied to the .scores that generate() returned.",
    reason="The scores are the logits after temperature, top_k, top_p and the penalties. Their log-probabilities belong to the modified distribution, with -inf for every "
    "token that was cut off. As old log-probabilities in PPO, as confidences or in a perplexity they are wrong: at temperature 0.7 and top_p 0.9 by about 37 nats "
    "over 256 tokens. The rule does not apply if the call sets do_sample=False.",
    bad="logits = torch.stack(outputs.scores, 1)\nlogprobs = F.log_softmax(logits, dim=-1)",
    good="outputs = model.generate(**batch, output_logits=True, return_dict_in_generate=True)\nlogprobs = F.log_softmax(torch.stack(outputs.logits, 1), dim=-1)",
    fix="Set output_logits=True (transformers 4.38 or later) and use outputs.logits.",
)
PAD_LABELS = Rule(
    code="PYC005",
    name="eos-never-learned",
    severity=Severity.WARNING,
    summary="The pad token is the eos token, and the labels that equal the pad token are set to -100.",
    reason="A label of -100 is excluded from the loss. If the pad token is the eos token, the real end of each example is excluded with the padding. The model is not trained "
    "to end, and the fine-tuned model generates up to its length limit. DataCollatorForLanguageModeling(mlm=False) of transformers sets these labels, as does "
    "DataCollatorForCompletionOnlyLM of trl, which is built on it, and as does code that compares labels with pad_token_id. If the line that sets the pad token runs "
    "only for a tokenizer without one (`if tokenizer.pad_token is None`), the finding is a note.",
    bad="tokenizer.pad_token = tokenizer.eos_token\ncollator = DataCollatorForLanguageModeling(tokenizer, mlm=False)",
    good='tokenizer.add_special_tokens({"pad_token": "<|pad|>"})\nmodel.resize_token_embeddings(len(tokenizer))',
    fix="Give the tokenizer a separate pad token, or mask the labels with attention_mask: labels[attention_mask == 0] = -100.",
)
RIGHT_PADDING = Rule(
    code="PYC006",
    name="right-padding-before-generate",
    severity=Severity.ERROR,
    summary="A tokenizer pads on the right, and its padded batch is passed to generate().",
    reason="A decoder-only model continues after the last position. With padding on the right, that position is a pad token for every prompt except the longest one. The "
    "answers to the shorter prompts begin after a gap and are worse, and no error reports it.",
    bad='tokenizer.padding_side = "right"\nbatch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    good='tokenizer.padding_side = "left"\nbatch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    fix='Set padding_side = "left" before the prompts are tokenized.',
)
LAST_PASS = Rule(
    code="PYC007",
    name="last-pass-wins",
    severity=Severity.ERROR,
    summary="A loop draws a new random number for each candidate and keeps the last candidate that passes.",
    reason="This does not draw from the given probabilities. P(i) is p_i times the product of (1 - p_j) over all later j. For 0.5, 0.4 and 0.1 it draws .27, .36 and .37, "
    "because the last candidate also receives what no candidate accepted, and another order of the candidates gives another distribution.",
    bad="for token in probs:\n    if random.random() <= probs[token]:\n        chosen = token",
    good="chosen = random.choices(list(probs), weights=list(probs.values()))[0]",
    fix="Draw once: random.choices with weights, torch.multinomial, or numpy's Generator.choice with p.",
)
PROBABILITIES = Rule(
    code="PYC008",
    name="temperature-on-probabilities",
    severity=Severity.ERROR,
    summary="Probabilities, the result of a softmax, are divided by a temperature.",
    reason="Temperature divides logits. Divided probabilities are the same probabilities once they are normalised again, as torch.multinomial does, so that the setting has no "
    "effect. A second softmax over them is almost uniform.",
    bad="probs = torch.softmax(logits, dim=-1) / temperature",
    good="probs = torch.softmax(logits / temperature, dim=-1)",
    fix="Divide the logits before the softmax.",
)
REJECTED = Rule(
    code="PYC009",
    name="rejected-sampling-value",
    severity=Severity.ERROR,
    summary="do_sample=True is set with a temperature or top_k that transformers rejects.",
    reason="With sampling, the temperature must be a float above 0 (the ints 2 and 0 and the float 0.0 raise; the int 1 is never examined), and top_k a positive int (50.0 and "
    "-1 raise; 0 turns it off). generate() raises a ValueError in the first step, after the model has been loaded. Some releases of 4.5x treat a temperature of 0 as "
    "do_sample=False instead. The conventions of other engines (-1 for off, 0 for greedy) do not apply.",
    bad="model.generate(**batch, do_sample=True, temperature=2, top_k=-1)",
    good="model.generate(**batch, do_sample=True, temperature=2.0, top_k=0)",
    fix="Write the temperature as a float above 0 and top_k as an int (0 is off). For greedy decoding set do_sample=False.",
)
IGNORED = Rule(
    code="PYC010",
    name="sampling-settings-ignored",
    severity=Severity.WARNING,
    summary="do_sample=False is set with a temperature, top_p, top_k, min_p or typical_p, which only sampling uses.",
    reason="Decoding is greedy whatever these settings are. A reader, or the table of results, reports a temperature that was never used, and transformers refuses to save such "
    "a generation_config.json. The rule does not apply to values that are neutral or greedy (temperature 0 or 1, top_p 1, top_k 0, 1 or 50, None).",
    bad="model.generate(**batch, do_sample=False, temperature=0.7)",
    good="model.generate(**batch, do_sample=False)",
    fix="Remove the sampling settings, or set do_sample=True if sampling was intended.",
)
NO_MASK = Rule(
    code="PYC011",
    name="batch-without-attention-mask",
    severity=Severity.WARNING,
    summary="The input_ids of a padded batch are passed to generate() without its attention_mask.",
    reason="transformers then guesses the mask: positions that equal pad_token_id are masked, but only if that id is not an eos. If the pad token is the eos token, nothing "
    "is masked and the model reads the padding as text. The shorter prompts of a batch get other answers than they get alone.",
    bad='batch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(batch.input_ids)',
    good='batch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    fix="Pass attention_mask=batch.attention_mask, or the whole batch: model.generate(**batch).",
)
UNPARSED = Rule(
    code="PYC012",
    name="not-parsed",
    severity=Severity.INFO,
    summary="A Python file or a notebook in which a rule may apply could not be parsed, so no rule was applied.",
    reason="The file is written for Python 2 or for a later Python than the one that runs llmdoctor, is a template, or is broken. Its faults are not known.",
    bad="print model.generate(input_ids, do_sample=True, temperature=2)",
    good="print(model.generate(input_ids, do_sample=True, temperature=2.0))",
    fix="Correct the file, run llmdoctor with the Python that the file is for, or exclude the file.",
)
EOS_NARROWED = Rule(
    code="PYC013",
    name="eos-narrowed-at-the-call",
    severity=Severity.INFO,
    summary="generate() is called with eos_token_id=tokenizer.eos_token_id, which is one id, or the model's generation config is set to it.",
    reason="The one id replaces the list in the model's generation_config.json. Llama 3, Gemma, Qwen and other chat models list several terminators there, and the one of the "
    "tokenizer is often not the one that ends a turn: the answers then continue past the end of the turn. For a model with one terminator nothing changes, "
    "so the finding is a note. The rule also reads dictionaries that a call unpacks, a GenerationConfig that it is given, pipelines, and generation_kwargs of trl's "
    "configs. It does not apply to a file that imports an encoder-decoder model, nor to a function that gives the tokenizer another eos_token.",
    bad="model.generate(**batch, eos_token_id=tokenizer.eos_token_id)",
    good="model.generate(**batch)",
    fix="Leave eos_token_id out: generate() then uses every terminator of the model. `llmdoctor gencfg show MODEL` lists them.",
)
SIXTEEN_TOKENS = Rule(
    code="PYC014",
    name="vllm-sixteen-tokens",
    severity=Severity.WARNING,
    summary="vLLM's SamplingParams is created without max_tokens, or LLM.generate() is called without sampling parameters.",
    reason='max_tokens of SamplingParams is 16 by default (vllm/sampling_params.py). Every answer ends after 16 tokens, with finish_reason "length" and without a warning. The '
    "server is different: for chat requests it uses the remaining context. The rule does not apply to an object whose max_tokens is set elsewhere in "
    "the file, nor to one that is passed as vllm_sampling_params to a trainer, which sets max_tokens itself.",
    bad="SamplingParams(temperature=0.8, top_p=0.95)",
    good="SamplingParams(temperature=0.8, top_p=0.95, max_tokens=1024)",
    fix="Set max_tokens to the length that an answer needs.",
)
INHERITED = Rule(
    code="PYC015",
    name="inherited-sampling-beside-raw-logprobs",
    severity=Severity.INFO,
    summary="generate() samples without an explicit temperature, top_k or top_p, and the same function computes log-probabilities from raw logits.",
    reason="Settings that a call does not name come from the model's generation_config.json: Qwen2.5-Instruct, for example, sets temperature 0.7, top_p 0.8 and top_k 20, and "
    "releases of transformers before 5 add top_k 50. The tokens are then drawn from another distribution than the one whose log-probabilities are computed, and the "
    "importance ratios of PPO and GRPO are biased. For a model whose files set none of the three, nothing differs, so the finding is a note. The rule asks for a forward pass over "
    "what generate() returned; settings in a `**` argument that the file does not show silence it.",
    bad="out = model.generate(**batch, do_sample=True)\nlogprobs = F.log_softmax(model(out).logits, dim=-1)",
    good="out = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)\nlogprobs = F.log_softmax(model(out).logits, dim=-1)",
    fix="Name temperature, top_k and top_p at the call, and divide the logits by the same temperature before log_softmax.",
)
EOS_TAKEN = Rule(
    code="PYC016",
    name="trainer-takes-eos-away",
    severity=Severity.WARNING,
    summary="trl's PPOTrainer, PPOv2Trainer or (up to 0.21) RLOOTrainer is created without a stop_token.",
    reason="These trainers set policy.generation_config.eos_token_id to None as they are created, in every release from 0.9.2 to 1.12. Nothing ends a response then: each one "
    "is decoded to response_length, the reward model scores the text behind the end, and a checkpoint that is saved from the policy has no eos_token_id, so that it runs on in "
    'plain inference too. stop_token="eos" restores the one id of the tokenizer in PPOTrainer from trl 0.14. In earlier releases, in PPOv2Trainer and in RLOOTrainer it only cuts the '
    "responses after they were decoded: with it the finding is a note, as it is if the command line may set it. The rule does not apply to the PPOTrainer of trl up to 0.11, whose "
    "generate() is called by the script, to RLOOTrainer from 0.22, nor to a file that gives the generation config an eos_token_id.",
    bad="PPOTrainer(args=PPOConfig(response_length=512), model=policy, reward_model=reward_model, value_model=value_model, ...)",
    good='PPOTrainer(args=PPOConfig(response_length=512, stop_token="eos"), model=policy, reward_model=reward_model, value_model=value_model, ...)',
    fix='Set stop_token="eos" (--stop_token eos) and use trl 0.14 or later (for RLOOTrainer 0.22 or later). If the model has several terminators, also set '
    "policy.generation_config.eos_token_id to their list after the trainer is created. `llmdoctor gencfg show MODEL --preset trl-ppo` shows the call.",
)
RULES = declared(globals())
