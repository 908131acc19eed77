import torch
import torch.nn.functional as F

outputs = model.generate(**batch, do_sample=True, output_scores=True, return_dict_in_generate=True)
logits = torch.stack(outputs.scores, 1)
logprobs = F.log_softmax(logits, dim=-1)
first = [torch.log_softmax(score.float(), -1) for score in outputs.scores]
