policy.generation_config.eos_token_id = None
model.generate(ids, eos_token_id=None)
