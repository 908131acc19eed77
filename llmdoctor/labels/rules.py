"""The LAB rules: what a model is taught that it should not be, and what it is not taught that it should be."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

END_IGNORED = Rule(
    code="LAB001",
    name="end-not-trained",
    severity=Severity.ERROR,
    summary="The token that ends an answer is not a training target.",
    reason="The model never learns to produce the end token, so decoding runs to its limit. The usual causes: a collator that ignores pad_token_id while "
    "pad_token_id equals the end token, a {% generation %} block that leaves the end token outside, a trainer that trains the content alone.",
    bad="tokenizer.pad_token = tokenizer.eos_token   # with DataCollatorForLanguageModeling",
    good='tokenizer.pad_token = "<|endoftext|>"   # another token than the one that ends an answer',
    fix="Give the tokenizer a pad token of its own, or let the trainer's mask include the end token.",
)
NO_TARGET = Rule(
    code="LAB002",
    name="no-target",
    severity=Severity.WARNING,
    summary="A sequence has no training target: every label is -100.",
    reason="It costs time and memory and teaches nothing; a batch of such sequences has a loss of NaN or 0. The usual causes: a prompt longer than max_length, a "
    "response marker that does not occur in the text, a template without {% generation %}.",
    bad="max_length: 1024 with prompts of 1,500 tokens",
    good="max_length: 4096, or the long rows left out",
    fix="Raise max_length, or correct the marker.",
)
END_CUT = Rule(
    code="LAB003",
    name="end-cut-off",
    severity=Severity.WARNING,
    summary="Truncation removes the end of an answer.",
    reason="The model is taught that an answer goes on at that place. A few such rows do no harm; a large share teaches it not to stop.",
    bad="max_length: 1024, answers of 1,500 tokens",
    good="max_length: 4096, or the long rows left out",
    fix="Raise max_length, or leave the rows out that are longer.",
)
NO_END = Rule(
    code="LAB004",
    name="no-end-token",
    severity=Severity.WARNING,
    summary="A trained answer is followed by no end token at all.",
    reason="Text that is trained without an end token teaches the model to go on. transformers' collators add none; TRL adds one to plain text but not to "
    "conversations, where the chat template must write it.",
    bad='{"text": "The answer."} with DataCollatorForLanguageModeling',
    good='{"text": "The answer.<|endoftext|>"}',
    fix="Add the eos_token to the text, or correct the chat template.",
)
PROMPT_TRAINED = Rule(
    code="LAB005",
    name="prompt-trained",
    severity=Severity.INFO,
    summary="The tokens of user, system or tool messages are training targets.",
    reason="The loss then also teaches the model to write the user's part. That can be meant (continued pretraining, short answers); for an assistant it mostly is not.",
    bad='SFTConfig()   # rows with "messages": every token is a target',
    good="SFTConfig(assistant_only_loss=True)",
    fix="Train the assistant's tokens only.",
)
DOUBLE_BOS = Rule(
    code="LAB006",
    name="double-bos",
    severity=Severity.WARNING,
    summary="A sequence begins with two bos tokens.",
    reason="The text already begins with the bos token and the tokenizer adds another one. Serving sends one, so the model sees another beginning than in training.",
    bad='{"text": "<s>[INST] Hi [/INST]"} on a tokenizer that adds <s>',
    good='{"text": "[INST] Hi [/INST]"}',
    fix="Remove the bos from the text, or tokenize with add_special_tokens=False.",
)
BEYOND = Rule(
    code="LAB007",
    name="id-beyond-vocabulary",
    severity=Severity.ERROR,
    summary="A sequence holds an id that the model's embedding does not have.",
    reason="The forward pass raises IndexError on a CPU and fails with a device-side assert on CUDA.",
    bad="vocab_size 32000 and an added token with id 32000",
    good="model.resize_token_embeddings(len(tokenizer))",
    fix="model.resize_token_embeddings(len(tokenizer))",
)
PADDING_TRAINED = Rule(
    code="LAB008",
    name="padding-trained",
    severity=Severity.ERROR,
    summary="Padding tokens are training targets.",
    reason="The labels of padding are the pad id in place of -100, so the model learns to produce padding, and the loss is dominated by it.",
    bad='{"input_ids": [5, 6, 0, 0], "labels": [5, 6, 0, 0]}   # 0 is pad_token_id',
    good='{"input_ids": [5, 6, 0, 0], "labels": [5, 6, -100, -100]}',
    fix="Set the labels of padding to -100.",
)
TRAINER_RAISES = Rule(
    code="LAB009",
    name="trainer-raises",
    severity=Severity.ERROR,
    summary="The trainer raises an exception on this dataset and these settings.",
    reason="The run ends before the first step.",
    bad="SFTConfig(assistant_only_loss=True) with a chat template without {% generation %}",
    good="a chat template with {% generation %} around the assistant's part",
    fix="Change the setting or the data that the message names.",
)
SHIFTED = Rule(
    code="LAB010",
    name="labels-shifted",
    severity=Severity.ERROR,
    summary="The labels are shifted by one place against the ids.",
    reason="The models of transformers shift the labels themselves. Labels that are shifted already train each token on the one after the next, and the loss "
    "does not fall below that of guessing.",
    bad='{"input_ids": [5, 6, 7], "labels": [6, 7, -100]}',
    good='{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}',
    fix="labels = input_ids.copy()   # without a shift",
)
DOUBLE_EOS = Rule(
    code="LAB011",
    name="double-eos",
    severity=Severity.WARNING,
    summary="A sequence ends with two eos tokens.",
    reason="The text already ends with the eos token and the tokenizer or the trainer adds another one. It is harmless for stopping; with packing the second one "
    "begins the next document.",
    bad='{"text": "The answer.</s>"} on a tokenizer that adds </s>',
    good='{"text": "The answer."}',
    fix="Remove the eos from the text, or set add_eos_token to false.",
)
THOUGHTS_REMOVED = Rule(
    code="LAB012",
    name="thinking-removed",
    severity=Severity.INFO,
    summary="The chat template removes the thinking part of answers, so it is not trained.",
    reason="Templates of reasoning models drop the thoughts of earlier turns, some of all turns. The rows hold them, the sequences do not: the model is taught to "
    "answer without thinking.",
    bad="a template with content.split('</think>')[-1] and rows with <think>...</think>",
    good="a training template that keeps the thoughts, or one row for each answer",
    fix="Train with a template that keeps the thoughts, or make one row of each turn so that its answer is the last.",
)
CROSSES = Rule(
    code="LAB013",
    name="target-crosses-documents",
    severity=Severity.INFO,
    summary="The first token of a packed document is a target, predicted from the document before it.",
    reason="Packing puts documents one behind the other. Without position ids that begin anew, each document also attends to those before it, and its first token "
    "is trained as their continuation. That is meant in continued pretraining; conversations learn that an unrelated question follows.",
    bad='SFTConfig(packing=True, packing_strategy="wrapped")',
    good='SFTConfig(packing=True, packing_strategy="bfd")   # with flash attention',
    fix='packing_strategy="bfd" with flash attention, or no packing.',
)
ODD_ROLE = Rule(
    code="LAB014",
    name="role-of-another-format",
    severity=Severity.WARNING,
    summary="The messages have roles such as human and gpt, which the chat template writes as they are.",
    reason="TRL renames the keys from and value of ShareGPT rows, not the roles in them. The model is trained with headers (<|im_start|>gpt) that no server sends.",
    bad='{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]} with SFTTrainer',
    good='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}',
    fix='names = {"human": "user", "gpt": "assistant"}\n'
    'dataset = dataset.map(lambda row: {"messages": [{"role": names.get(m["from"], m["from"]), "content": m["value"]} for m in row["conversations"]]},\n'
    '                      remove_columns="conversations")',
)
DROPPED = Rule(
    code="LAB015",
    name="message-dropped",
    severity=Severity.WARNING,
    summary="The chat template leaves a message of the row out of the text.",
    reason="A template writes the roles it knows and says nothing about the others: a system message, a developer message or a tool's result can vanish, and what "
    "is trained is another conversation than the row holds.",
    bad='{"role": "developer", "content": "Be brief."} with a template of system, user and assistant',
    good='{"role": "system", "content": "Be brief."}',
    fix="Rename the role to one that the chat template writes, or use a template that writes it.",
)
NO_ANSWER = Rule(
    code="LAB016",
    name="no-answer",
    severity=Severity.WARNING,
    summary="A conversation holds no message of the assistant.",
    reason="There is no answer to learn. If every token is trained, the model learns to write the prompt; if the assistant's tokens alone are, the row has no target.",
    bad='{"messages": [{"role": "user", "content": "Hi"}]}',
    good='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}',
    fix='dataset = dataset.filter(lambda row: any(m["role"] == "assistant" for m in row["messages"]))',
)
RULES = declared(globals())
