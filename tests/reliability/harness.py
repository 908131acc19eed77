"""Runs commands over mutated inputs in this process, and says of each whether it was refused, reported, or crashed or hung.

What counts as crashed: an exit code outside the contract (0 to 3), a traceback, a refusal that is no single sentence, output that holds a control
character, JSON that is none, a temporary file left behind, a socket that is opened. Times are seconds of the processor, as other work on the machine
would be measured otherwise. What is interesting, and mutated further, is an input that brought a sentence or a set of findings not seen before: that
costs nothing, where tracing lines on Python 3.11 (sys.settrace) made a run many times as long.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import math
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import typer.main

from llmdoctor.cli import app
from llmdoctor.cli.main import main
from llmdoctor.core.text import clean
from llmdoctor.modeldir import template
from tests.reliability.cases import Case, groups
from tests.reliability.hostile import KINDS, put, remove, with_options
from tests.reliability.mutate import Mutator
from tests.reliability.served import cases as served

SECONDS = 30.0  # by the clock, until an input counts as hung
FORMATS = ("text", "text", "text", "json", "json", "sarif", "junit", "github", "gitlab", "markdown", "html")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
VARYING = re.compile(r"[\d.]+|'[^']*'|\"[^\"]*\"|[\x80-\uffff]")
GROUPS = tuple(app._GROUPS)
ROOT = Path(__file__).parents[2]
KEPT = 40  # interesting inputs of a case that are mutated further


class Hung(BaseException):
    """The watchdog's."""


@dataclass(slots=True)
class Outcome:
    """What came of one command: its exit code, what it wrote, its seconds of the processor, and `fault`, what is wrong with that.

    `memory` is by how many bytes the process grew meanwhile, at most.
    """

    code: int
    out: str
    err: str
    seconds: float
    fault: str = ""
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """One input: which, of what, with which command, the files that were not as they were, and those in whose place another kind of file was."""

    number: int
    case: Case
    command: tuple[str, ...]
    changed: dict[str, bytes]
    kinds: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = "".join(f", {name}: {kind}" for name, kind in self.kinds.items())
        return clean(f"input {self.number} ({self.case.name}{kinds}): llmdoctor {' '.join(word[:60] for word in self.command)}")


@dataclass(slots=True)
class Tally:
    """Counts of outcomes, the slowest and the hungriest inputs, and what failed."""

    counts: Counter[str] = field(default_factory=Counter)
    by_command: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: list[tuple[float, Tried]] = field(default_factory=list)
    hungriest: tuple[int, str] = (0, "")
    failed: list[tuple[Tried, Outcome]] = field(default_factory=list)

    def note(self, tried: Tried, outcome: Outcome) -> None:
        """Count it."""
        kind = "hung" if outcome.fault == "hung" else "crashed" if outcome.fault else "refused" if outcome.code == 2 else "reported"
        self.counts[kind] += 1
        name = " ".join(tried.command[: 1 + (tried.command[0] in GROUPS)])
        self.by_command.setdefault(name, Counter())[kind] += 1
        self.slowest = sorted([*self.slowest, (outcome.seconds, tried)], key=lambda entry: -entry[0])[:10]
        self.hungriest = max(self.hungriest, (outcome.memory, str(tried)))
        if outcome.fault:
            self.failed.append((tried, outcome))

    def add(self, other: Tally) -> None:
        """What another process counted."""
        self.counts.update(other.counts)
        for name, counts in other.by_command.items():
            self.by_command.setdefault(name, Counter()).update(counts)
        self.slowest = sorted([*self.slowest, *other.slowest], key=lambda entry: -entry[0])[:10]
        self.hungriest = max(self.hungriest, other.hungriest)
        self.failed += other.failed


def run(arguments: tuple[str, ...], seconds: float = SECONDS) -> Outcome:
    """The command in this process and this directory; after so many seconds it counts as hung."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors, write_through=True) for errors in ("strict", "backslashreplace"))
    code, fault = 0, ""
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.argv, sys.stdin, sys.stdout, sys.stderr = ["llmdoctor", *arguments], io.TextIOWrapper(io.BytesIO(b"x = 1\n")), out, err
    resident, start = _resident(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except Hung:
        fault = "hung"
    except BaseException as error:  # noqa: BLE001 that is what is looked for
        fault = f"{type(error).__name__} got out: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
    taken = time.process_time() - start
    texts = [stream.buffer.getvalue().decode("utf-8", "surrogateescape") for stream in (out, err)]
    outcome = Outcome(code, texts[0], texts[1], taken, fault, _highest() - resident)
    outcome.fault = fault or judge(arguments, outcome)
    if not outcome.fault and (left := [name for name in os.listdir() if name.endswith(".partial")]):
        outcome.fault = f"left behind: {left}"
    return outcome


def _resident() -> int:
    """Return the bytes of memory in use, and let the kernel forget the highest number of them so far; 0 on other systems than Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _highest() -> int:
    return _status("VmHWM") if os.path.exists("/proc/self/clear_refs") else 0


