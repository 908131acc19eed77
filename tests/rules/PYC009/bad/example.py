model.generate(**batch, do_sample=True, temperature=2, top_k=-1)
settings = dict(do_sample=True, top_k=50.0)
