"""Hostile arguments: names that no file system takes, and characters that a terminal obeys. One sentence, exit 2, in every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.harness import UNSAFE, harnessed, run

LONG = "a" * 3000
COMMANDS = (
    "gencfg show {}", "gencfg diff {} {}", "gencfg check {}", "gencfg runaway {}", "gencfg presets {}", "gencfg trace --summary {}",
    "gencfg trace -o {}.jsonl -- true", "mask inspect {}", "mask test {} --static", "mem compare {} --strategy x --static", "mem kvcache {}",
    "mem oom {}", "mem fit {} --strategy x --gpu-memory 1GiB", "mem measure --summary {}", "mem measure -o {}.jsonl -- true", "sample replay {}",
    "sample compare {} {}", "sample engines --logits {}", "sample draw --probs .5,.5 --output {}.npy", "labels inspect {} {}", "labels audit {} {}",
    "labels inspect . -o {}.jsonl -- true", "prompt diff . --messages {}", "check {}", "check --baseline {}", "check --write-baseline {}",
    "look {}", "rule {}", "env -f json:{}", "env {}", "env --{}", "mem kvcache . --batch {}", "{}", "mem {}",
)  # fmt: skip


@pytest.mark.parametrize("argument", [LONG, "\u202eevil\x1b[2J\udcff", "x\x00y"], ids=["too long", "control characters", "NUL"])
def test_an_argument_is_refused_in_a_short_harmless_sentence(argument: str, tmp_path: Path) -> None:
    with harnessed(tmp_path):
        for command in COMMANDS:
            if argument != LONG and (".jsonl -- " in command or "--write-baseline" in command or command.endswith((".npy", "json:{}"))):
                continue  # a file of that name can be written
            outcome = run(tuple(command.replace("{}", argument).split(" ")))
            assert outcome.code == 2, (command, outcome.err)
            assert len(outcome.err) < 2_000, command
            assert UNSAFE.search(outcome.err) is None, command
            assert "internal fault" not in outcome.err
    assert list(tmp_path.iterdir()) == []
