"""Runs commands over mutated inputs in this process, and says of each whether it was refused, reported, or crashed or hung.

What counts as crashed: an exit code outside the contract (0 to 3), a traceback, a refusal that is no single sentence, output that holds a control
character, JSON that is none. What is interesting, and mutated further, is an input that brought a sentence or a set of findings not seen before: that
costs nothing, where tracing lines on Python 3.11 (sys.settrace) made a run 12 times as long.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import typer.main

from llmdoctor.cli import app
from llmdoctor.cli.main import main
from llmdoctor.modeldir import template
from tests.reliability.cases import Case, groups
from tests.reliability.mutate import Mutator

SECONDS = 10.0  # until an input counts as hung
FORMATS = ("text", "text", "text", "json", "json", "sarif", "junit", "github", "gitlab", "markdown", "html")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
VARYING = re.compile(r"[\d.]+|'[^']*'|\"[^\"]*\"|[\x80-\uffff]")
KEPT = 40  # interesting inputs of a case that are mutated further


class Hung(BaseException):
    """The watchdog's."""


@dataclass(slots=True)
class Outcome:
    """What came of one command: its exit code, what it wrote, its seconds, and `fault`, what is wrong with that."""

    code: int
    out: str
    err: str
    seconds: float
    fault: str = ""


@dataclass(slots=True)
class Tally:
    """Counts of outcomes, the slowest, and the failing inputs' folders."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    by_command: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, command: tuple[str, ...], outcome: Outcome, where: str) -> str:
        """Count it; the kind of outcome."""
        kind = "hung" if outcome.fault == "hung" else "crashed" if outcome.fault else "refused" if outcome.code == 2 else "reported"
        self.counts[kind] += 1
        self.by_command.setdefault(" ".join(command[: 1 + (command[0] != "check")]), Counter())[kind] += 1
        self.slowest = sorted([*self.slowest, (outcome.seconds, where)], reverse=True)[:10]
        return kind


def run(arguments: tuple[str, ...]) -> Outcome:
    """The command in this process and this directory."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code, fault = 0, ""
    start = time.perf_counter()
    before = sys.argv, sys.stdout, sys.stderr
    sys.argv, sys.stdout, sys.stderr = ["llmdoctor", *arguments], out, err
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
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
        sys.argv, sys.stdout, sys.stderr = before
    seconds = time.perf_counter() - start
    texts = [stream.buffer.getvalue().decode("utf-8", "surrogateescape") for stream in (out, err)]  # type: ignore[attr-defined]
    outcome = Outcome(code, texts[0], texts[1], seconds, fault)
    outcome.fault = fault or judge(arguments, outcome)
    return outcome


def judge(arguments: tuple[str, ...], outcome: Outcome) -> str:
    """What breaks the contract; "" where nothing does."""
    if outcome.code not in (0, 1, 2, 3):
        return f"exit {outcome.code}: {outcome.err[-300:]}"
    for text in (outcome.out, outcome.err):
        if "Traceback (most recent" in text and "internal fault" in text:
            return "a traceback"
        if UNSAFE.search(text):
            return f"a control character: {text[max(UNSAFE.search(text).start() - 40, 0) :][:80]!r}"  # type: ignore[union-attr]
    if "json" in arguments and outcome.out:
        try:
            json.loads(outcome.out, parse_constant=_no_constant)
        except ValueError as error:
            return f"JSON that is none: {error}"
    elif outcome.code == 2 and (not outcome.err.startswith("llmdoctor: ") or outcome.err.count("\n") != 1) and "json" not in arguments:
        return "" if outcome.out else f"a refusal that is no sentence: {outcome.err[:200]!r}"
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
        name = tuple(arguments[:2]) if arguments[0] in ("gencfg", "mask", "mem", "sample") else tuple(arguments[:1])
        if name not in made:
            made[name] = typer.main.get_command(make(arguments))
        return made[name]

    return find


