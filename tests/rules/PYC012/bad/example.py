print model.generate(input_ids, do_sample=True)
