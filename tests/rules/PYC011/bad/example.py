batch = tokenizer(prompts, padding=True, return_tensors="pt")
model.generate(batch.input_ids)
ids = batch['input_ids'].to(device)
model.generate(input_ids=ids, do_sample=False)
