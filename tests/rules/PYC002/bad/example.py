tokenizer.pad_token = tokenizer.eos_token
attention_mask = (input_ids != tokenizer.pad_token_id).long()


def f(self, input_ids):
    pad = self.tokenizer.pad_token_id
    return self.model(input_ids=input_ids, attention_mask=input_ids.ne(pad))
