"""Hub ids in a cache folder, laid out as huggingface_hub does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.hub import cache_folder, find_snapshot, looks_like_id


def fill(cache: Path, name: str = "org/model", commit: str = "abc123", ref: str | None = "main") -> Path:
    """A snapshot whose files are links into blobs."""
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "blobs" / commit).write_text('{"eos_token_id": 5}')
    (snapshot / "generation_config.json").symlink_to(f"../../blobs/{commit}")
    if ref is not None:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_where_the_cache_lies(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == str(cache)
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert cache_folder() == os.path.expanduser("~/hf/hub")
    monkeypatch.delenv("HF_HOME")
    assert cache_folder() == os.path.expanduser("~/.cache/huggingface/hub")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == "/x/huggingface/hub"


def test_agrees_with_the_real_library(cache: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    fill(cache)
    fill(cache, "single", "fff")
    for name in ("org/model", "single", "org/other"):
        real = hub.try_to_load_from_cache(name, "generation_config.json", cache_dir=str(cache))
        ours = find_snapshot(name)
        assert (None if ours is None else f"{ours}/generation_config.json") == real


def test_revisions(cache: Path) -> None:
    fill(cache)
    fill(cache, commit="def456", ref="refs/pr/1")
    assert (find_snapshot("org/model") or "").endswith("abc123")
    assert (find_snapshot("org/model@main") or "").endswith("abc123")
    assert (find_snapshot("org/model@def456") or "").endswith("def456")
    assert (find_snapshot("org/model@refs/pr/1") or "").endswith("def456")
    assert find_snapshot("org/model@v2") is None


def test_a_model_of_the_cache_is_read_through_its_links(cache: Path) -> None:
    fill(cache)
    directory = read_model_dir("org/model")
    assert directory.shown_name == "org/model"
    assert directory.generation_config is not None
    assert directory.generation_config.value == {"eos_token_id": 5}
    assert list(directory.problems()) == []


def test_a_local_directory_comes_before_the_cache(cache: Path, tmp_path: Path) -> None:
    fill(cache)
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text('{"eos_token_id": 6}')
    assert read_model_dir("org/model").generation_config is None


def test_what_is_missing_says_where_it_looked(cache: Path) -> None:
    with pytest.raises(QuestionError, match=f"org/model: .*hub cache at {cache}; nothing is downloaded"):
        read_model_dir("org/model")
    with pytest.raises(QuestionError, match="no such file or directory"):
        read_model_dir("./nowhere")


@pytest.mark.parametrize(
    "name", ["../x", "org/../x", "org/model/more", "/etc", "org//model", "org/model@../../x", "-x", "", "a b", "a\nb", "x" * 300]
)
def test_what_is_no_id(name: str, cache: Path) -> None:
    assert not looks_like_id(name)
    with pytest.raises(QuestionError):
        read_model_dir(name or "\0")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("content", [b"../../../etc", b"..", b"", b"\xff\xfe", b"x" * 5000, None])
def test_a_hostile_ref(content: bytes | None, cache: Path) -> None:
    fill(cache)
    ref = cache / "models--org--model" / "refs" / "main"
    ref.unlink()
    if content is None:
        os.mkfifo(ref)
    else:
        ref.write_bytes(content)
    assert find_snapshot("org/model") is None
