print(model.generate(input_ids, do_sample=True, temperature=0.7))