def _status(name: str) -> int:
    return int(re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def judge(arguments: tuple[str, ...], outcome: Outcome) -> str:
    """What breaks the contract; "" where nothing does."""
    if outcome.code not in (0, 1, 2, 3):
        return f"exit {outcome.code}: {outcome.err[-300:]}"
    for text in (outcome.out, outcome.err):
        if "Traceback (most recent" in text and "internal fault" in text:
            return "a traceback"
        if UNSAFE.search(text):
            return f"a control character: {text[max(UNSAFE.search(text).start() - 40, 0) :][:80]!r}"  # type: ignore[union-attr]
    if "json" in arguments and outcome.out and "--diff" not in arguments:  # that prints a patch, whatever the format
        try:
            json.loads(outcome.out, parse_constant=_no_constant)
        except ValueError as error:
            return f"JSON that is none: {error}"
    elif outcome.code == 2 and (not outcome.err.startswith("llmdoctor: ") or outcome.err.count("\n") != 1) and "json" not in arguments:
        return "" if outcome.out or outcome.err.startswith("Usage: ") else f"a refusal that is no sentence: {outcome.err[:200]!r}"
    return ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} in it")


@contextlib.contextmanager
def harnessed(scratch: Path) -> Iterator[None]:
    """In `scratch`, with a watchdog; what every process makes anew is made once: the template worker (60 ms), each command's options (4 ms)."""

    def hang(_signal: int, _frame: Any) -> None:
        raise Hung

    def keep(worker: template.TemplateWorker, *exception: object) -> None:
        if exception[0] is None and worker._process is not None:
            template._spares.append(worker._process)
            worker._process = None
        worker.close()

    scratch.mkdir(parents=True, exist_ok=True)
    before = os.getcwd(), signal.signal(signal.SIGALRM, hang), template.TemplateWorker.__exit__, template.prepare_worker, app.make_app
    template.TemplateWorker.__exit__ = keep  # type: ignore[method-assign]
    template.prepare_worker = lambda: None
    app.make_app = _made_once(app.make_app)
    variables = {"NO_COLOR": "1", "COLUMNS": "80", "LLMDOCTOR_DEBUG": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(scratch / "cache")}
    old = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    os.chdir(scratch)
    try:
        yield
    finally:
        os.chdir(before[0])
        signal.signal(signal.SIGALRM, before[1])
        template.TemplateWorker.__exit__, template.prepare_worker, app.make_app = before[2:]  # type: ignore[method-assign]
        while template._spares:
            worker = template.TemplateWorker()
            worker.start()
            worker.close()
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _made_once(make: Any) -> Any:
    made: dict[tuple[str, ...], Any] = {}

    def find(arguments: list[str]) -> Any:
        name = tuple(arguments[:2]) if arguments[0] in GROUPS else tuple(arguments[:1])
        if name not in made:
            made[name] = typer.main.get_command(make(arguments))
        return made[name]

    return find


