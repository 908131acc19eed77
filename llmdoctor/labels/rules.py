"""The LAB rules: what a model is taught that it should not be, and what it is not taught that it should be."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule

END_IGNORED = Rule(
    "LAB001",
    "end-not-trained",
    Severity.ERROR,
    "The token that ends an answer is not a training target.",
    "The model never learns to produce the end token, so decoding runs to its limit. The usual causes: a collator that ignores pad_token_id while "
    "pad_token_id equals the end token, a {% generation %} block that leaves the end token outside, a trainer that trains the content alone.",
    "tokenizer.pad_token = tokenizer.eos_token   # with DataCollatorForLanguageModeling",
    'tokenizer.pad_token = "<|endoftext|>"   # another token than the one that ends an answer',
    "Give the tokenizer a pad token of its own, or let the trainer's mask include the end token.",
)
NO_TARGET = Rule(
    "LAB002",
    "no-target",
    Severity.WARNING,
    "A sequence has no training target: every label is -100.",
    "It costs time and memory and teaches nothing; a batch of such sequences has a loss of NaN or 0. The usual causes: a prompt longer than max_length, a "
    "response marker that does not occur in the text, a template without {% generation %}.",
    "max_length: 1024 with prompts of 1,500 tokens",
    "max_length: 4096, or the long rows left out",
    "Raise max_length, or correct the marker.",
)
END_CUT = Rule(
    "LAB003",
    "end-cut-off",
    Severity.WARNING,
    "Truncation removes the end of an answer.",
    "The model is taught that an answer goes on at that place. A few such rows do no harm; a large share teaches it not to stop.",
    "max_length: 1024, answers of 1,500 tokens",
    "max_length: 4096, or the long rows left out",
    "Raise max_length, or leave the rows out that are longer.",
)
NO_END = Rule(
    "LAB004",
    "no-end-token",
    Severity.WARNING,
    "A trained answer is followed by no end token at all.",
    "Text that is trained without an end token teaches the model to go on. transformers' collators add none; TRL adds one to plain text but not to "
    "conversations, where the chat template must write it.",
    '{"text": "The answer."} with DataCollatorForLanguageModeling',
    '{"text": "The answer.<|endoftext|>"}',
    "Add the eos_token to the text, or correct the chat template.",
)
PROMPT_TRAINED = Rule(
    "LAB005",
    "prompt-trained",
    Severity.INFO,
    "The tokens of user, system or tool messages are training targets.",
    "The loss then also teaches the model to write the user's part. That can be meant (continued pretraining, short answers); for an assistant it mostly is not.",
    'SFTConfig()   # rows with "messages": every token is a target',
    "SFTConfig(assistant_only_loss=True)",
    "Train the assistant's tokens only.",
)
DOUBLE_BOS = Rule(
    "LAB006",
    "double-bos",
    Severity.WARNING,
    "A sequence begins with two bos tokens.",
    "The text already begins with the bos token and the tokenizer adds another one. Serving sends one, so the model sees another beginning than in training.",
    '{"text": "<s>[INST] Hi [/INST]"} on a tokenizer that adds <s>',
    '{"text": "[INST] Hi [/INST]"}',
    "Remove the bos from the text, or tokenize with add_special_tokens=False.",
)
BEYOND = Rule(
    "LAB007",
    "id-beyond-vocabulary",
    Severity.ERROR,
    "A sequence holds an id that the model's embedding does not have.",
    "The forward pass raises IndexError on a CPU and fails with a device-side assert on CUDA.",
    "vocab_size 32000 and an added token with id 32000",
    "model.resize_token_embeddings(len(tokenizer))",
    "model.resize_token_embeddings(len(tokenizer))",
)
PADDING_TRAINED = Rule(
    "LAB008",
    "padding-trained",
    Severity.ERROR,
    "Padding tokens are training targets.",
    "The labels of padding are the pad id in place of -100, so the model learns to produce padding, and the loss is dominated by it.",
    '{"input_ids": [5, 6, 0, 0], "labels": [5, 6, 0, 0]}   # 0 is pad_token_id',
    '{"input_ids": [5, 6, 0, 0], "labels": [5, 6, -100, -100]}',
    "Set the labels of padding to -100.",
)
TRAINER_RAISES = Rule(
    "LAB009",
    "trainer-raises",
    Severity.ERROR,
    "The trainer raises an exception on this dataset and these settings.",
    "The run ends before the first step.",
    "SFTConfig(assistant_only_loss=True) with a chat template without {% generation %}",
    "a chat template with {% generation %} around the assistant's part",
    "Change the setting or the data that the message names.",
)
RULES = (END_IGNORED, NO_TARGET, END_CUT, NO_END, PROMPT_TRAINED, DOUBLE_BOS, BEYOND, PADDING_TRAINED, TRAINER_RAISES)
