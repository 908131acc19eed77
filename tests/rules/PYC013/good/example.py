model.generate(**batch)
model.generate(**batch, eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")])
model.generate(**batch, eos_token_id=model.generation_config.eos_token_id, pad_token_id=tokenizer.eos_token_id)
