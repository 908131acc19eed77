import vllm
from vllm import LLM, SamplingParams

llm = LLM(model="model")
llm.generate(prompts, SamplingParams(temperature=0.8, max_tokens=512))
params = SamplingParams(temperature=0.8)
params.max_tokens = 512
llm.generate(prompts, sampling_params=params)
llm.generate(prompts, vllm.SamplingParams(**settings))
LLM(model="model", runner="pooling").encode(prompts)
