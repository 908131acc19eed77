"""The one writer of files: all of a file or nothing of it, never through a link that another process has planted."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmdoctor.core.errors import QuestionError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
_MODE = 0o666  # the user's umask takes its part


def write_file(path: Path, text: str) -> None:
    """Write `text` as UTF-8, with the line ends that it has, to `path`. Raises QuestionError if that fails; then nothing has changed."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the name of `path` when the block ends, and that is removed if the block raises.

    The new file is in the same folder, under a random name that no other file has (O_EXCL), so that a link that another process has planted is
    never followed; a link that has the name of `path` is replaced itself. A device or a pipe (/dev/stdout) is written to directly.
    Raises QuestionError if the file cannot be written, for a full disk too.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _beside(folder, path.name) as file:
                yield file
        finally:
            os.close(folder)
    except OSError as error:
        raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None


def rewrite_file(path: Path, before: bytes, after: bytes) -> None:
    """Put `after` in the place of `before` in the regular file `path`, with its mode, owner and extended attributes.

    Raises QuestionError, with nothing changed, if `path` is a link, has hard links, does not hold `before` any more (looked at again
    right before the new file takes the name), or if its owner or attributes cannot be kept.
    """
    try:
        was = _unchanged(path, before)
        if was.st_nlink > 1:
            raise QuestionError(
                f"{path}: not changed: the file has {was.st_nlink} names (hard links), and the others would keep the old text"
            )
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _beside(folder, path.name) as file:
                file.write(after)
                file.flush()
                _keep_attributes(path, file.fileno(), was)
                now = _unchanged(path, before)
                if (now.st_dev, now.st_ino) != (was.st_dev, was.st_ino):
                    raise QuestionError(f"{path}: the file changed while it was checked; nothing was written to it")
        finally:
            os.close(folder)
    except OSError as error:
        raise QuestionError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def _beside(folder: int, name: str) -> Iterator[BinaryIO]:
    """Yield a new file in the open folder `folder`; it takes `name` if the block ends well, else it is removed."""
    partial = f".{secrets.token_hex(12)}.partial"
    descriptor = os.open(partial, _NEW, _MODE, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise


def _unchanged(path: Path, before: bytes) -> os.stat_result:
    """Return the status of `path` if it is a regular file that holds `before`; raise QuestionError if it is not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or file.read(len(before) + 1) != before:
            raise QuestionError(f"{path}: the file changed while it was checked; nothing was written to it")
    return found


def _keep_attributes(path: Path, new: int, was: os.stat_result) -> None:
    """Give the open file `new` the owner, extended attributes and mode of `path`; raise QuestionError if that is not allowed."""
    made = os.fstat(new)
    try:
        if (made.st_uid, made.st_gid) != (was.st_uid, was.st_gid):
            os.fchown(new, was.st_uid, was.st_gid)
        for name in _attributes(path):
            value = os.getxattr(path, name)
            if name not in _attributes(new) or os.getxattr(new, name) != value:
                os.setxattr(new, name, value)
    except OSError as error:
        reason = error.strerror or str(error)
        raise QuestionError(f"{path}: not changed: its owner or extended attributes cannot be kept ({reason})") from None
    os.fchmod(new, stat.S_IMODE(was.st_mode))


def _attributes(file: Path | int) -> list[str]:
    """Return the names of the extended attributes; none on a system or a file system without them."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        return os.listxattr(file)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
