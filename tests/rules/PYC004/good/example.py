import torch
import torch.nn.functional as F

greedy = model.generate(**batch, do_sample=False, output_scores=True, return_dict_in_generate=True)
a = F.log_softmax(torch.stack(greedy.scores, 1), dim=-1)
outputs = model.generate(**batch, output_logits=True, return_dict_in_generate=True)
b = F.log_softmax(torch.stack(outputs.logits, 1), dim=-1)
c = F.log_softmax(self.scores, dim=-1)
