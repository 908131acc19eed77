def rollout(model, ids):
    out = model.generate(input_ids=ids, do_sample=True, max_new_tokens=64)
    logits = model(out).logits[:, :-1]
    return F.log_softmax(logits, dim=-1)
