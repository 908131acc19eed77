"""A user's inference script: one picture, described by a Qwen2-VL with sampling parameters of their own.

python infer.py MODEL_DIR
"""

import argparse

import torch
from PIL import Image, ImageDraw
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, GenerationConfig, Qwen2VLForConditionalGeneration


def main() -> None:
    """Describe a red square."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration.from_pretrained(options.model_dir).eval()
    processor = AutoProcessor.from_pretrained(options.model_dir)

    image = Image.new("RGB", (112, 84), "white")
    ImageDraw.Draw(image).rectangle((36, 22, 76, 62), fill=(200, 30, 30))
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Describe this image."}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos = process_vision_info(messages)
    inputs = processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt").to(model.device)

    generation_config = GenerationConfig(
        max_new_tokens=64,
        temperature=1.0,
        top_k=0.0,
        top_p=1.0,
        do_sample=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    output = model.generate(**inputs, generation_config=generation_config)
    new = output.sequences[0, inputs["input_ids"].shape[1] :]
    print(len(new), "new tokens")
    print(processor.decode(new))


if __name__ == "__main__":
    main()
