if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
batch = tokenizer(prompts, padding=True, return_tensors="pt")
attention_mask = batch['attention_mask']
loss_mask = labels != tokenizer.pad_token_id
other_attention_mask = ids != other.pad_token_id
pad_id = tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id
attention_mask = input_ids != pad_id  # which of the two it is depends on the tokenizer
