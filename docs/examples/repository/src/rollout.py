"""A rollout as it was once written."""


def rollout(policy, batch, tokenizer):
    policy.generation_config.eos_token_id = None
    prompts = tokenizer(batch, return_tensors="pt", padding=True)
    return policy.generate(prompts["input_ids"], do_sample=False, temperature=0.7)
