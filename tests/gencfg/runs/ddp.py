"""A user's distributed script: every process of a gloo group answers a prompt of its own.

torchrun --nproc_per_node 2 ddp.py MODEL_DIR
"""

import sys

import torch
import torch.distributed as dist
from transformers import AutoTokenizer, GenerationConfig, Qwen2VLForConditionalGeneration

PROMPTS = ("Describe this image.", "Describe this picture.")


def main(model_dir: str) -> None:
    """Answer this rank's prompt."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    model = Qwen2VLForConditionalGeneration.from_pretrained(model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    messages = [{"role": "user", "content": PROMPTS[rank % len(PROMPTS)]}]
    inputs = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), return_tensors="pt")
    generation_config = GenerationConfig(max_new_tokens=64, temperature=1.0, top_k=0.0, top_p=1.0, do_sample=True)
    output = model.generate(**inputs, generation_config=generation_config)
    new = output[0, inputs["input_ids"].shape[1] :]
    dist.barrier()
    # One write a line: the processes share one standard output.
    sys.stdout.write(f"rank {rank}: {len(new)} new tokens: {tokenizer.decode(new)!r}\n")
    sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
