"""Files that pin releases are read for every command: none of them takes long, whatever is in it and however large it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmdoctor.configs.versions import version_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import is_version
from llmdoctor.files.pins import pins_in

SIZE = 2**19
WORST = {
    "uv.lock": "".join(f'[[package]]\nname = "p{number}"\nversion = "1.0"\n' for number in range(150_000)),
    "pyproject.toml": "[project]\ndependencies = [\n" + "".join(f'"a=={number}",\n' for number in range(40_000)) + "]\n",
    "requirements.txt": "\\\n" * (SIZE // 2),
    "constraints.txt": "a" + "[" * (SIZE - 9),
    "setup.py": '"a' * (SIZE // 2),
    "setup.cfg": "[options]\ninstall_requires =\n" + " a==1\n" * (SIZE // 7),
    "Dockerfile": "ARG A0=xxxxxxxx\n"
    + "".join(f"ARG A{at + 1}=${{A{at}}}${{A{at}}}\n" for at in range(60))
    + "FROM vllm/vllm-openai:$A60\n",
    "compose.yaml": " " * (SIZE - 1),
    "docker-compose.yml": "image: a\n" * (SIZE // 9),
    "backend.dockerfile": "RUN " + "pip " * (SIZE // 4 - 9) + "install\n",
    "long.dockerfile": "RUN pip install " + "a=='" * (SIZE // 4 - 9),
    "environment.yml": "dependencies:\n" + "".join(f"- a={number}\n" for number in range(20_000)),
    "Pipfile.lock": '{"default": {' + ",".join(f'"p{number}": {{"version": "==1.0"}}' for number in range(300_000)) + "}}",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", WORST)
def test_the_worst_content_of_each_kind_is_read_in_time(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(WORST[name])
    assert all(len(pin.requirement.text) <= SIZE for pin in pins_in(str(tmp_path)))


@pytest.mark.timeout(5)
def test_what_is_no_regular_file_pins_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")
    (tmp_path / "pyproject.toml").symlink_to("pyproject.toml")
    (tmp_path / "setup.cfg").mkdir()
    (tmp_path / "constraints.txt").symlink_to("/dev/zero")
    assert pins_in(str(tmp_path)) == ()


@pytest.mark.parametrize("version", ["[[[", "1e999", "9" * 65, "latest", "1.0\x1b[2J", ""])
def test_what_is_no_version_pins_nothing_and_is_refused_as_an_option(version: str, tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(f'[[package]]\nname = "transformers"\nversion = "{version}"\n')
    assert [pin for pin in pins_in(str(tmp_path)) if not is_version(pin.requirement.exact or "")] == []
    with pytest.raises(QuestionError, match="not a version"):
        version_of("deepspeed", known=("0.19.8",), named=version)
