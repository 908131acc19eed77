tokenizer.padding_side = "right"
train(tokenizer)
tokenizer.padding_side = "left"
batch = tokenizer(prompts, padding=True, return_tensors="pt")
model.generate(**batch)
