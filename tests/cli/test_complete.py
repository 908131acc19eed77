"""What a shell completes, asked as bash asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def completed(line: str) -> set[str]:
    """The words that bash offers at the end of `line`."""
    words = line.split(" ")
    env = {
        **os.environ,
        "_LLMDOCTOR_COMPLETE": "complete_bash",
        "COMP_WORDS": line.replace(" ", "\n"),
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; sys.argv = ['llmdoctor']; from llmdoctor.cli.main import main; main()"
    return set(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False).stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llmdoctor gen", "gencfg"),
        ("llmdoctor gencfg show model --preset trl-p", "trl-ppo"),
        ("llmdoctor gencfg presets trl-g", "trl-grpo"),
        ("llmdoctor gencfg show model --engine v", "vllm"),
        ("llmdoctor sample replay x --engine sg", "sglang"),
        ("llmdoctor check --format sar", "sarif"),
        ("llmdoctor check --select GEN00", "GEN001"),
        ("llmdoctor rule MS", "MSK001"),
        ("llmdoctor labels inspect m d --trainer ax", "axolotl"),
        ("llmdoctor check --fail-on w", "warning"),
    ],
)
def test_names_complete(line: str, offered: str) -> None:
    assert offered in completed(line)


def test_nothing_is_offered_for_what_does_not_exist() -> None:
    assert completed("llmdoctor check --format xyz") == set()
