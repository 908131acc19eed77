def load(path):
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.padding_side = "right"
    return model_of(path), tokenizer


def main(prompts):
    model, tokenizer = load("model")
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    model.generate(**batch)


def answer(model, tok, prompts):
    batch = tok(prompts, padding=True, return_tensors="pt")
    return model.generate(**batch)


def run(prompts):
    tokenizer = AutoTokenizer.from_pretrained("model", padding_side="right")
    return answer(model, tokenizer, prompts)
