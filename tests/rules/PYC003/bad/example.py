import torch

attention_mask = query_responses != pad
input_ids = torch.masked_fill(query_responses, ~attention_mask, 0)
input_ids = input_ids.masked_fill(attention_mask == 0, 0)
