def load(path):
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right")
    tokenizer.padding_side = "left"
    return tokenizer


def main(prompts):
    tokenizer = load("model")
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    model.generate(**batch)


def answer(model, tok, prompts):
    batch = tok(prompts, padding=True, return_tensors="pt")
    return model.generate(**batch)


def left(prompts):
    tokenizer = AutoTokenizer.from_pretrained("model", padding_side="left")
    return answer(model, tokenizer, prompts)


def right(prompts):
    tokenizer = AutoTokenizer.from_pretrained("model", padding_side="right")
    return answer(model, tokenizer, prompts)