class Corpus:
    """The cases, what is known to be interesting of each, and the next input."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        # A hungry template takes the 1.5 s that it is given: the processes try it.
        self.groups = [[case for case in group if case.name != "model of DIR009/bad"] for group in groups()]
        self.cases = [case for group in self.groups for case in group]
        self.interesting: dict[tuple[str, str], list[bytes]] = {}
        self.seen: set[tuple[str, ...]] = set()
        known = re.findall(rb'"([A-Za-z_][\w.-]*)"\s*:', b"".join(data for case in self.cases for data in case.files.values()))
        self.mutator = Mutator(self.random, sorted({name.decode() for name in known}))

    def next(self, number: int) -> tuple[Case, tuple[str, ...], dict[str, bytes]]:
        """A case, one of its commands with a format, and the files that are not as they were."""
        case = self.random.choice(self.groups[number % len(self.groups)])
        command = self.random.choice(case.commands)
        changed: dict[str, bytes] = {}
        for _ in range(self.random.choice((1, 1, 1, 2))):
            name = self.random.choice(case.mutable)
            pool = self.interesting.get((case.name, name), [])
            start = self.random.choice(pool) if pool and self.random.random() < 0.4 else case.files[name]
            other = self.random.choice(pool) if pool else self.random.choice(list(case.files.values()))
            changed[name] = self.mutator.mutate(name, start, other)
        if case.name.startswith("model") and self.random.random() < 0.03:
            changed[self.random.choice(case.mutable)] = b""
        return case, (*command, "--format", self.random.choice(FORMATS)), changed

    def learn(self, case: Case, command: tuple[str, ...], changed: dict[str, bytes], outcome: Outcome) -> None:
        """Keep what brought something new."""
        told = (
            VARYING.sub("", outcome.err)[:200]
            if outcome.code == 2
            else " ".join(sorted(set(re.findall(r"\b[A-Z]{3}\d{3}\b", outcome.out))))
        )
        sign = (case.name, command[0], command[1], str(outcome.code), told)
        if sign not in self.seen:
            self.seen.add(sign)
            for name, data in changed.items():
                pool = self.interesting.setdefault((case.name, name), [])
                pool.append(data)
                if len(pool) > KEPT:
                    del pool[self.random.randrange(len(pool))]


def write(files: dict[str, bytes]) -> None:
    """Write them below the working directory."""
    for name, data in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def try_inputs(count: int, seed: int, scratch: Path, keep: Path | None = None, progress: Any = None) -> Tally:
    """`count` mutated inputs in this process; what fails is written to a folder of its own in `keep`."""
    corpus, tally = Corpus(seed), Tally()
    with harnessed(scratch):
        folders = {case.name: scratch / str(place) for place, case in enumerate(corpus.cases)}
        for case in corpus.cases:
            folder = folders[case.name]
            folder.mkdir()
            os.chdir(folder)
            write(case.files)
        for number in range(count):
            case, command, changed = corpus.next(number)
            os.chdir(folders[case.name])
            write(changed)
            outcome = run(command)
            where = f"input {number} ({case.name}): llmdoctor {' '.join(command)}"
            kind = tally.note(command, outcome, where)
            corpus.learn(case, command, changed, outcome)
            if kind in ("crashed", "hung"):
                tally.failed.append(f"{where}: {outcome.fault[-700:]}")
                if keep is not None:
                    shutil.copytree(".", keep / f"{seed}-{number}", dirs_exist_ok=True)
                    (keep / f"{seed}-{number}" / "COMMAND").write_text(f"{where}\n{outcome.fault}\n{outcome.err[-3000:]}")
            write({name: case.files[name] for name in changed})
            for extra in ("new.json",):
                Path(extra).unlink(missing_ok=True)
            if number % 2000 == 1999:
                gc.collect()
                if progress is not None:
                    progress(number + 1, tally)
    return tally
