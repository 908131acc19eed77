from transformers import HfArgumentParser
from trl import PPOConfig, PPOTrainer, RLOOConfig, RLOOTrainer

args = PPOConfig(output_dir="ppo", response_length=512)
PPOTrainer(args=args, processing_class=tokenizer, model=policy, ref_model=ref, reward_model=reward, value_model=value, train_dataset=data)


def train_with_rloo():
    config = RLOOConfig("rloo", stop_token=None)
    return RLOOTrainer(config=config, processing_class=tokenizer, policy=policy, ref_policy=ref, reward_model=reward, train_dataset=data)


def main():
    script_args, training_args = HfArgumentParser((ScriptArguments, PPOConfig)).parse_args_into_dataclasses()
    PPOTrainer(args=training_args, model=policy, ref_model=ref, reward_model=reward, value_model=value, train_dataset=data)
