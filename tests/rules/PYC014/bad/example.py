from vllm import LLM, SamplingParams

llm = LLM(model="model")
llm.generate(prompts, SamplingParams(temperature=0.8, top_p=0.95))


def chat(messages):
    return llm.chat(messages)
