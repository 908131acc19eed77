"""docs/extending.md and conformance/README.md as written: each command exists, and the one that adds a release keeps what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import transformers

from conformance import conform, make_defaults, make_model_types

ROOT = Path(__file__).parents[2]
PAGES = ("docs/extending.md", "conformance/README.md")
COMMAND = re.compile(r"python (conformance/\w+\.py)((?: [^`\n|]*)?)")
NEW = "90.1.0"


def commands() -> list[tuple[str, str]]:
    """Each documented script with the arguments that are documented for it."""
    return sorted({(script, arguments.strip()) for page in PAGES for script, arguments in COMMAND.findall((ROOT / page).read_text())})


@pytest.mark.parametrize(("script", "arguments"), commands())
def test_a_documented_command_exists_with_its_options(script: str, arguments: str) -> None:
    source = (ROOT / script).read_text()
    for option in re.findall(r"--[\w-]+", arguments):
        assert f'"{option}"' in source, f"{script} has no option {option}"


def test_the_pages_name_the_one_command() -> None:
    for page in PAGES:
        assert "python conformance/conform.py --write 5.24.0" in (ROOT / page).read_text()


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A copy of the project in which the documented command added a release whose wheel and rows are already in its home."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("conformance", "llmdoctor", "tests/gencfg/data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    home = copy / "home"
    (home / "wheels").mkdir(parents=True)
    library = Path(transformers.__file__).parent
    with zipfile.ZipFile(home / "wheels" / f"transformers-{NEW}-py3-none-any.whl", "w") as wheel:
        for name in (make_defaults.FILE, *(f"{make_model_types.AUTO}{file}" for file in ("configuration_auto.py", "auto_mappings.py"))):
            if (path := library.parent / name).exists():
                wheel.write(path, name)
    defaults, rows = conform.stored("5.24.0")
    lines: list[dict[str, Any]] = [{"version": NEW, "defaults": defaults}, *({**row, "version": NEW} for row in rows)]
    (home / f"{NEW}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "conformance/conform.py", "--write", NEW, "--reuse", "--home", str(home)]
    return copy, subprocess.run(command, check=False, cwd=copy, capture_output=True, text=True)


def test_the_command_adds_a_release_and_keeps_the_others(added: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    copy, done = added
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"{NEW}: (\d+) of \1 agree", done.stdout)
    for name, kept in (("library.json", "versions"), ("model_types.json", "always")):
        before, after = (json.loads((root / "llmdoctor/gencfg" / name).read_text()) for root in (ROOT, copy))
        assert [entry for entry in after[kept] if entry != NEW] == before[kept]
    rows = (copy / "tests/gencfg/data/conformance.jsonl").read_text().splitlines()
    assert set(json.loads(rows[0])["defaults"]) == {
        NEW,
        *json.loads((ROOT / "tests/gencfg/data/conformance.jsonl").read_text().splitlines()[0])["defaults"],
    }
    counted = [entry for entry in json.loads((copy / "conformance/compared.json").read_text()) if entry["release"] == NEW]
    assert [entry["agreed"] for entry in counted] == [entry["compared"] for entry in counted] != []


def test_a_difference_has_a_status(added: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    copy, _ = added
    rows = copy / "home" / f"{NEW}.jsonl"
    rows.write_text(rows.read_text().replace('"pad": 143', '"pad": 142', 1))
    done = subprocess.run(
        [sys.executable, "conformance/conform.py", NEW, "--reuse", "--home", str(rows.parent)],
        check=False,
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pad: 143 instead of 142" in done.stdout


def test_model_types_are_added_and_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "model_types.json"
    table.write_text(make_model_types.OUT.read_text())
    monkeypatch.setattr(make_model_types, "OUT", table)
    before = json.loads(table.read_text())
    entries = ", ".join(f'("{name}", "X")' for name in [*before["always"], "brand_new"])
    for version in (NEW, "4.50.0"):
        with zipfile.ZipFile(tmp_path / f"transformers-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{make_model_types.AUTO}configuration_auto.py", f"CONFIG_MAPPING_NAMES = OrderedDict([{entries}])")
    make_model_types.add([NEW], tmp_path)
    after = json.loads(table.read_text())
    assert after["types"] == {**before["types"], "brand_new": ["90.1", None]}
    assert after["always"] == before["always"]
    with pytest.raises(SystemExit, match="it is as it was"):
        make_model_types.add(["4.50.0"], tmp_path)
    assert json.loads(table.read_text()) == after
