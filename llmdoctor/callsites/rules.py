"""The rules over Python sources, with the words of their pages. What PYC001 and PYC009 say of generate() was tried once with transformers 5.23.0."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule

EOS_NONE = Rule(
    "PYC001",
    "eos-set-to-none",
    Severity.WARNING,
    "eos_token_id of a model's generation config is set to None, or generate() gets eos_token_id=None.",
    "Nothing ends a sequence before the length limit then. The assignment also outlives the call: whatever generates with this model later, and what "
    "save_pretrained() writes, has no terminator. A config that is passed to a call, generate(generation_config=GenerationConfig(eos_token_id=None)), is not meant: there "
    "the model's own id is taken (in transformers 5 and from 4.43 on; 4.41 and 4.42 run on). "
    "No finding where the same function assigns another value as well, as one that saves the old value and puts it back does. A warning: benchmarks and tests "
    "do it on purpose, for a fixed length.",
    "policy.generation_config.eos_token_id = None",
    "config = GenerationConfig(max_new_tokens=256, min_new_tokens=256)   # a fixed length, and nothing outlives it",
    "Leave eos_token_id as it is. For a fixed length give min_new_tokens; to hide the id for one call, put it back afterwards.",
)
PAD_MASK = Rule(
    "PYC002",
    "mask-hides-eos",
    Severity.INFO,
    "An attention mask is made by comparing ids with a pad token that this file sets to the eos token.",
    "The comparison cannot tell padding from a real end of text: every eos inside a sequence is masked out as well, the end of each turn in a "
    "conversation and the last token of a training example. The model never attends to its own terminator, and logprobs shift. A note, as only ids "
    "that hold an eos are harmed: the three places found in public code mask texts without one, or mend the mask later.",
    "tokenizer.pad_token = tokenizer.eos_token\nattention_mask = input_ids != tokenizer.pad_token_id",
    'batch = tokenizer(texts, padding=True, return_tensors="pt")\nattention_mask = batch["attention_mask"]',
    "Take the mask that the tokenizer returns, build it from lengths, or give the tokenizer a pad token of its own.",
)
ZERO_FILL = Rule(
    "PYC003",
    "padding-filled-with-token-0",
    Severity.WARNING,
    "Masked positions of token ids are overwritten with 0.",
    "0 is a token like any other (in Qwen's and GPT-2's vocabularies it is an exclamation mark). Where the mask came from a pad token that is "
    "the eos, real ends of text become that token; where the mask is not passed on, the model reads it; and what looks for padding later finds none.",
    "input_ids = torch.masked_fill(query_responses, ~attention_mask, 0)",
    "outputs = model(input_ids=query_responses, attention_mask=attention_mask, position_ids=position_ids)",
    "Leave the ids as they are and pass attention_mask; where an id must be in the vocabulary, fill with pad_token_id.",
)
PROCESSED = Rule(
    "PYC004",
    "logprobs-of-processed-scores",
    Severity.WARNING,
    "log_softmax is taken over the .scores that generate() returned.",
    "`scores` are what is left after temperature, top_k, top_p and the penalties: their logprobs are those of the distorted distribution, with -inf for "
    "everything cut off. As old logprobs in PPO, as confidences or in a perplexity they are wrong: at temperature 0.7 and top_p 0.9 by about 37 nats "
    "over 256 tokens. No finding where the call says do_sample=False.",
    "logits = torch.stack(outputs.scores, 1)\nlogprobs = F.log_softmax(logits, dim=-1)",
    "outputs = model.generate(**batch, output_logits=True, return_dict_in_generate=True)\nlogprobs = F.log_softmax(torch.stack(outputs.logits, 1), dim=-1)",
    "Ask for output_logits=True (transformers 4.38 or newer) and use outputs.logits.",
)
PAD_LABELS = Rule(
    "PYC005",
    "eos-never-learned",
    Severity.WARNING,
    "The pad token is the eos token, and the collator sets labels that equal the pad token to -100.",
    "transformers' DataCollatorForLanguageModeling(mlm=False) takes every label that equals pad_token_id out of the loss. If that is the eos, the "
    "model is never trained to end, and the fine-tuned model runs on to its length limit. trl's DataCollatorForCompletionOnlyLM is built on it.",
    "tokenizer.pad_token = tokenizer.eos_token\ncollator = DataCollatorForLanguageModeling(tokenizer, mlm=False)",
    'tokenizer.add_special_tokens({"pad_token": "<|pad|>"})\nmodel.resize_token_embeddings(len(tokenizer))',
    "Give the tokenizer a pad token of its own, or mask labels by attention_mask instead of by the id.",
)
RIGHT_PADDING = Rule(
    "PYC006",
    "right-padding-before-generate",
    Severity.ERROR,
    "A tokenizer pads on the right, and the same function gives its padded batch to generate().",
    "A decoder-only model continues after the last position. With padding on the right that is a pad token for every prompt but the longest: the answers "
    "of the shorter ones begin behind a gap and are worse, which no error tells.",
    'tokenizer.padding_side = "right"\nbatch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    'tokenizer.padding_side = "left"\nbatch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    'Set padding_side = "left" before the prompts are tokenized.',
)
LAST_PASS = Rule(
    "PYC007",
    "last-pass-wins",
    Severity.ERROR,
    "A loop draws a fresh random number for each candidate and lets the last one that passes win.",
    "That does not draw from the probabilities. P(i) is p_i times the product of (1 - p_j) over all later j: for 0.5, 0.4, 0.1 it draws .27, .36 and .37 "
    "(the last one also gets what nobody took), and another order of the same candidates gives another law.",
    "for token in probs:\n    if random.random() <= probs[token]:\n        chosen = token",
    "chosen = random.choices(list(probs), weights=list(probs.values()))[0]",
    "Draw once: random.choices with weights, torch.multinomial, or numpy's Generator.choice with p.",
)
PROBABILITIES = Rule(
    "PYC008",
    "temperature-on-probabilities",
    Severity.ERROR,
    "Probabilities, the result of a softmax, are divided by a temperature.",
    "Temperature divides logits. Divided probabilities, made to sum to one again (as torch.multinomial does), are the same probabilities: the setting "
    "does nothing. A second softmax over them is almost uniform.",
    "probs = torch.softmax(logits, dim=-1) / temperature",
    "probs = torch.softmax(logits / temperature, dim=-1)",
    "Divide the logits before the softmax.",
)
REJECTED = Rule(
    "PYC009",
    "rejected-sampling-value",
    Severity.ERROR,
    "do_sample=True stands beside a temperature or top_k that transformers refuses.",
    "With sampling on, the temperature must be a float above 0 (an int 2 or 0 and a 0.0 raise; an int 1 is never looked at), and top_k a positive int (50.0 and -1 "
    "raise; 0 turns it off): generate() raises a ValueError, in the first step and after the model has been loaded. Some releases of 4.5x take a temperature of 0 as "
    "do_sample=False instead. What other engines take (-1 for off, 0 for greedy) does not carry over.",
    "model.generate(**batch, do_sample=True, temperature=2, top_k=-1)",
    "model.generate(**batch, do_sample=True, temperature=2.0, top_k=0)",
    "Write the temperature as a float above 0, top_k as an int (0 is off); for greedy decoding say do_sample=False.",
)
IGNORED = Rule(
    "PYC010",
    "sampling-settings-ignored",
    Severity.WARNING,
    "do_sample=False stands beside a temperature, top_p, top_k, min_p or typical_p that does something only when sampling.",
    "Decoding is greedy whatever they say. A reader, and the table of results, believe a temperature that was never used; as a generation_config.json, "
    "transformers refuses to save it. Values that are off or greedy anyway (temperature 0 or 1, top_p 1, top_k 0, 1 or 50, None) are not meant.",
    "model.generate(**batch, do_sample=False, temperature=0.7)",
    "model.generate(**batch, do_sample=False)",
    "Leave the sampling settings out, or set do_sample=True if sampling was meant.",
)
NO_MASK = Rule(
    "PYC011",
    "batch-without-attention-mask",
    Severity.WARNING,
    "A padded batch's input_ids go into generate(), its attention_mask does not.",
    "transformers then guesses: positions that equal pad_token_id are masked, but only if that id is not an eos. For a tokenizer whose pad is the eos nothing "
    "is masked, and the model reads the padding as text: the shorter prompts of a batch get other answers than they get alone.",
    'batch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(batch.input_ids)',
    'batch = tokenizer(prompts, padding=True, return_tensors="pt")\nmodel.generate(**batch)',
    "Pass attention_mask=batch.attention_mask, or the whole batch: model.generate(**batch).",
)
UNPARSED = Rule(
    "PYC012",
    "not-parsed",
    Severity.INFO,
    "A Python file or a notebook in which a rule may apply could not be parsed, so none looked at it.",
    "It is written for Python 2, for a newer Python than the one llmdoctor runs on, is a template, or broken. What is wrong in it is not known.",
    "print model.generate(input_ids, do_sample=True, temperature=2)",
    "print(model.generate(input_ids, do_sample=True, temperature=2.0))",
    "Correct it, run llmdoctor with the Python that the file is for, or exclude the file.",
)
RULES = (
    EOS_NONE,
    PAD_MASK,
    ZERO_FILL,
    PROCESSED,
    PAD_LABELS,
    RIGHT_PADDING,
    LAST_PASS,
    PROBABILITIES,
    REJECTED,
    IGNORED,
    NO_MASK,
    UNPARSED,
)
