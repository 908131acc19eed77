"""The SMP rules: declarations only."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

IMPOSSIBLE = Rule(
    code="SMP001",
    name="impossible-token",
    severity=Severity.ERROR,
    summary="A token was drawn that the claimed settings cannot draw.",
    reason="Under top_k, top_p or min_p most tokens have probability zero. One such token proves that other settings, another engine's order of stages or another "
    "sampler was at work, and a policy ratio made from the claimed log-probabilities divides by zero there. What lies outside by less than the tolerance "
    "is not counted: teacher forcing in bfloat16 moves the edge of a nucleus by up to .02.",
    bad='{"engine": "transformers", "top_p": 0.9}   and a token with mass .97 before it',
    good='{"engine": "transformers", "top_p": 1.0}   and the same token',
    fix="Claim what was really set: llmdoctor sample replay names the engine and the numbers that fit; --step N shows the step that proves it.",
)
OTHER = Rule(
    code="SMP002",
    name="other-distribution",
    severity=Severity.ERROR,
    summary="Every token is possible, but together they cannot be draws from the claimed distribution.",
    reason="The temperature differs, a cut is narrower than claimed, or the sampler is broken. No single token shows that; all of them together do. A "
    "trainer that takes the claimed log-probabilities for the behaviour policy's learns from wrong weights in every step.",
    bad='{"temperature": 1.0}   and 400 tokens drawn at 0.5',
    good='{"temperature": 0.5}   and the same tokens',
    fix="Look at the estimates and at the settings that fit; hidden defaults of generation_config.json are a frequent reason (sample engines --model DIR).",
)
BROKEN = Rule(
    code="SMP003",
    name="known-broken-sampler",
    severity=Severity.ERROR,
    summary="The draws follow the law of a sampler that is known to be broken.",
    reason="A loop that draws a fresh random number for each key and lets the last that passes win does not draw from the distribution: of .5 .4 .1 it makes .27 "
    '.36 .37, and the order of the keys changes it. Temperature on probabilities, a token 0 that is taken for "nothing chosen" and a nucleus one token short are '
    "other faults that a few samples do not show.",
    bad="for token in probs:\n    if random() <= probs[token]:\n        chosen = token",
    good="chosen = rng.choices(list(probs), weights=list(probs.values()))[0]",
    fix="Draw once: one random number against the cumulative sum (numpy.random.Generator.choice, torch.multinomial).",
)
KIND = Rule(
    code="SMP004",
    name="logprobs-of-another-kind",
    severity=Severity.WARNING,
    summary="The recorded log-probabilities are not those that a ratio against the raw model needs.",
    reason="transformers' scores and TGI's are processed, SGLang's divided by the temperature, vLLM's raw by default. exp(new - old) of two kinds is not 1 for an "
    "unchanged policy: under truncation its mean is the kept mass, and KL by k3 hides that where k1 shows it.",
    bad="torch.log_softmax(output.scores[t], -1)   with temperature=0.7, top_p=0.9",
    good="torch.log_softmax(output.logits[t], -1)   with output_logits=True",
    fix="Use the same kind on both sides: raw logits on both, or the same temperature and the engine's sampling mask on both.",
)
DEFAULTS = Rule(
    code="SMP005",
    name="hidden-sampling-defaults",
    severity=Severity.INFO,
    summary="generation_config.json sets how tokens are drawn, for every caller that does not set it.",
    reason="generate() without arguments, and every request to vLLM that leaves a setting out (--generation-config auto, the default since 0.8), draws with the file's "
    "temperature, top_k, top_p, min_p and repetition_penalty, not with the library's. Log-probabilities of such draws are not the model's own: a repetition_penalty "
    "or a top_k of 20 makes an unchanged policy's ratio differ from 1.",
    bad='generation_config.json {"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}',
    good='sampling_params = {"temperature": 1.0, "top_k": -1, "top_p": 1.0, "repetition_penalty": 1.0}   set by the caller',
    fix="Nothing needs to change in the file. If draws are compared or trained on, set every one of these in the call, or start vLLM with --generation-config vllm.",
)
TAKEN = Rule(
    code="SMP006",
    name="request-takes-hidden-defaults",
    severity=Severity.WARNING,
    summary="A request leaves out settings that its model's generation_config.json then brings in.",
    reason="The recorded request sets temperature 1, but the answers were drawn with top_k 20 and a repetition_penalty of 1.1: anyone who computes log-probabilities "
    "or compares two models from the request alone computes another distribution. Since vLLM 0.8 this happens without a flag.",
    bad='request {"model": "./model", "temperature": 0.7}\n./model/generation_config.json {"top_k": 20, "repetition_penalty": 1.1}',
    good='request {"model": "./model", "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}',
    fix="Write the settings into the request, with the values that you want.",
)
SIDES = Rule(
    code="SMP007",
    name="sides-disagree",
    severity=Severity.ERROR,
    summary="Trainer and engine give different log-probabilities for the same tokens.",
    reason="A policy ratio exp(trainer - engine) of an unchanged policy is 1. If the two sides differ, every update is weighted wrongly: PPO clips tokens that did not "
    "change, importance sampling corrects for a policy that was never used. The usual causes are raw against temperature-scaled log-probabilities, a cut (top_p, "
    "top_k) on one side, labels shifted by one token, padding that is counted, and weights that were not updated.",
    bad="trainer: log_softmax(logits / 0.6)   engine: log_softmax(logits)   for the same tokens",
    good="trainer: log_softmax(logits / 0.6)   engine: log_softmax(logits / 0.6)",
    fix="llmdoctor sample compare TRAINER ENGINE names the cause and the setting to change.",
)
RULES = declared(globals())
