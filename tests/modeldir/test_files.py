"""Which files are opened, and which are refused without waiting for them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.rules import OUTSIDE, UNREADABLE

LIMIT = 1000


def refusal(path: Path, root: Path | None = None) -> Refusal:
    got = read_bytes(str(path), LIMIT, str(root or path.parent))
    assert isinstance(got, Refusal)
    return got


def test_a_file_is_read_and_a_missing_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * LIMIT)
    assert read_bytes(str(tmp_path / "a"), LIMIT, str(tmp_path)) == b"x" * LIMIT
    assert read_bytes(str(tmp_path / "b"), LIMIT, str(tmp_path)) is None
    assert read_bytes(str(tmp_path / "a" / "b"), LIMIT, str(tmp_path)) is None


def test_one_byte_too_many(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (LIMIT + 1))
    assert refusal(tmp_path / "a").rule.code == "DIR005"


def test_a_sparse_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**30)
    assert "1073741824" in refusal(tmp_path / "a").reason


def test_a_file_that_grows_is_cut_off(tmp_path: Path) -> None:
    assert isinstance(read_bytes("/proc/self/maps", 10), Refusal)  # its size is 0 by fstat


@pytest.mark.timeout(5)
def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert refusal(tmp_path / "a") == Refusal(OUTSIDE, "is a FIFO, not a file")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is at most 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a")
        assert refusal(tmp_path / "a") == Refusal(OUTSIDE, "is a socket, not a file")


def test_a_directory_by_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    assert refusal(tmp_path / "config.json") == Refusal(OUTSIDE, "is a directory, not a file")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty"])
def test_a_device_is_refused_as_a_link_and_as_itself(device: str, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(device)
    assert "outside" in refusal(tmp_path / "a").reason
    assert read_bytes(device, LIMIT, None) == Refusal(OUTSIDE, "is a device, not a file")


def test_a_link_out_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret").write_text("s")
    (home / "real").write_text("r")
    for name, target in (("absolute", tmp_path / "secret"), ("relative", Path("../secret"))):
        (home / name).symlink_to(target)
        assert refusal(home / name).rule.code == "DIR004"
    (home / "near").symlink_to("real")
    assert read_bytes(str(home / "near"), LIMIT, str(home)) == b"r"
    (home / "far").symlink_to("absolute")  # a link inside, to a link out
    assert refusal(home / "far").rule.code == "DIR004"


def test_a_linked_folder_on_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.jinja").write_text("secret")
    (tmp_path / "home" / "sub").symlink_to("../other")
    assert refusal(tmp_path / "home" / "sub" / "x.jinja", tmp_path / "home").rule.code == "DIR004"


def test_a_model_directory_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("r")
    (tmp_path / "link").symlink_to("real")
    assert read_bytes(str(tmp_path / "link" / "a"), LIMIT, str(tmp_path / "link")) == b"r"


def hub(tmp_path: Path) -> Path:
    """A repository in a hub cache, and another one beside it."""
    for name in ("models--org--one", "models--org--two"):
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "snapshots" / "abc").mkdir(parents=True)
        (tmp_path / name / "blobs" / "b10b").write_text(name)
    return tmp_path / "models--org--one" / "snapshots" / "abc"


def test_a_snapshot_links_into_its_own_blobs_only(tmp_path: Path) -> None:
    snapshot = hub(tmp_path)
    (snapshot / "config.json").symlink_to("../../blobs/b10b")
    (snapshot / "other.json").symlink_to("../../../models--org--two/blobs/b10b")
    (snapshot / "up.json").symlink_to("../../../../x")
    assert read_bytes(str(snapshot / "config.json"), LIMIT, str(snapshot)) == b"models--org--one"
    assert refusal(snapshot / "other.json").rule.code == "DIR004"
    assert refusal(snapshot / "up.json").rule.code == "DIR004"


def test_blobs_are_no_excuse_outside_a_hub_cache(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b").write_text("x")
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "snapshots" / "abc" / "a").symlink_to("../../blobs/b")
    assert refusal(tmp_path / "snapshots" / "abc" / "a").rule.code == "DIR004"


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "dangling").reason == "is a link that leads nowhere"
    assert refusal(tmp_path / "loop").rule.code == "DIR004"


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        (tmp_path / "a").touch(mode=0o000)
        assert refusal(tmp_path / "a") == Refusal(UNREADABLE, "cannot be read: Permission denied")
    assert read_bytes("/proc/self/mem", LIMIT) == Refusal(UNREADABLE, "cannot be read: Input/output error")
    assert isinstance(read_bytes(str(tmp_path / ("x" * 300)), LIMIT), Refusal)
    assert isinstance(read_bytes(f"{tmp_path}/a\0b", LIMIT), Refusal)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "big").write_bytes(b"x" * 2000)
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a", "big", "fifo", "none"):
        read_bytes(str(tmp_path / name), LIMIT, str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_path_is_shown_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(f"{tmp_path}/a/b.json") == "a/b.json"
    assert shown_path("/elsewhere/b.json") == "/elsewhere/b.json"
    assert shown_path("../b.json") == "../b.json"
