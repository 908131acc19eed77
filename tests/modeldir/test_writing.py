"""The one writer: all or nothing, never through a planted link, and a file that is fixed keeps what belongs to it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.files import writing
from llmdoctor.files.writing import replacing, rewrite_file, write_file


def test_a_planted_link_is_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(writing.secrets, "token_hex", lambda count: "guessed")
    (tmp_path / ".guessed.partial").symlink_to(victim)
    with pytest.raises(QuestionError, match=r"cannot write .*out\.txt"):
        write_file(tmp_path / "out.txt", "theirs")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "out.txt").exists()


def test_a_link_with_the_target_s_name_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out.txt").symlink_to(victim)
    write_file(tmp_path / "out.txt", "theirs")
    assert (victim.read_text(), (tmp_path / "out.txt").read_text()) == ("mine", "theirs")


def _half_written(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_nothing_is_left_of_a_block_that_raises(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(QuestionError, match="No space left"):
        _half_written(tmp_path / "out")
    assert (sorted(path.name for path in tmp_path.iterdir()), (tmp_path / "out").read_text()) == (["out"], "old")


@pytest.mark.parametrize("name", ["a" * 300, "no/such/folder/out", "folder"])
def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(QuestionError, match="cannot write"):
        write_file(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    write_file(Path("/dev/null"), "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_fixed_file_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b"old")
    file.chmod(0o640)
    rewrite_file(file, b"old", b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o640)


def test_a_fixed_file_keeps_its_extended_attributes(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b"old")
    try:
        os.setxattr(file, "user.origin", b"hub")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    rewrite_file(file, b"old", b"new")
    assert os.getxattr(file, "user.origin") == b"hub"


def test_a_file_with_hard_links_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b"old")
    os.link(file, tmp_path / "other")
    with pytest.raises(QuestionError, match="hard links"):
        rewrite_file(file, b"old", b"new")
    assert (file.read_bytes(), (tmp_path / "other").read_bytes()) == (b"old", b"old")


def test_a_file_whose_owner_cannot_be_kept_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    file = tmp_path / "config.json"
    file.write_bytes(b"old")
    os.chown(file, 4711, 4711)
    monkeypatch.setattr(writing.os, "fchown", refuse)
    with pytest.raises(QuestionError, match="owner"):
        rewrite_file(file, b"old", b"new")
    assert ([path.name for path in tmp_path.iterdir()], file.read_bytes()) == (["config.json"], b"old")


def test_a_change_in_between_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b"old")
    keep = writing._keep_attributes

    def meanwhile(*arguments: object) -> None:
        keep(*arguments)  # type: ignore[arg-type]
        file.write_bytes(b"somebody else's")

    monkeypatch.setattr(writing, "_keep_attributes", meanwhile)
    with pytest.raises(QuestionError, match="changed while it was checked"):
        rewrite_file(file, b"old", b"new")
    assert file.read_bytes() == b"somebody else's"
