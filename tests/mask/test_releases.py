"""A plan names the release it is for, and is not exact if another one is installed that it was not compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.mask import releases
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions, MaskTestOptions
from llmdoctor.mask.test import test_report as mask_test_report
from tests.mask.models import write_config


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this repository, whose constraints.txt pins a release."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return str(write_config(tmp_path, "llama"))


def install(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(releases, "installed_version", lambda _name: version)


def test_another_release_makes_a_plan_undecided(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "4.48.3")
    report = inspect_report(MaskInspectOptions(model=llama, packed="3,5", backend=("sdpa",)))
    assert report.verdict.status == "undecided"
    assert "4.48.3 is installed" in report.verdict.text
    assert not any(layer["exact"] for layer in report.result["layers"])


def test_a_backend_that_another_release_may_support_is_not_surely_refused(
    llama: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "4.48.3")
    report = inspect_report(MaskInspectOptions(model=str(write_config(tmp_path, "bloom")), shape="1,8", backend=("flash_attention_2",)))
    assert "exact: false" in report.verdict.text


def test_a_static_test_is_undecided_too(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "4.48.3")
    report = mask_test_report(MaskTestOptions(model=llama, shape="1,8", static=True, backend=("sdpa",)))
    assert report.verdict.status == "undecided"
    assert report.unanswered


@pytest.mark.parametrize("version", ["known", None])
def test_the_followed_release_or_none_is_exact(version: str | None, llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, releases.followed() if version else None)
    report = inspect_report(MaskInspectOptions(model=llama, packed="3,5", backend=("sdpa",)))
    assert report.verdict.status == "ok"
    assert f"transformers {releases.followed()}" in report.subject["library"]
