model.generate(**batch, do_sample=False, temperature=0.7)
settings = {'do_sample': False, 'top_p': 0.9}
