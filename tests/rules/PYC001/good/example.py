saved = model.generation_config.eos_token_id
model.generation_config.eos_token_id = None
model.generate(ids)
model.generation_config.eos_token_id = saved
model.generate(ids, generation_config=config, eos_token_id=None)
model.generate(ids, max_new_tokens=1, eos_token_id=None)
