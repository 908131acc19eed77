tokenizer.padding_side = "right"
batch = tokenizer(prompts, padding=True, return_tensors="pt")
model.generate(**batch)
