model.generate(**batch, do_sample=False, temperature=0.0, top_p=1.0, top_k=50)
model.generate(**batch, do_sample=sample, temperature=0.7)
model.generate(**batch, do_sample=True, temperature=0.7)
