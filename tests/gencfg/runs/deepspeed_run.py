"""A user's DeepSpeed script: a ZeRO engine around the model, and a generate() of the module inside it on every process.

deepspeed --num_gpus 2 deepspeed_run.py MODEL_DIR
"""

import argparse
import sys

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoTokenizer, GenerationConfig, Qwen2VLForConditionalGeneration

PROMPTS = ("Describe this image.", "Describe this picture.")
SETTINGS = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 1}}


def main() -> None:
    """Answer this rank's prompt."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("--local_rank", type=int, default=0)  # the launcher passes it
    options = parser.parse_args()

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo alone will do: nothing is compiled
    deepspeed.init_distributed(dist_backend="gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    tokenizer = AutoTokenizer.from_pretrained(options.model_dir)
    model = Qwen2VLForConditionalGeneration.from_pretrained(options.model_dir)
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-6), config=SETTINGS)
    engine.eval()
    messages = [{"role": "user", "content": PROMPTS[rank % len(PROMPTS)]}]
    inputs = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), return_tensors="pt")
    generation_config = GenerationConfig(max_new_tokens=64, temperature=1.0, top_k=0.0, top_p=1.0, do_sample=True)
    output = engine.module.generate(**inputs.to(engine.device), generation_config=generation_config)
    new = output[0, inputs["input_ids"].shape[1] :]
    dist.barrier()
    # One write a line: the processes share one standard output.
    sys.stdout.write(f"rank {rank} of {dist.get_world_size()}: {len(new)} new tokens: {tokenizer.decode(new)!r}\n")
    sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
