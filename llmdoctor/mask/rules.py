"""The MSK rules. input_findings.py and plan_findings.py find them in inputs and plans, live/differential.py by running the model."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

RIGHT_PADDED_GENERATION = Rule(
    code="MSK001", name="right-padded-generation", severity=ERROR,
    summary="Decoding goes on behind right padding.",
    reason="The next token is appended behind the padding and takes its position from there, so the tokens differ from those of the row alone "
    "(transformers#34658). In training right padding is fine.",
    bad="--lengths 5,8 --pad right --phase decode", good="--lengths 5,8 --pad left --phase decode",
    fix='tokenizer.padding_side = "left"',
)  # fmt: skip
MASK_HOLE = Rule(
    code="MSK002", name="mask-hole", severity=ERROR,
    summary="A 2-D mask has zeros between real tokens.",
    reason="With pad equal to eos, `mask = input_ids != pad_token_id` masks every eos inside the text: turns lose their ends, later logits move, "
    "and positions counted from the mask jump back (Qwen#1080, LLaVA-NeXT#338, verl#212).",
    bad="attention_mask = (input_ids != tokenizer.pad_token_id)", good="the attention_mask that the tokenizer returns",
    fix='attention_mask = tokenizer(texts, padding=True)["attention_mask"]  # never rebuild it from the ids',
)  # fmt: skip
DEAD_ROW = Rule(
    code="MSK003", name="dead-row", severity=ERROR,
    summary="A real token sees no key at all.",
    reason="softmax over nothing: sdpa and flash give zeros, eager the mean of all values, and a mask of -inf gives NaN, which spreads to every "
    "token (pytorch#103749).",
    bad="a 4-D mask with a row of -inf", good="every real query sees at least itself",
    fix="let every real query see itself: mask[:, :, i, i] = 0 (or True)",
)  # fmt: skip
MASK_DTYPE = Rule(
    code="MSK004", name="mask-dtype", severity=ERROR,
    summary="A 4-D mask has a dtype or values that the backend reads as something else.",
    reason="eager adds the mask to the scores: a bool mask adds 0 or 1 and masks nothing, so the future leaks. A float mask of 0 and 1 masks "
    "nothing in any backend (transformers#32195).",
    bad="torch.tril(torch.ones(1, 1, S, S))", good="torch.where(tril, 0.0, torch.finfo(dtype).min), or bool under sdpa",
    fix="mask = torch.where(mask.bool(), 0.0, torch.finfo(dtype).min).to(dtype)",
)  # fmt: skip
SHORT_MASK = Rule(
    code="MSK005", name="short-mask", severity=ERROR,
    summary="A 2-D mask has not one column for each of the cached and the new tokens.",
    reason="With a cache the missing columns count as padding, without a word: new tokens do not even see themselves (transformers#16811, #47597). "
    "Without one the columns are taken for the keys, and forward() raises, or leaves the mask out.",
    bad="attention_mask of the new tokens only, with a cache", good="attention_mask of [B, past + new]",
    fix="attention_mask = torch.cat([attention_mask, attention_mask.new_ones(batch, new)], dim=-1)",
)  # fmt: skip
FLASH_4D = Rule(
    code="MSK006", name="flash-4d", severity=ERROR,
    summary="A 4-D mask under flash-attention.",
    reason="The library reads it as a 2-D mask of sequence lengths and fails with an IndexError, or worse does not (transformers#39608).",
    bad="attention_mask of [B,1,S,S], flash_attention_2", good="attention_mask of [B,S], or sdpa for a mask of your own",
    fix='attn_implementation="sdpa"  # or "flex_attention"',
)  # fmt: skip
PACKING_LEAK = Rule(
    code="MSK007", name="packing-leak", severity=ERROR,
    summary="Tokens of one packed document see those of another.",
    reason="transformers finds documents by their position_ids only without a 2-D mask and without a cache, and flash-attention only in a batch "
    "of one; Qwen2-VL's three rows of positions are never looked at (transformers#46634, #39194).",
    bad="packed position_ids with use_cache=True", good="packed position_ids, no attention_mask, use_cache=False, batch 1",
    fix="model(input_ids, position_ids=position_ids, use_cache=False)  # no attention_mask",
)  # fmt: skip
LEFT_PADDED_POSITIONS = Rule(
    code="MSK008", name="left-padded-positions", severity=ERROR,
    summary="Left padding without position_ids in a model of absolute positions.",
    reason="forward() counts positions from the first column, padding included: GPT-2 then reads another text. Rotary and alibi models only see "
    "distances and are right (transformers#29583).",
    bad="gpt2(input_ids, attention_mask) left-padded", good="gpt2(input_ids, attention_mask, position_ids)",
    fix="position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)",
)  # fmt: skip
EMPTY_SLOTS_SEEN = Rule(
    code="MSK009", name="empty-slots-seen", severity=ERROR,
    summary="Queries see slots of a static cache that nothing has been written to.",
    reason="flash-attention without a mask takes all slots for keys and aligns causality at the last one; under flex_attention the cache's own "
    "counter moves before the kernel reads it (pytorch#108108, transformers#46914).",
    bad="--cache static:16 --backend flash_attention_2, no mask", good="the same with a 2-D mask of ones, or a dynamic cache",
    fix='cache_implementation="dynamic", or pass attention_mask',
)  # fmt: skip
NO_MASK_FUNCTION = Rule(
    code="MSK010", name="no-mask-function", severity=ERROR,
    summary="An attention function is registered without a mask function of the same name.",
    reason="transformers then makes no mask at all: padding, and what the function does not do itself, leaks (transformers#45811).",
    bad='AttentionInterface.register("mine", f)', good='and AttentionMaskInterface.register("mine", sdpa_mask)',
    fix='AttentionMaskInterface.register("mine", sdpa_mask)',
)  # fmt: skip
IMAGE_BLOCK_LOST = Rule(
    code="MSK011", name="image-block-lost", severity=ERROR,
    summary="The tokens of an image do not see each other, although the model was trained with images that do.",
    reason="Gemma 3 makes blocks of token_type_ids: without them, and always under flash-attention, the block is causal (transformers#39389).",
    bad="gemma3 with an image under flash_attention_2", good="token_type_ids passed, under sdpa or eager",
    fix='attn_implementation="sdpa", and pass the token_type_ids of the processor',
)  # fmt: skip
FLASH_CROSS = Rule(
    code="MSK012", name="flash-cross", severity=ERROR,
    summary="Cross-attention under flash-attention with a padded encoder and as many decoder tokens as encoder tokens.",
    reason="The decoder's queries are unpadded by the encoder's mask: real decoder tokens are dropped (transformers#35032).",
    bad="bart, flash_attention_2, encoder mask with zeros", good="sdpa, or no padding in the encoder",
    fix='attn_implementation="sdpa"',
)  # fmt: skip
LINEAR_LEAK = Rule(
    code="MSK013", name="linear-leak", severity=ERROR,
    summary="Linear-attention layers carry their state from one packed document into the next.",
    reason="Mamba, DeltaNet and short convolutions have no mask of pairs; position_ids do not reset their state (transformers#46093, #46859).",
    bad="jamba, packed position_ids", good="one document per row",
    fix="do not pack for this model: one document per row, padded",
)  # fmt: skip
MASK_CAST = Rule(
    code="MSK014", name="mask-cast", severity=ERROR,
    summary="A 2-D mask has values other than 0 and 1.",
    reason="It is cast to bool: document ids 1, 2, 3 all become True and documents see each other, an additive mask of 0 and -10000 is inverted "
    "(functionary#265).",
    bad="attention_mask = [[1, 1, 2, 2]]", good="position_ids that restart at 0 in each document, and no attention_mask",
    fix="documents: position_ids that restart at 0 in each; padding: a mask of 1 for tokens and 0 for padding",
)  # fmt: skip
LABELS_SHIFTED_TWICE = Rule(
    code="MSK015", name="labels-shifted-twice", severity=ERROR,
    summary="Labels have been shifted already, and the model shifts them again.",
    reason="The loss of a causal model compares position i with label i + 1: labels that are input_ids moved by one train "
    "the model to predict the token after the next one "
    "(transformers#32944).",
    bad="labels = input_ids[:, 1:]", good="labels = input_ids.clone()",
    fix="labels = input_ids.clone()  # the model shifts them",
)  # fmt: skip
MASK_BUDGET = Rule(
    code="MSK016", name="mask-budget", severity=WARNING,
    summary="The masks of one forward take more bytes than the budget.",
    reason="A mask of queries x keys grows with the square of the length: 4.0 GiB at 32k tokens in fp32 for one sample under eager.",
    bad="--shape 1,32768 --backend eager", good="--shape 1,32768 --backend sdpa, without padding",
    fix='attn_implementation="sdpa"  # or "flash_attention_2"; batch by length so that nothing is padded',
)  # fmt: skip
WINDOW_OFF = Rule(
    code="MSK017", name="window-off", severity=ERROR,
    summary="A sliding layer sees one key more or less than its window under one backend.",
    reason="flash-attention's window is inclusive at both ends, the others' is not; one key more changes every logit (transformers#39408).",
    bad="window_size=(sliding_window, sliding_window)", good="window_size=(sliding_window - 1, sliding_window - 1)",
    fix="compare the backend with eager: llmdoctor mask inspect MODEL --backend eager,flash_attention_2",
)  # fmt: skip
PADDED_DIFFERS = Rule(
    code="MSK018", name="padded-differs", severity=ERROR,
    summary="A row's logits differ from those of the same tokens alone.",
    reason="Padding must not change a real token. It does if it is not masked, if the positions count it, or if a state layer reads it.",
    bad="left-padded gpt2 without position_ids", good="the same with position_ids",
    fix="mask test applies positions counted from the mask, the other padding side and other backends, and names the first that repairs the row",
)  # fmt: skip
FUTURE_LEAK = Rule(
    code="MSK019", name="future-leak", severity=ERROR,
    summary="A token's logits change with a token that it must not see.",
    reason="A masked or a later token that reaches the output makes the training loss meaningless and the generated text another one.",
    bad="a bool 4-D mask under eager", good="an additive 4-D mask",
    fix="llmdoctor mask inspect MODEL --mode run shows which layer sees it",
)  # fmt: skip
BACKEND_REFUSED = Rule(
    code="MSK020", name="backend-refused", severity=ERROR,
    summary="The library refuses this backend for this model, or fails in it.",
    reason="from_pretrained() or forward() raises: the class does not support the backend.",
    bad='attn_implementation="flex_attention" for gpt2', good='attn_implementation="sdpa"',
    fix='attn_implementation="sdpa", or "eager" where sdpa is not supported either',
)  # fmt: skip
PLACEHOLDER_COUNT = Rule(
    code="MSK021", name="placeholder-count", severity=ERROR,
    summary="The image or video placeholder tokens do not agree with image_grid_thw.",
    reason="The model replaces one placeholder by one patch embedding: a different number raises, or shifts the text under the pictures.",
    bad="text truncated after the processor ran", good="truncate before, or drop the sample",
    fix="do not cut input_ids behind the processor: truncate the text before it",
)  # fmt: skip
MASKED_LABELS = Rule(
    code="MSK022", name="masked-labels", severity=WARNING,
    summary="A token that the mask hides is trained on.",
    reason="If attention_mask is 0 and the label is not -100, the loss trains the model to predict a token from one that is hidden.",
    bad="labels = input_ids.clone() with padding", good="labels[attention_mask == 0] = -100",
    fix="labels = labels.masked_fill(attention_mask == 0, -100)",
)  # fmt: skip
DOCUMENT_SPLIT = Rule(
    code="MSK023", name="document-split", severity=WARNING,
    summary="Position ids jump inside one document, and the mask starts a new document there.",
    reason="Without a 2-D mask and without a cache, transformers takes every step of position_ids other than 1 for a new document: the tokens after the "
    "jump do not see those before it. flash-attention starts a document only where the lowest position returns (transformers#46634).",
    bad="position_ids = [[0, 1, 2, 3, 7, 8]]", good="position_ids that go up by one inside a document",
    fix="position_ids = torch.arange(S)[None], or pass attention_mask = torch.ones(1, S) if the row is one document",
)  # fmt: skip
LABELS_CROSS_DOCUMENTS = Rule(
    code="MSK024", name="labels-cross-documents", severity=WARNING,
    summary="The first token of a packed document has a label.",
    reason="The loss of a causal model compares position i with label i + 1: the last token of each document is trained to predict the first token of the "
    "next one, which it has nothing to do with.",
    bad="labels = input_ids.clone() of a packed row", good="labels[position_ids == 0] = -100",
    fix="labels = labels.masked_fill(position_ids == 0, -100)",
)  # fmt: skip
INVERTED_2D = Rule(
    code="MSK025", name="inverted-mask", severity=ERROR,
    summary="A 2-D mask is inverted: 1 on padding and 0 on real tokens.",
    reason="attention_mask is 1 for the tokens that take part. An inverted mask (the padding mask of torch.nn.Transformer, or ids == pad) hides every real "
    "token and shows the padding.",
    bad="attention_mask = (input_ids == pad_token_id)", good="attention_mask = (input_ids != pad_token_id)",
    fix="attention_mask = 1 - attention_mask",
)  # fmt: skip
WINDOW_LOST = Rule(
    code="MSK026", name="window-lost", severity=WARNING,
    summary="A 4-D mask lets a sliding or chunked layer see keys outside its window.",
    reason="transformers passes a 4-D mask on unchanged, to every layer alike: the window of a sliding layer is not added to it (transformers#30833, #33586).",
    bad="a causal 4-D mask for Mistral", good="one 4-D mask per layer kind, with the window in it, or no 4-D mask",
    fix="attention_mask = {\"full_attention\": mask, \"sliding_attention\": mask_with_window}, or leave the 4-D mask out",
)  # fmt: skip
SELF_HIDDEN = Rule(
    code="MSK027", name="self-hidden", severity=WARNING,
    summary="A real query does not see itself.",
    reason="In every model of transformers a token sees at least itself. A 4-D mask without its diagonal (triu instead of tril, or one column off) hides the "
    "token from its own position.",
    bad="torch.tril(ones, diagonal=-1)", good="torch.tril(ones)",
    fix="set the diagonal of the mask: mask[:, :, i, i] = True (or 0.0)",
)  # fmt: skip
EMPTY_PADDING_ROWS = Rule(
    code="MSK028", name="empty-padding-rows", severity=INFO,
    summary="Padding queries see no key at all, in half precision.",
    reason="softmax over no key gives NaN in some half-precision kernels on CUDA. The value belongs to padding, but a NaN that is multiplied by 0 stays NaN "
    "in the loss (pytorch#103749).",
    bad="left padding in bfloat16 with a bool mask of pairs", good="right padding in training, or flash_attention_2",
    fix="if the loss is NaN: pad on the right in training, or use flash_attention_2, which leaves padding out",
)  # fmt: skip
PADDING_DOCUMENTS = Rule(
    code="MSK029", name="padding-documents", severity=INFO,
    summary="Padding of a packed row counts as documents of one token each.",
    reason="Without a 2-D mask each padding token with position 0 is a document of one token: nothing leaks, but padding is computed, and trained if "
    "its labels are not -100.",
    bad="position_ids = [[0, 1, 2, 0, 1, 0, 0]] with pad ids at the end", good="a packed row without padding",
    fix="fill the row with another document, and set labels = -100 at the padding",
)  # fmt: skip
MASK_MISSING = Rule(
    code="MSK030", name="mask-missing", severity=WARNING,
    summary="A row holds padding that real tokens see, and no attention_mask is passed.",
    reason="Without attention_mask every token takes part. Padding at the start of a row is seen by each token after it, and in an encoder padding at the "
    "end is seen too: the row's logits are not those of its text alone.",
    bad="model(input_ids) of a left-padded batch", good="model(input_ids, attention_mask=attention_mask)",
    fix='attention_mask = tokenizer(texts, padding=True)["attention_mask"], passed with input_ids',
)  # fmt: skip

RULES = declared(globals())
BY_CODE = {rule.code: rule for rule in RULES}
