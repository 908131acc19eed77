model.generate(**batch, do_sample=True, temperature=2.0, top_k=0)
model.generate(**batch, do_sample=True, temperature=1, top_k=0.0)
model.generate(**batch, do_sample=False, temperature=0)
params = SamplingParams(temperature=0, top_k=-1)
body = {'do_sample': True, 'top_k': -1}
