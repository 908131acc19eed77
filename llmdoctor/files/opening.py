"""Opens and reads untrusted files: regular files only, bounded, never blocking, never outside the model's own repository."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.rule import Rule
from llmdoctor.files.rules import BEYOND_LIMITS, OUTSIDE, UNREADABLE

_instead: dict[str, bytes] = {}  # by absolute path; not empty only inside reading_instead()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file was not read: the rule about files, and a clause that continues the file's name ("is a FIFO, not a file")."""

    rule: Rule
    reason: str

    def finding(self, shown_name: str) -> Finding:
        """Return the finding of the rule for the file that is shown as `shown_name`."""
        return self.rule.at(Location(shown_name), f"{shown_name} {self.reason}")


def read_bytes(path: str, limit: int, root: str | None = None) -> bytes | Refusal | None:
    """Return the bytes of `path`; None if there is no such file, a Refusal if it may not or cannot be read.

    `root` is the model directory that the file belongs to: a link may point inside it, or from a hub snapshot into the blobs of the same
    repository. `limit` is the largest size accepted, in bytes; the size is taken from the open file, so that it cannot change in between.
    """
    opened = open_inside(path, root)
    if opened is None or isinstance(opened, Refusal):
        return opened
    try:
        size = os.fstat(opened).st_size
        if size > limit:
            return Refusal(BEYOND_LIMITS, f"has {size} bytes, at most {limit} are read")
        with os.fdopen(opened, "rb", closefd=False) as file:
            data = file.read(size + 1)  # not limit + 1: so much would be allocated
            data += file.read(limit) if len(data) > size else b""  # it grows
        return Refusal(BEYOND_LIMITS, f"has more than {limit} bytes") if len(data) > limit else data
    except OSError as error:
        return Refusal(UNREADABLE, f"cannot be read: {error.strerror or error}")
    finally:
        os.close(opened)


@contextmanager
def reading_instead(files: Mapping[str, bytes]) -> Iterator[None]:
    """Let every reader get the bytes of `files` (by path) instead of those on the disk while the block runs: edits are tried, not made."""
    _instead.update({os.path.abspath(path): data for path, data in files.items()})
    try:
        yield
    finally:
        _instead.clear()


def is_there(path: str) -> bool:
    """Return whether `path` exists, on the disk or inside reading_instead()."""
    return os.path.abspath(path) in _instead or os.path.exists(path)


def _temporary(data: bytes) -> int:
    """Return the file descriptor of a file without a name that holds `data`."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def open_inside(path: str, root: str | None) -> int | Refusal | None:
    """Return the file descriptor of a regular file, opened for reading; None if there is no such file, a Refusal if it may not be opened."""
    if _instead and (data := _instead.get(os.path.abspath(path))) is not None:
        return _temporary(data)
    try:
        link = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return Refusal(UNREADABLE, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    is_link = stat.S_ISLNK(link.st_mode)
    target = path
    if root is not None and (is_link or os.path.dirname(path) != root):  # a folder on the way may be a link too
        target = os.path.realpath(path)
        if not _stays(target, root):
            said = os.readlink(path) if is_link else target
            return Refusal(OUTSIDE, f"is a link to {said}, outside the model's directory and its hub cache repository")
    try:
        return _open(target, follow=root is None)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT):
            return Refusal(OUTSIDE, "is a link that leads nowhere")
        return Refusal(UNREADABLE, f"cannot be read: {error.strerror}")


def _open(path: str, *, follow: bool) -> int | Refusal:
    """Open `path`. Without `follow`, it has been resolved and accepted: a link that has replaced it since then is not followed."""
    mode = os.stat(path, follow_symlinks=follow).st_mode
    if stat.S_ISREG(mode):  # a device is not even opened: that alone can have effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)  # another kind of file has taken its place
    return Refusal(OUTSIDE, "is a link that leads nowhere" if stat.S_ISLNK(mode) else f"is {_kind(mode)}, not a file")


def _stays(target: str, root: str) -> bool:
    home = os.path.realpath(root)
    if _inside(target, home):
        return True
    repository = _hub_repository(home)
    return repository is not None and _inside(target, os.path.join(repository, "blobs"))


def _hub_repository(snapshot: str) -> str | None:
    """`.../models--org--name` for `.../models--org--name/snapshots/REVISION[/subfolder]`."""
    head, found, _ = snapshot.rpartition(os.sep + "snapshots" + os.sep)
    return head if found and os.path.basename(head).startswith("models--") else None


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"))
    return next((name for test, name in kinds if test(mode)), "a device")


def shown_path(path: str) -> str:
    """Return `path` relative to the working directory if it is below that, else as given."""
    try:
        here, full = os.getcwd(), os.path.abspath(path)
    except OSError:  # the working directory has been deleted
        return path
    return os.path.relpath(full, here) if _inside(full, here) else path
