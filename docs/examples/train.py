from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer


def train(path, texts):
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(path)
    data = [tokenizer(text + tokenizer.eos_token) for text in texts]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    Trainer(model, train_dataset=data, data_collator=collator).train()
