"""A user's PPO script: a Qwen2-VL as the policy of TRL's PPOTrainer, one step on text prompts, then the picture of infer.py.

python train.py MODEL_DIR [--stop-token eos] [--eos ID ...] [--save DIR] [--no-step]
"""

import argparse
import copy
import os
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, GenerationConfig, Qwen2Config, Qwen2ForSequenceClassification, Qwen2VLForConditionalGeneration
from trl.experimental.ppo import PPOConfig, PPOTrainer

PROMPTS = ("Describe this image.", "Describe this picture.")


def scorer(vocabulary: int, pad: int) -> Qwen2ForSequenceClassification:
    """A tiny reward or value model: one score a token."""
    return Qwen2ForSequenceClassification(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_labels=1,
            pad_token_id=pad,
        )
    )


def main() -> None:
    """Train for one step, then describe a red square with the policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("--stop-token", choices=["eos"])
    parser.add_argument("--eos", type=int, nargs="+", help="eos_token_id of the GenerationConfig for the picture")
    parser.add_argument("--save", metavar="DIR")
    parser.add_argument("--no-step", action="store_true", help="construct the trainer, train nothing")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration.from_pretrained(options.model_dir)
    processor = AutoProcessor.from_pretrained(options.model_dir)
    tokenizer = processor.tokenizer
    vocabulary = model.get_input_embeddings().num_embeddings
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in PROMPTS
    ]

    with tempfile.TemporaryDirectory() as scratch:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=scratch,
                report_to=[],
                use_cpu=True,
                bf16=False,
                per_device_train_batch_size=2,
                num_mini_batches=1,
                num_ppo_epochs=1,
                total_episodes=2,
                response_length=32,
                learning_rate=1e-6,
                num_sample_generations=0,
                save_strategy="no",
                stop_token=options.stop_token,
            ),
            processing_class=tokenizer,
            model=model,
            ref_model=copy.deepcopy(model),
            reward_model=scorer(vocabulary, tokenizer.pad_token_id),
            value_model=scorer(vocabulary, tokenizer.pad_token_id),
            train_dataset=Dataset.from_list([{"input_ids": tokenizer(chat)["input_ids"]} for chat in chats]),
        )
        if not options.no_step:
            trainer.train()
        policy = trainer.policy_model.eval()

    image = Image.new("RGB", (112, 84), "white")
    ImageDraw.Draw(image).rectangle((36, 22, 76, 62), fill=(200, 30, 30))
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Describe this image."}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos = process_vision_info(messages)
    inputs = processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt").to(policy.device)

    generation_config = GenerationConfig(
        max_new_tokens=64,
        temperature=1.0,
        top_k=0.0,
        top_p=1.0,
        do_sample=True,
        return_dict_in_generate=True,
        output_scores=True,
        eos_token_id=options.eos,
    )
    output = policy.generate(**inputs, generation_config=generation_config)
    new = output.sequences[0, inputs["input_ids"].shape[1] :]
    print(len(new), "new tokens")
    print(processor.decode(new))
    if options.save:
        policy.save_pretrained(options.save)
        processor.save_pretrained(options.save)


if __name__ == "__main__":
    main()
