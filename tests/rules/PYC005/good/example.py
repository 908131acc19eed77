from transformers import DataCollatorForLanguageModeling

tokenizer.pad_token = tokenizer.eos_token
masked = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=True)
other = DataCollatorForLanguageModeling(tokenizer=bert_tokenizer, mlm=False)
labels[attention_mask == 0] = -100
