if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
batch = tokenizer(prompts, padding=True, return_tensors="pt")
attention_mask = batch['attention_mask']
loss_mask = labels != tokenizer.pad_token_id
other_attention_mask = ids != other.pad_token_id
