from transformers import GenerationConfig

eos = [processor.tokenizer.eos_token_id]
settings = {"max_new_tokens": 64, "eos_token_id": eos}
model.generate(**batch, **settings)
config = GenerationConfig(eos_token_id=self.tokenizer.eos_token_id)
model.generate(**batch, generation_config=config)
