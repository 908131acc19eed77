"""The examples of docs/api.md by command. tests/core/test_api.py runs each of them beside the inputs of tests/cli/screens.py."""

from __future__ import annotations

EXAMPLES = {
    "gencfg show": """
report = llmdoctor.gencfg_show(model="chat", sets=["temperature=0.7"])
assert report.result["stop"]["never_stops"] is False
""",
    "gencfg diff": """
report = llmdoctor.gencfg_diff(left="chat", right="chat", right_presets="trl-ppo@1.0.0")
assert report.result["runaway"] == {"left": False, "right": True}
""",
    "gencfg check": """
report = llmdoctor.gencfg_check(paths=["chat", "endless"])
assert [finding.code for finding in report.findings if finding.severity == "error"] == ["GEN001"]
""",
    "gencfg trace": """
report = llmdoctor.gencfg_trace(path="train.jsonl")
print(report.verdict.text)
""",
    "gencfg runaway": """
report = llmdoctor.gencfg_runaway(path="outputs.jsonl", model="chat")
print(report.verdict.text)
""",
    "gencfg presets": """
report = llmdoctor.gencfg_presets(name="trl-ppo@1.0.0")
print(report)
""",
    "mask inspect": """
report = llmdoctor.mask_inspect(model="gemma2", lengths="5,8")
for layers in report.result["layers"]:
    print(layers["layers"], layers["backend"], layers["visible"], layers["total"])
""",
    "mask test": """
report = llmdoctor.mask_test(model="qwen2_vl", packed="3,5", static=True)
print(report.verdict.text)
""",
    "mem compare": """
report = llmdoctor.mem_compare(model="llama-sized", strategy=["trainer:adamw_torch,bf16", "deepspeed:zero2"], static=True)
for strategy in report.result["strategies"]:
    print(strategy["name"], strategy["peak_bytes"])
""",
    "mem measure": """
report = llmdoctor.mem_measure(model="llama-sized", strategy="trainer:adamw_torch", seq_len=8, steps=2)
print(report)
""",
    "mem fit": """
report = llmdoctor.mem_fit(model="llama-sized", strategy="trainer:adamw_torch,bf16", gpu_memory="64GiB", seq_len=64)
print(report.verdict.text)
""",
    "mem oom": """
report = llmdoctor.mem_oom(log="train.log")
print(report.verdict.text)
""",
    "mem kvcache": """
report = llmdoctor.mem_kvcache(model="llama-sized", batch=2, length=100, cache="static:4096")
print(report.result["kvcache"]["allocated_bytes"])
""",
    "sample replay": """
report = llmdoctor.sample_replay(logits="logits.npy", tokens="tokens.json", engine="transformers", temperature=1.0, top_p=0.7)
assert report.result["verdict"] == "inconsistent"
""",
    "sample compare": """
report = llmdoctor.sample_compare(trainer="trainer.json", engine="engine.json")
print(report.verdict.text)
""",
    "sample engines": """
report = llmdoctor.sample_engines(logits="4,3,2.5,2,1,0", temperature=0.7, top_p=0.9)
print(sorted(report.result["engines"]))
""",
    "sample draw": """
report = llmdoctor.sample_draw(probs=".5,.3,.2", count=300)
print(report.verdict.text)
""",
    "check": """
report = llmdoctor.check_tree(paths="endless")
assert [finding.code for finding in report.findings if finding.severity == "error"] == ["GEN001"]
""",
    "prompt diff": """
report = llmdoctor.prompt_diff(model="tokenizer", messages="messages.json", left="trl-sft", right="vllm")
print(report.verdict.text)
""",
    "look": """
report = llmdoctor.look_at(path="chat")
print(report.verdict.text)
""",
    "rule": """
report = llmdoctor.explain_rule(code="GEN001")
print(report.result["rules"][0]["reason"])
""",
    "labels inspect": """
report = llmdoctor.labels_inspect(model="tokenizer", data="rows.jsonl", trainer="trl-sft")
print(report.verdict.text)
""",
    "labels audit": """
report = llmdoctor.labels_audit(model="tokenizer", data="rows.jsonl", trainer="trl-sft")
print(report.verdict.text)
""",
    "env": """
print(llmdoctor.environment().to_text(width=100))
""",
}
