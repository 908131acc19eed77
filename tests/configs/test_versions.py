"""Which release an answer is for: every kind of file that pins one, ranges, contradictions, and what the commands make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.check.check import check_report
from llmdoctor.check.options import CheckOptions
from llmdoctor.configs import versions
from llmdoctor.configs.versions import version_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.requirement import parse_requirement
from llmdoctor.files.pins import pins_in
from llmdoctor.gencfg.check import check_report as gencfg_check
from llmdoctor.gencfg.options import GencfgCheckOptions, GencfgOptions
from llmdoctor.gencfg.show import show_report
from llmdoctor.labels import built
from llmdoctor.labels.built import trainer_named
from llmdoctor.mask import releases
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions

KNOWN = ("4.45.2", "4.50.3", "4.57.6", "5.23.0")

FILES = {
    "requirements.txt": ("torch\n# a comment\ntransformers[torch] == 4.50.3 ; python_version >= '3.9'  # why\n-e .\n", 3),
    "requirements-train.txt": ("transformers==4.50.3 \\\n    --hash=sha256:abc\n", 1),
    "requirements/base.in": ("Transformers===4.50.3\n", 1),
    "constraints.txt": ("transformers==4.50.3+cu12\n", 1),
    "pyproject.toml": ('[project]\nname = "a"\n[project.optional-dependencies]\ntrain = [\n  "transformers==4.50.3",\n]\n', 5),
    "setup.cfg": ("[options]\ninstall_requires =\n    torch\n    transformers==4.50.3\n", 4),
    "setup.py": ("from setuptools import setup\nsetup(install_requires=['transformers==4.50.3'])\n", 2),
    "uv.lock": ('version = 1\n[[package]]\nname = "transformers"\nversion = "4.50.3"\n', 4),
    "poetry.lock": ('[[package]]\nname = "transformers"\nversion = "4.50.3"\ndescription = ""\n', 3),
    "Pipfile": ('[packages]\ntransformers = "==4.50.3"\n', 2),
    "Pipfile.lock": (json.dumps({"default": {"transformers": {"version": "==4.50.3"}}}), None),
    "environment.yml": ("dependencies:\n  - python=3.11\n  - conda-forge::transformers=4.50.3=py_0\n", 3),
    "environment.yaml": ("dependencies:\n  - pip:\n    - transformers==4.50.3\n", 3),
    "Dockerfile": ("FROM python:3.11\nARG T=4.50.3\nRUN pip install -U \\\n    'torch' \\\n    transformers==${T} && rm -rf /\n", 3),
    "docker/train.Dockerfile": ("FROM huggingface/transformers-pytorch-gpu:4.50.3\n", 1),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    text, line = FILES[name]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    found = [pin for pin in pins_in(str(tmp_path)) if pin.requirement.name == "transformers"]
    assert [(pin.requirement.exact or "").partition("+")[0] for pin in found] == ["4.50.3"]
    assert found[0].line == line


def test_poetry_and_pixi(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.poetry.dependencies]\npython = "^3.10"\ntransformers = {version = "^4.50", extras = ["torch"]}\n'
        '[tool.poetry.group.dev.dependencies]\ntrl = "0.13.0"\n[tool.pixi.pypi-dependencies]\nvllm = "==0.10.2"\n'
    )
    found = {pin.requirement.name: pin.requirement for pin in pins_in(str(tmp_path))}
    assert found["transformers"].allows("4.57.6")
    assert not found["transformers"].allows("5.0.0")
    assert (found["trl"].exact, found["vllm"].exact) == ("0.13.0", "0.10.2")


@pytest.mark.parametrize(
    ("image", "library", "release"),
    [
        ("vllm/vllm-openai:v0.10.2", "vllm", "0.10.2"),
        ("docker.io/vllm/vllm-openai:v0.8.5.post1@sha256:00", "vllm", "0.8.5.post1"),
        ("lmsysorg/sglang:v0.4.6.post5-cu124", "sglang", "0.4.6.post5"),
        ("ghcr.io/huggingface/text-generation-inference:3.0.0-rocm", "text-generation-inference", "3.0.0"),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b5092", "llama.cpp", "b5092"),
        ("ollama/ollama:0.5.1", "ollama", "0.5.1"),
        ("vllm/vllm-openai:latest", "vllm", None),
        ("python:3.11", "vllm", None),
    ],
)
@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_images(image: str, library: str, release: str | None, name: str, tmp_path: Path) -> None:
    text = f"FROM --platform=linux/amd64 {image} AS serve\n" if name == "Dockerfile" else f"services:\n  a:\n    image: {image}\n"
    (tmp_path / name).write_text(text)
    assert [pin.requirement.exact for pin in pins_in(str(tmp_path)) if pin.requirement.name == library] == [release] * (release is not None)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a>=4.45,<5", "4.57.6", "5.0"),
        ("a~=4.50.1", "4.50.3", "4.51.0"),
        ("a~=4.50", "4.57", "5.0"),
        ("a==4.50.*", "4.50.3", "4.51.0"),
        ("a!=4.50.3", "4.50.2", "4.50.3"),
        ("a (>4, <=4.50.3)", "4.50.3", "4.50.4"),
        ("a[x,y]<5,!=4.57.*", "4.56.0", "4.57.1"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    requirement = parse_requirement(text)
    assert requirement is not None
    assert requirement.exact is None
    assert requirement.allows(inside)
    assert not requirement.allows(outside)


@pytest.mark.parametrize("text", ["", "./local", "a @ https://x/y.whl", "git+https://x/y", "a==", "a>=x", "-r other.txt", "a=>1"])
def test_what_is_no_requirement(text: str) -> None:
    assert parse_requirement(text) is None


def decided(tmp_path: Path, installed: str | None, monkeypatch: pytest.MonkeyPatch, **files: str) -> versions.LibraryVersion:
    monkeypatch.setattr(versions, "installed_version", lambda _: installed)
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return version_of("transformers", known=KNOWN, near=str(tmp_path))


def test_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = decided(tmp_path, None, monkeypatch)
    assert (nothing.version, nothing.basis) == ("5.23.0", "newest")
    installed = decided(tmp_path, "4.46.1", monkeypatch)
    assert (installed.version, installed.basis, installed.pinned, installed.doubts) == ("4.46.1", "installed", None, ())
    allowed = decided(tmp_path, "4.46.1", monkeypatch, requirements="transformers>=4.45")
    assert (allowed.version, allowed.basis) == ("4.46.1", "installed")
    other = decided(tmp_path, "4.46.1", monkeypatch, requirements="transformers>=4.47,<5")
    assert (other.version, other.basis) == ("4.57.6", "pinned")
    assert other.place == "requirements.txt:1 (transformers>=4.47,<5)"
    exact = decided(tmp_path, "4.46.1", monkeypatch, requirements="transformers==4.50.3")
    assert (exact.version, exact.place, exact.how) == (
        "4.50.3",
        "requirements.txt:1",
        "pinned by requirements.txt:1; 4.46.1 is installed here",
    )
    unknown = decided(tmp_path, "4.46.1", monkeypatch, requirements="transformers>=6.1")
    assert unknown.version == "6.1"
    named = version_of("transformers", known=KNOWN, named="4.45.2", near=str(tmp_path))
    assert (named.version, named.basis) == ("4.45.2", "named")


def test_pins_that_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"requirements": "transformers==4.50.3", "requirements-serve": "transformers==4.57.6; sys_platform == 'linux'"}
    found = decided(tmp_path, None, monkeypatch, **files)
    assert found.version == "4.57.6"
    assert found.conflict == ("requirements-serve.txt:1 (4.57.6 if sys_platform == 'linux')", "requirements.txt:1 (4.50.3)")
    assert "undecided for which transformers" in found.doubts[0]
    assert decided(tmp_path, "4.50.3", monkeypatch).version == "4.50.3"
    never = decided(tmp_path, None, monkeypatch, requirements="transformers<4", **{"requirements-serve": "transformers>=5"})
    assert len(never.conflict) == 2
    (tmp_path / "requirements-serve.txt").write_text("")
    old = decided(tmp_path, "4.46.1", monkeypatch, requirements="transformers<4")
    assert "no release known here satisfies requirements.txt:1 (transformers<4)" in old.doubts[0]


def test_a_mask_plan_of_another_release_than_the_pinned_one_is_undecided(repository: Path) -> None:
    report = inspect_report(MaskInspectOptions(model="model", shape="1,4"))
    assert report.verdict.status == "undecided"
    assert "requirements.txt:1 pins transformers 4.50.3" in report.verdict.text
    (repository / "requirements.txt").write_text(f"transformers=={releases.followed()}\n")
    assert "pins" not in inspect_report(MaskInspectOptions(model="model", shape="1,4")).verdict.text


def test_the_nearest_folder_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "packages" / "train"
    inner.mkdir(parents=True)
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "transformers"\nversion = "4.57.6"\n')
    (tmp_path / "packages" / "requirements.txt").write_text("transformers==4.50.3\n")
    assert version_of("transformers", known=KNOWN, near=str(inner)).version == "4.50.3"
    assert version_of("transformers", known=KNOWN, near=str(tmp_path)).version == "4.57.6"
    assert version_of("transformers", known=KNOWN, near="Qwen/Qwen2-0.5B").version == "4.57.6"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Llama without an eos id, which stops by its class's default before transformers 5, in a repository that pins 4.50.3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512}')
    (tmp_path / "requirements.txt").write_text("transformers==4.50.3\n")
    return tmp_path


def test_every_command_answers_for_the_pin(repository: Path) -> None:
    assert repository.exists()
    shown = show_report(GencfgOptions(model="model"))
    assert shown.result["transformers"] == "4.50.3"
    assert "for transformers 4.50.3, which requirements.txt:1 pins" in shown.verdict.text
    checked = gencfg_check(GencfgCheckOptions(paths=("model",)))
    assert checked.verdict.text.endswith("under transformers 4.50.3, which requirements.txt:1 pins")
    assert {finding.code for finding in checked.findings} == {"GEN006"}
    tree = check_report(CheckOptions(paths=(".",)))
    assert "GEN001" not in {finding.code for finding in tree.findings}
    assert tree.result["subjects"][0]["versions"][0]["place"] == "requirements.txt:1"
    named = gencfg_check(GencfgCheckOptions(paths=("model",), transformers="5.23.0"))
    assert "GEN001" in {finding.code for finding in named.findings}


def test_a_pin_older_than_every_known_release(repository: Path) -> None:
    (repository / "requirements.txt").write_text("transformers==4.30.0\n")
    tree = check_report(CheckOptions(paths=(".",)))
    assert "which requirements.txt:1 pins" in tree.skipped[0].reason


def test_labels_follow_the_pinned_trl(repository: Path) -> None:
    trainer = trainer_named("trl-sft")
    (repository / "requirements.txt").write_text(f"trl=={trainer.versions[0]}\n")
    rules, stated, limits = built._version_of(trainer, "", "model")
    assert (stated, ".".join(map(str, rules))) == (trainer.versions[0], trainer.versions[0])
    assert f"for trl {trainer.versions[0]}, which requirements.txt:1 pins" in limits
    (repository / "requirements.txt").write_text("trl==0.0.1\n")
    with pytest.raises(QuestionError, match=r"which requirements\.txt:1 pins"):
        built._version_of(trainer, "", "model")
