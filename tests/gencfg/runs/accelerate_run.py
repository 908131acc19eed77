"""A user's Accelerate script: the prepared model, unwrapped, answers a prompt on every process.

accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no accelerate_run.py MODEL_DIR

On CPUs accelerate starts more than one process only through MPI.
"""

import sys

import torch
from accelerate import Accelerator
from transformers import AutoTokenizer, GenerationConfig, Qwen2VLForConditionalGeneration

PROMPTS = ("Describe this image.", "Describe this picture.")


def main(model_dir: str) -> None:
    """Answer this process's prompt."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    torch.manual_seed(rank)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = accelerator.prepare(Qwen2VLForConditionalGeneration.from_pretrained(model_dir)).eval()
    messages = [{"role": "user", "content": PROMPTS[rank % len(PROMPTS)]}]
    inputs = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), return_tensors="pt")
    generation_config = GenerationConfig(max_new_tokens=64, temperature=1.0, top_k=0.0, top_p=1.0, do_sample=True)
    output = accelerator.unwrap_model(model).generate(**inputs.to(accelerator.device), generation_config=generation_config)
    new = output[0, inputs["input_ids"].shape[1] :]
    accelerator.wait_for_everyone()
    # One write a line: the processes share one standard output.
    sys.stdout.write(f"rank {rank} of {accelerator.num_processes}: {len(new)} new tokens: {tokenizer.decode(new)!r}\n")
    sys.stdout.flush()
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
