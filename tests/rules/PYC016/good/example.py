from trl import PPOConfig, PPOTrainer, RLOOConfig, RLOOTrainer

args = PPOConfig(output_dir="ppo", response_length=512, stop_token="eos")
PPOTrainer(args=args, processing_class=tokenizer, model=policy, ref_model=ref, reward_model=reward, value_model=value, train_dataset=data)
RLOOTrainer(model="model", args=RLOOConfig("rloo"), reward_funcs=reward, train_dataset=data)  # trl 0.22 or later: eos stays

config = PPOConfig(model_name="gpt2", learning_rate=1.41e-5, batch_size=16)  # trl up to 0.11: the script calls generate()
trainer = PPOTrainer(config, model, ref_model, tokenizer, dataset=dataset)
trainer.step(queries, trainer.generate(queries), rewards)


def train(training_args):
    return PPOTrainer(args=training_args, model=policy, ref_model=ref, reward_model=reward, value_model=value, train_dataset=data)
