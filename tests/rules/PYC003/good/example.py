position_ids = position_ids.masked_fill(attention_mask == 0, 0)
embedded = embed(input_ids.masked_fill(image_mask, 0))
ids = input_ids.masked_fill(~attention_mask, pad_token_id)
logits = logits.masked_fill(~attention_mask, 0)
