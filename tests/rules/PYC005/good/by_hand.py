tokenizer.add_special_tokens({"pad_token": "<|pad|>"})


def first(ids):
    labels = ids.clone()
    labels[labels == tokenizer.pad_token_id] = -100
    return labels


def by_mask(batch, other):
    other.pad_token = other.eos_token
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = -100
    return labels
