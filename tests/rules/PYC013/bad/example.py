model.generate(**batch, eos_token_id=tokenizer.eos_token_id)
