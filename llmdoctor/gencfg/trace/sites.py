"""Places in the code that is running: whose line did this?"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any

from llmdoctor.core.installed import installed_version

if TYPE_CHECKING:
    from llmdoctor.attach.session import Session

# Between a generate() and the line that wanted it: their frames say nothing about who called.
PLUMBING = frozenset({"transformers", "torch", "peft", "accelerate", "deepspeed", "contextlib", "llmdoctor"})
_STACK, _SEEN = 8, 200
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep


@dataclass(frozen=True)
class Site:
    """A line of code. `package` and `version` are those of the installed distribution it belongs to, None for the user's own code."""

    file: str
    line: int
    function: str
    package: str | None = None
    version: str | None = None

    @property
    def source(self) -> str:
        """What a person reads: "trl 1.0.0 ppo_trainer.py:410", "train.py:31"."""
        if not self.line:
            return self.file
        name = f"{os.path.basename(self.file)}:{self.line}"
        return name if self.package is None else " ".join(filter(None, (self.package, self.version, name)))

    def fields(self) -> dict[str, Any]:
        """The same for a record."""
        return {"file": self.file, "line": self.line, "function": self.function, "package": self.package, "version": self.version}


Skip = Callable[[str, str | None], bool]


def caller(skip: Skip) -> tuple[Site, list[str]]:
    """The innermost frame outside llmdoctor whose (file, package) `skip` lets pass, and the sources of the frames from there outwards.

    Where every frame is skipped it is the outermost one; under `python -m PACKAGE`, which has none yet, it is the command line.
    """
    frames = list(_frames(sys._getframe(1)))
    if not frames:
        return Site("the command line", 0, "<module>"), []
    chosen = next((index for index, frame in enumerate(frames) if not skip(*_place(frame))), len(frames) - 1)
    started = getattr(_POOLED, "wanted", None) or _STARTED.get(threading.current_thread())
    if started is not None and all(package_of(frame.f_code.co_filename) in {*PLUMBING, *_THREADS} for frame in frames):
        return started
    stack = _stack(frames[chosen:])
    return site_of(frames[chosen]), stack if started is None else list(dict.fromkeys([*stack, *started[1]]))[:_STACK]


_THREADS = frozenset({"threading", "concurrent", "asyncio"})
_POOLED = threading.local()  # `wanted`: the line that gave a pool the work that this thread is at
_STARTED: weakref.WeakKeyDictionary[threading.Thread, tuple[Site, list[str]]] = weakref.WeakKeyDictionary()


def watch_threads(session: Session) -> None:
    """Keep the line that starts each thread: a generate() that is a thread's own target (a streamer's) has no caller beside it.

    The threads of a pool are left out: what runs in one was wanted by the line that gave it to the pool.
    """
    start = threading.Thread.start

    @functools.wraps(start)
    def start_watched(thread: threading.Thread) -> None:
        with session.guard("start of a thread"):
            site, stack = caller(lambda _, package: package == "threading")
            if site.package != "concurrent":
                _STARTED[thread] = site, stack
        start(thread)

    session.patches.set(threading.Thread, "start", start_watched)
    session.hook.after("concurrent.futures.thread", lambda module: _watch_pool(session, module.ThreadPoolExecutor))


def _watch_pool(session: Session, kind: type[Any]) -> None:
    """Keep the line that gives work to a pool: submit(), map(), asyncio.to_thread()."""
    submit = vars(kind)["submit"]

    @functools.wraps(submit)
    def submit_watched(pool: Any, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        wanted = None
        with session.guard("work for a pool of threads"):
            wanted = caller(lambda _, package: package in _THREADS)

        def run_for(*args: Any, **kwargs: Any) -> Any:
            _POOLED.wanted = wanted
            try:
                return work(*args, **kwargs)
            finally:
                _POOLED.wanted = None

        return submit(pool, run_for, *args, **kwargs)

    session.patches.set(kind, "submit", submit_watched)


def calling_file(skip: Skip) -> str:
    """The file of the frame that caller() names, without what costs time; "" where there is none."""
    return next((frame.f_code.co_filename for frame in _frames(sys._getframe(1)) if not skip(*_place(frame))), "")


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """From `frame` outwards, llmdoctor's own and the import system's left out."""
    count = 0
    while frame is not None and count < _SEEN:
        if not frame.f_code.co_filename.startswith(("<frozen ", _OWN)):
            yield frame
        frame, count = frame.f_back, count + 1


def _stack(frames: list[FrameType]) -> list[str]:
    """Up to eight sources, plumbing left out."""
    sites = [site_of(frame) for frame in frames if package_of(frame.f_code.co_filename) not in {*PLUMBING, *_THREADS}]
    return list(dict.fromkeys(site.source for site in sites))[:_STACK]


def _place(frame: FrameType) -> tuple[str, str | None]:
    return frame.f_code.co_filename, package_of(frame.f_code.co_filename)


def site_of(frame: FrameType) -> Site:
    """The line that `frame` is at."""
    file = frame.f_code.co_filename
    package = package_of(file)
    version = None if package is None else version_of(package)
    return Site(_cell(file) or file, frame.f_lineno, frame.f_code.co_name, package, version)


def _cell(file: str) -> str | None:
    """Return the name of the notebook cell that IPython compiled as `file`, such as "cell In[3]"; None if `file` is none.

    The kernel compiles a cell as a file with a number for a name, which no user has ever seen.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    name_of = getattr(getattr(shell, "compile", None), "format_code_name", None)
    named = None if name_of is None else name_of(file)  # ("Cell", "In[3]")
    return f"cell {named[1]}" if named else None


@cache
def package_of(file: str) -> str | None:
    """The top-level package a file is installed in, by its folder below site-packages; a standard library module's own name; else None."""
    for marker in ("/site-packages/", "/dist-packages/", _STDLIB):
        _, found, rest = file.rpartition(marker)
        if found:
            return rest.partition("/")[0].removesuffix(".py")
    return _checkout(file)


def is_installed(file: str) -> bool:
    """Whether a file belongs to the environment, not to the user's own code."""
    if file.startswith(_STDLIB) or "/site-packages/" in file or "/dist-packages/" in file:
        return True
    package = _checkout(file)
    return package is not None and _holds_distributions(file[: file.rindex(f"/{package}/")])


@cache
def _holds_distributions(folder: str) -> bool:
    """Whether pip has installed into `folder`, as `pip install --target` does."""
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder or os.sep))
    except OSError:
        return False


@cache
def _checkout(file: str) -> str | None:
    """The package of a file that an editable install or PYTHONPATH has made importable: its outermost folder with an __init__.py."""
    folder, found = os.path.dirname(file), None
    while folder and os.path.exists(os.path.join(folder, "__init__.py")):
        folder, found = os.path.split(folder)
    return found


@cache
def version_of(package: str) -> str | None:
    """The version of the distribution of the same name, or the package's own __version__."""
    if package in sys.stdlib_module_names:
        return None
    found = installed_version(package)
    if found is None:
        own = getattr(sys.modules.get(package), "__version__", None)
        found = own if isinstance(own, str) else None
    return found
