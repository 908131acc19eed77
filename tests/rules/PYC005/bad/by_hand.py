tokenizer.pad_token = tokenizer.eos_token
pad_id = tokenizer.pad_token_id


def first(ids):
    labels = ids.clone()
    labels[labels == tokenizer.pad_token_id] = -100
    return labels


def second(labels):
    return labels.masked_fill(labels.eq(tokenizer.pad_token_id), -100)


def third(labels):
    return torch.where(labels != pad_id, labels, IGNORE_INDEX)


def fourth(ids):
    return [-100 if token == tokenizer.pad_token_id else token for token in ids]