class Corpus:
    """The cases, what is known to be interesting of each, and the next input."""

    def __init__(self, seed: int, live: bool = True) -> None:
        self.random = Random(seed)
        # A hungry template takes the 1.5 s that it is given, so only processes try it; messages are read by transformers, which takes 5 s to import.
        left = ("model of DIR009/bad",) if live else ("model of DIR009/bad", "messages")
        self.groups = [[case for case in group if case.name not in left] for group in [*groups(), served()]]
        self.cases = [case for group in self.groups for case in group]
        self.interesting: dict[tuple[str, str], list[bytes]] = {}
        self.seen: set[tuple[str, ...]] = set()
        known = re.findall(rb'"([A-Za-z_][\w.-]*)"\s*:', b"".join(data for case in self.cases for data in case.files.values()))
        self.mutator = Mutator(self.random, sorted({name.decode() for name in known}))

    def next(self, number: int) -> Tried:
        """The next input: of every group of cases as often as of another."""
        case = self.random.choice(self.groups[number % len(self.groups)])
        command = self.random.choice(case.commands)
        changed: dict[str, bytes] = {}
        kinds: dict[str, str] = {}
        for _ in range(self.random.choice((1, 1, 1, 2))):
            name = self.random.choice(case.mutable)
            if self.random.random() < 0.1:
                kinds[name] = self.random.choice(KINDS)
                continue
            pool = self.interesting.get((case.name, name), [])
            start = self.random.choice(pool) if pool and self.random.random() < 0.4 else case.files[name]
            other = self.random.choice(pool) if pool else self.random.choice(list(case.files.values()))
            changed[name] = self.mutator.mutate(name, start, other)
        if case.name.startswith("model") and self.random.random() < 0.03:
            changed[self.random.choice(case.mutable)] = b""
        if self.random.random() < 0.2:
            command = with_options(command, case, self.random, GROUPS)
        return Tried(number, case, (*command, "--format", self.random.choice(FORMATS)), changed, kinds)

    def learn(self, tried: Tried, outcome: Outcome) -> None:
        """Keep what brought something new."""
        excerpt = (
            VARYING.sub("", outcome.err)[:200]
            if outcome.code == 2
            else " ".join(sorted(set(re.findall(r"\b[A-Z]{3}\d{3}\b", outcome.out))))
        )
        sign = (tried.case.name, *tried.command[:2], str(outcome.code), excerpt)
        if sign not in self.seen:
            self.seen.add(sign)
            for name, data in tried.changed.items():
                pool = self.interesting.setdefault((tried.case.name, name), [])
                pool.append(data)
                if len(pool) > KEPT:
                    del pool[self.random.randrange(len(pool))]


def write(files: dict[str, bytes]) -> None:
    """Write them below the working directory."""
    for name, data in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or not path.is_file():
            remove(path)
        path.write_bytes(data)


def arrange(tried: Tried) -> None:
    """Put what is not as it was in the place of it, below the working directory."""
    write(tried.changed)
    for name, kind in tried.kinds.items():
        put(name, kind)


def try_inputs(
    count: int,
    seed: int,
    scratch: Path,
    keep: Path | None = None,
    progress: Callable[[int, Tally], None] | None = None,
    live: bool = True,
    seconds: float = math.inf,
) -> Tally:
    """`count` mutated inputs in this process, or as many as `seconds` of the clock allow; what fails is written to a folder of its own in `keep`.

    What is imported once, and not again for the next input, is imported before. The slowest inputs are timed again, as other work on the machine
    may have been in the way: the smallest of three counts.
    """
    corpus, tally = Corpus(seed, live), Tally()
    with harnessed(scratch):
        folders = {case.name: scratch / str(place) for place, case in enumerate(corpus.cases)}
        for case in corpus.cases:
            folders[case.name].mkdir()
            os.chdir(folders[case.name])
            write(case.files)
        for group in corpus.groups:
            for case in (group[0], group[-1]):
                os.chdir(folders[case.name])
                for command in case.commands:
                    run(command, 300)
        for number in until(count, seconds):
            tried = corpus.next(number)
            outcome = _try(tried, folders[tried.case.name])
            if outcome.fault == "hung":  # once more: the clock also runs while the whole machine stands still
                outcome = _try(tried, folders[tried.case.name])
            tally.note(tried, outcome)
            corpus.learn(tried, outcome)
            if outcome.fault and keep is not None:
                write_failing(tried, outcome, keep / f"{seed}-{number}")
            if number % 2000 == 1999:
                gc.collect()
                if progress is not None:
                    progress(number + 1, tally)
        again = [
            (min(seconds, *(_try(tried, folders[tried.case.name]).seconds for _ in range(2))), tried) for seconds, tried in tally.slowest
        ]
        tally.slowest = sorted(again, key=lambda entry: -entry[0])
    return tally


def until(count: int, seconds: float) -> Iterator[int]:
    """Count to `count`, or for `seconds`."""
    deadline = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < deadline, range(count))


def _try(tried: Tried, folder: Path) -> Outcome:
    """Run it in the case's folder, and put the folder back."""
    os.chdir(folder)
    arrange(tried)
    outcome = run(tried.command)
    write(tried.case.files if "--fix" in tried.command else {name: tried.case.files[name] for name in (*tried.changed, *tried.kinds)})
    Path("new.json").unlink(missing_ok=True)  # what one of the commands writes
    return outcome


def write_failing(tried: Tried, outcome: Outcome, folder: Path) -> None:
    """The input as it was, with the command and what came of it in COMMAND."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    write({**tried.case.files, **tried.changed})
    arrange(tried)
    write({"COMMAND": f"{tried}\n{tried.command!r}\n{outcome.fault}\n{outcome.err[-4000:]}".encode("utf-8", "replace")})
    os.chdir(before)
