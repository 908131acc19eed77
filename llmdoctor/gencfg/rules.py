"""Declarations of the rules about a model's generation config, GEN001 to GEN013, with the text of their pages."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

NO_TERMINATOR = Rule(
    code="GEN001",
    fixable=True,
    name="no-terminator",
    severity=Severity.ERROR,
    summary="generate() has no eos_token_id, so nothing ends a sequence before the length limit.",
    reason="Every sequence runs to max_new_tokens: answers trail off into repetition, a rollout costs its full budget, and a reward model scores "
    "text that the model never meant. If generation_config.json exists, transformers does not read config.json's eos_token_id at all; "
    "a trainer that sets model.generation_config.eos_token_id to None (trl's PPO does) leaves nothing behind either, and a checkpoint saved "
    "from that policy keeps the damage.",
    bad='config.json            {"eos_token_id": 151645, ...}\ngeneration_config.json {"do_sample": true, "temperature": 0.7}',
    good='generation_config.json {"do_sample": true, "temperature": 0.7, "eos_token_id": [151645, 151643]}',
    fix="Put eos_token_id into generation_config.json, or into the GenerationConfig that is passed to generate().",
)
TURN_END = Rule(
    code="GEN002",
    fixable=True,
    name="turn-end-not-eos",
    severity=Severity.ERROR,
    summary="The token with which the chat template ends an answer is not among the ids at which generate() stops.",
    reason="A chat model learns to end its turn with the template's token (<|im_end|>, <|eot_id|>, <|end|>). If that id is not in eos_token_id, the model "
    "ends its turn, is not stopped, and goes on as the other speaker. The terminator is found by rendering the template, not by its name. If the template writes "
    "another id behind the last turn and generate() stops at that one (Phi-3's <|endoftext|> behind <|end|>), this is a warning.",
    bad='chat template          ...{{ message["content"] }}<|eot_id|>\ngeneration_config.json {"eos_token_id": 128001}',
    good='generation_config.json {"eos_token_id": [128001, 128009]}',
    fix="Add the terminator's id to eos_token_id in generation_config.json; keep the ids that are there.",
)
TOKENIZER_EOS = Rule(
    code="GEN003",
    fixable=True,
    name="tokenizer-eos-not-eos",
    severity=Severity.ERROR,
    summary="The tokenizer's eos_token is not among the ids at which generate() stops.",
    reason="Training data made with this tokenizer ends with its eos_token, so that is the token the model emits when it is done. generate() compares "
    "with eos_token_id of the generation config only. Other engines add the tokenizer's eos_token, so the same directory may stop there. If the chat template ends an answer with an id that is in eos_token_id, this is a note.",
    bad='tokenizer_config.json  {"eos_token": "<|endoftext|>"}   id 50256\ngeneration_config.json {"eos_token_id": 2}',
    good='generation_config.json {"eos_token_id": 50256}',
    fix="Set eos_token_id to the tokenizer's eos id, or to a list that holds it.",
)
UNREACHABLE = Rule(
    code="GEN004",
    name="eos-unreachable",
    severity=Severity.ERROR,
    summary="There are eos ids, but none of them can ever be produced.",
    reason="An id at or beyond vocab_size, or below zero, is never produced by the model; transformers does not warn, or only logs. The same holds for an eos in "
    "suppress_tokens, one with a strongly negative sequence_bias, and for min_new_tokens at or above the limit.",
    bad='config.json            {"vocab_size": 32000}\ngeneration_config.json {"eos_token_id": 32007}',
    good='generation_config.json {"eos_token_id": 2}',
    fix="Use the id that the tokenizer gives the token, or resize the embeddings to the tokenizer; lift what forbids the token.",
)
REJECTED = Rule(
    code="GEN005",
    name="rejected-setting",
    severity=Severity.ERROR,
    summary="The library raises an exception on this configuration, at load or at the first generate().",
    reason="A generation_config.json is not checked when it is written, and what one version of transformers lets through the next one refuses: an int "
    "temperature, a negative top_k, num_return_sequences without sampling, an unknown cache_implementation.",
    bad='{"do_sample": true, "temperature": 2}',
    good='{"do_sample": true, "temperature": 2.0}',
    fix="Correct the value that the message names.",
)
CLASS_DEFAULT = Rule(
    code="GEN006",
    name="eos-from-class-default",
    severity=Severity.WARNING,
    summary="The only eos_token_id comes from the configuration class, which transformers 5 no longer asks.",
    reason="Without generation_config.json, transformers 4 builds the generation config from config.json with the defaults of its class (a Llama's eos is 2). "
    "transformers 5 reads config.json as it is written: the same directory stops under 4.x and runs on under 5.x.",
    bad='config.json {"model_type": "llama"}   and no generation_config.json',
    good='generation_config.json {"eos_token_id": 2}',
    fix="Write a generation_config.json with eos_token_id.",
)
PAD_OUTSIDE = Rule(
    code="GEN007",
    name="pad-outside-vocabulary",
    severity=Severity.WARNING,
    summary="pad_token_id is negative, or at or beyond vocab_size.",
    reason="A padded batch looks the id up in the embedding: an index error on a CPU, a device-side assert on a GPU. A single prompt never shows it.",
    bad='config.json            {"vocab_size": 32000}\ngeneration_config.json {"pad_token_id": 32000}',
    good='generation_config.json {"pad_token_id": 0}',
    fix="Use an id inside the vocabulary, or resize the embeddings after adding the token.",
)
UNSAVEABLE = Rule(
    code="GEN008",
    fixable=True,
    name="sampling-without-do-sample",
    severity=Severity.WARNING,
    summary="Sampling settings are given, do_sample is not true: they are ignored.",
    reason="Decoding is greedy even if temperature and top_p are set, and save_pretrained() of transformers 4 refuses to write such a config, so a fine-tuned model cannot be "
    "saved at the end of its training. vLLM, which has no do_sample, does sample with them.",
    bad='{"temperature": 0.6, "top_p": 0.9}',
    good='{"do_sample": true, "temperature": 0.6, "top_p": 0.9}',
    fix="Set do_sample to true, or leave the sampling settings out.",
)
TOKEN_CONFLICT = Rule(
    code="GEN009",
    name="special-token-conflict",
    severity=Severity.WARNING,
    summary="The tokenizer's files disagree about a special token, or name an empty one.",
    reason="Which id is eos then depends on which file a loader reads first: the slow tokenizer, the fast one, and engines of other languages differ. An empty "
    "string as eos_token has no id at all, and code that appends it appends nothing.",
    bad='tokenizer_config.json   {"eos_token": "<|eot_id|>"}\nspecial_tokens_map.json {"eos_token": "<|end_of_text|>"}',
    good='tokenizer_config.json   {"eos_token": "<|eot_id|>"}\nspecial_tokens_map.json {"eos_token": "<|eot_id|>"}',
    fix="Make the files agree: save the tokenizer again with save_pretrained().",
)
PAD_IS_EOS = Rule(
    code="GEN010",
    name="pad-is-eos",
    severity=Severity.INFO,
    summary="pad_token_id is also an eos id.",
    reason="A common design of vendors and harmless in generation with an attention mask. It does harm if a mask is made as input_ids != pad_token_id, or if a "
    "collator turns pad into -100: then the model never learns to end its turn.",
    bad='{"pad_token_id": 151643, "eos_token_id": [151645, 151643]}   and   mask = input_ids != 151643',
    good="Pass the attention mask that the tokenizer made; mask labels by position, not by pad id.",
    fix="Nothing to change in the files.",
)
MODEL_DEFAULTS = Rule(
    code="GEN011",
    name="defaults-replaced-by-the-model",
    severity=Severity.INFO,
    summary="A GenerationConfig passed to generate() does not keep the values that equal the library's defaults: the model's are taken.",
    reason="From 4.50 on, a field of the GenerationConfig that equals the library's default is replaced by the model's value when generation_config.json is stamped "
    "4.50 or later, or not stamped: an explicit temperature=1.0 becomes the model's 0.01. Saving a model again stamps it, and flips the behaviour.",
    bad='generation_config.json {"temperature": 0.01, "transformers_version": "4.50.0"}\nmodel.generate(generation_config=GenerationConfig(temperature=1.0))',
    good="model.generate(temperature=1.0)   an argument has the last word",
    fix="Pass what matters as arguments of generate(); in 4.50 to 4.57 use_model_defaults=False also keeps the GenerationConfig as it is.",
)
ENGINES_DIFFER = Rule(
    code="GEN012",
    name="engines-differ",
    severity=Severity.INFO,
    summary="transformers and other engines do not stop at the same tokens.",
    reason="Each engine takes its stop ids from other files: vLLM adds the tokenizer's eos_token, TGI reads a list only, TensorRT-LLM reads the tokenizer alone. vLLM and SGLang "
    "also take sampling settings from generation_config.json as hidden defaults of every request. A trainer that samples with one engine and scores with another "
    "sees two policies.",
    bad='generation_config.json {"eos_token_id": 2, "temperature": 0.6}   tokenizer eos 32000',
    good='generation_config.json {"eos_token_id": [2, 32000]}   and the request names its temperature',
    fix="Name every id in generation_config.json, and the sampling settings in the request; --generation-config vllm turns vLLM's hidden defaults off.",
)
UNRESOLVED = Rule(
    code="GEN013",
    name="terminator-unresolved",
    severity=Severity.INFO,
    summary="No file gives the id that ends a turn.",
    reason="The chat template names a token whose id is in no file (tokenizer.json is missing, or the vocabulary is in a format of its own), it ends a turn with "
    "plain text, or with a token that can also occur inside an answer. The files then do not show whether a call stops.",
    bad="a directory with tokenizer_config.json and no tokenizer.json",
    good="the same with tokenizer.json",
    fix="Add the tokenizer's files, or run the model once.",
)
TOOL_END = Rule(
    code="GEN021",
    fixable=True,
    name="tool-end-not-eos",
    severity=Severity.WARNING,
    summary="The token with which the chat template ends a tool call is not among the ids at which generate() stops.",
    reason="Some models end a tool call with another token than an answer (<|call|> of gpt-oss, <|eom_id|> of Llama 3.1, <|observation|> of GLM). Without it in "
    "eos_token_id, the model writes the tool's result itself and goes on.",
    bad='chat template          ...<|channel|>commentary json<|message|>{...}<|call|>\ngeneration_config.json {"eos_token_id": [200002, 199999]}',
    good='generation_config.json {"eos_token_id": [200002, 199999, 200012]}',
    fix="Add the id that ends a tool call to eos_token_id.",
)
STOPS_EARLY = Rule(
    code="GEN022",
    fixable=True,
    name="stops-inside-an-answer",
    severity=Severity.ERROR,
    summary="An eos id is ordinary text, or a token that the chat template writes inside an answer.",
    reason="generate() ends at the first such token: answers are cut at the first comma, after the reasoning (</think>), or after the first of several sections. The ids "
    "often come from another model's vocabulary.",
    bad='tokenizer.json         {"model": {"vocab": {",": 11, ...}}}\ngeneration_config.json {"eos_token_id": [151645, 11]}',
    good='generation_config.json {"eos_token_id": [151645]}',
    fix="Remove the id from eos_token_id.",
)
UNKNOWN_FIELD = Rule(
    code="GEN023",
    name="unknown-field",
    severity=Severity.WARNING,
    summary="generation_config.json has a field that no version of transformers reads.",
    reason="transformers keeps an unknown field as an attribute and does not warn: a misspelt setting (temprature), or one under another engine's name (max_tokens, "
    "repeat_penalty), has no effect.",
    bad='{"temprature": 0.2, "max_tokens": 512}',
    good='{"temperature": 0.2, "max_new_tokens": 512}',
    fix="Use the name of the GenerationConfig field, or remove the field.",
)
BEYOND_EMBEDDING = Rule(
    code="GEN024",
    name="token-beyond-the-embedding",
    severity=Severity.ERROR,
    summary="The chat template uses a token whose id is at or beyond vocab_size.",
    reason="Tokens were added to the tokenizer, and the model's embedding was not resized, or not saved with an adapter. A prompt that holds such a token raises an index error, "
    "and the model can never produce it: as an eos id it has no effect.",
    bad='tokenizer.json {"added_tokens": [{"id": 4096, "content": "<|im_end|>"}]}\nconfig.json    {"vocab_size": 4096}',
    good="model.resize_token_embeddings(len(tokenizer)), then train and save",
    fix="Resize the embeddings to the tokenizer before training: model.resize_token_embeddings(len(tokenizer)); save an adapter with "
    'modules_to_save=["embed_tokens", "lm_head"].',
)
ADAPTER_VOCABULARY = Rule(
    code="GEN025",
    name="adapter-with-another-vocabulary",
    severity=Severity.WARNING,
    summary="The tokenizer of an adapter gives a special token another id than the tokenizer of its base model.",
    reason="The adapter was trained on another base model, or its tokenizer was changed: prompts that this tokenizer makes mean something else to the base model, and an engine "
    "that loads the base's tokenizer (vLLM) stops elsewhere.",
    bad="adapter: <|im_end|> is 32000   base model: <|im_end|> is 151645",
    good="both tokenizers give <|im_end|> the same id",
    fix="Use the adapter with the base model that it was trained on.",
)
TIED_TWICE = Rule(
    code="GEN026",
    name="tied-weights-differ",
    severity=Severity.WARNING,
    summary="config.json ties the output layer to the embedding, but the checkpoint holds both, with different values.",
    reason="transformers 5 does not tie them in this case, transformers 4 and engines such as vLLM load the embedding alone: the same directory is two models. It happens if "
    "an adapter is merged, or a model is fine-tuned, with an output layer of its own.",
    bad='config.json       {"tie_word_embeddings": true}\nmodel.safetensors lm_head.weight differs from model.embed_tokens.weight',
    good='config.json       {"tie_word_embeddings": false}',
    fix='Set "tie_word_embeddings": false in config.json if the output layer was trained, else save the model without lm_head.weight.',
)
EMBEDDING_SIZE = Rule(
    code="GEN027",
    name="embedding-size",
    severity=Severity.ERROR,
    summary="The embedding of the checkpoint has another number of rows than vocab_size.",
    reason="from_pretrained() raises an exception because of the mismatch of the sizes. Tokens were added and one of the files was not saved again.",
    bad='config.json       {"vocab_size": 32000}\nmodel.safetensors model.embed_tokens.weight [32002, 4096]',
    good='config.json       {"vocab_size": 32002}',
    fix="Set vocab_size to the number of rows, or save the model and its config together with save_pretrained().",
)
RULES = declared(globals())
