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
    "gencfg presets": """
report = llmdoctor.gencfg_presets(name="trl-ppo@1.0.0")
print(report)
""",
    "look": """
report = llmdoctor.look_at(path="chat")
print(report.verdict.text)
""",
    "env": """
print(llmdoctor.environment().to_text(width=100))
""",
}
