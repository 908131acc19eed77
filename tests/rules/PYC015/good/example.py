def rollout(model, ids):
    out = model.generate(input_ids=ids, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    return F.log_softmax(model(out).logits, dim=-1)


def greedy(model, ids):
    out = model.generate(input_ids=ids, do_sample=False)
    return F.log_softmax(model(out).logits, dim=-1)


def other(model, ids):
    out = model.generate(input_ids=ids, do_sample=True, output_logits=True, return_dict_in_generate=True)
    return F.log_softmax(out.logits[0], dim=-1)
