"""Reports for the formats' tests: one with every kind of block in it, and strategies for any report."""

from __future__ import annotations

from hypothesis import strategies as st

from llmdoctor.core.document import Bar, Bars, Cell, Code, Fold, Grid, Headline, Mark, Note, Table
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.report import Report, ReportError, Skipped, Verdict
from llmdoctor.core.rule import Rule

RULES = (
    Rule(
        code="GEN001",
        name="never-stops",
        severity=Severity.ERROR,
        summary="A call that cannot stop.",
        reason="It runs to the limit.",
        bad="bad <b>",
        good="good",
        fix="a fix",
    ),
    Rule(
        code="DIR012",
        name="surrogate",
        severity=Severity.WARNING,
        summary="A lone surrogate.",
        reason="No UTF-8 holds it.",
        bad="bad",
        good="good",
        fix="another",
    ),
)
MASK = Grid(
    "full attention, sdpa",
    tuple(f"{query} tok{query}" for query in range(12)),
    tuple("".join("#" if 2 <= key <= query else "p" if key < 2 else "." for key in range(12)) for query in range(12)),
    (Mark("#", "seen", "good"), Mark("p", "padding", "warn"), Mark(".", "hidden", "dim")),
    down="query",
    across="key",
)
MEMORY = Bars(
    "Memory over a step",
    "GB",
    ("weights", "gradients", "optimizer", "activations"),
    (
        Bar("start", (4.4, 0.0, 17.7, 0.0)),
        Bar("forward", (4.4, 0.0, 17.7, 6.3)),
        Bar("backward", (4.4, 4.4, 17.7, 4.9)),
        Bar("optimizer step", (4.4, 4.4, 36.7, 0.0), "the peak", True),
    ),
    limit=48.0,
    limit_name="device",
)
SAMPLING = Bars(
    "Step 41: probability",
    "p",
    ("before", "after"),
    (Bar(" yes", (0.61, 0.83)), Bar(" no", (0.14, 0.17)), Bar(" maybe", (0.04, 0.0), "drawn: impossible", True)),
    stacked=False,
    digits=3,
)
HOSTILE = "</script><script>alert(1)</script>\x1b[2J\u202e\n::error::gotcha ##[warning]x @octocat #12 | [a](javascript:b) `c` ]]> &lt; \ud800\ufffe"
EXAMPLE = Report(
    command="gencfg check",
    subject={"path": "models", "transformers": "5.23.0"},
    result={"subjects": [{"path": "models/a", "kind": "model", "findings": [0, 1]}, {"path": "models/b", "kind": "model", "findings": []}]},
    findings=(
        Finding(
            code="GEN001",
            severity=Severity.ERROR,
            message="runs to 512 new tokens: config.json:5 has no eos",
            location=Location("models/a/generation_config.json", "/eos_token_id", 5),
            evidence={"limit": 512},
            cause="trl 1.0.0 ppo_trainer.py:410 set eos_token_id [151645, 151643] -> None",
            fix="GenerationConfig(..., eos_token_id=[151645, 151643])",
        ),
        Finding("DIR012", Severity.WARNING, f"a string says {HOSTILE}", Location("models/a/x y%,:.json", None, 3), {"x": float("nan")}),
        Finding("XYZ999", Severity.INFO, "of no catalogue and no subject"),
    ),
    skipped=(Skipped("models/c", "no model files in it"),),
    document=(
        Table(
            ("field", "value", "from"),
            (
                ("eos_token_id", Cell("None", "bad"), "trl 1.0.0 ppo_trainer.py:410"),
                (Cell("  instead of", "dim"), Cell("[151645, 151643]", "dim"), "generation_config.json:5"),
                ("max_length", "4096", "generate(): the default"),
            ),
        ),
        MASK,
        MEMORY,
        SAMPLING,
        Note("CAUSE", "the trainer cleared it before your call\nand nothing put it back"),
        Code("FIX", 'GenerationConfig(..., eos_token_id=[151645, 151643], a_very_long_argument=1, another_very_long_argument=2, x="```")'),
    ),
    verdict=Verdict("models: 1 error, 1 warning, 1 note", "problem"),
)
words = st.text(st.characters(blacklist_categories=()), max_size=24) | st.sampled_from(
    [
        HOSTILE,
        "::add-mask::x",
        "\n::error::",
        "##[error]x",
        "%0A::x",
        "a,b:c%",
        "- x",
        "1. x",
        "```",
        "|",
        "\r",
        "<!--",
        "]]>",
        "www.a.b",
        "~~~",
    ]
)
tones = st.sampled_from(["good", "bad", "warn", "plain", "dim"])
numbers = st.floats() | st.integers(-5, 10**20)
marks = st.builds(Mark, st.sampled_from("#.x"), words, tones, st.floats())
plain_blocks = st.one_of(
    st.builds(Headline, words, tones),
    st.builds(lambda rows: Table(("a", "b"), tuple(rows)), st.lists(st.tuples(words, st.builds(Cell, words, tones)), max_size=3)),
    st.builds(Note, words, words, tones),
    st.builds(Code, words, words),
    st.builds(
        lambda label, cells, key, name, notes: Grid(
            label, tuple(name + str(n) for n in range(len(cells))), tuple(cells), tuple(key), (name,), notes=tuple(map(tuple, notes))
        ),
        words,
        st.lists(st.text("#.x:<\n", max_size=6), max_size=4),
        st.lists(marks, max_size=3),
        words,
        st.lists(st.lists(words, max_size=3), max_size=3),
    ),
    st.builds(
        lambda label, unit, parts, bars, stacked, limit: Bars(
            label=label, unit=unit, parts=tuple(parts), bars=tuple(bars), stacked=stacked, digits=2, limit=limit, limit_name=unit
        ),
        words,
        words,
        st.lists(words, max_size=2),
        st.lists(st.builds(Bar, words, st.lists(numbers, max_size=3).map(tuple), words, st.booleans()), max_size=3),
        st.booleans(),
        st.none() | numbers,
    ),
)
tables = st.builds(
    lambda row, instead: Table(("a", "b"), (tuple(row),), (instead,)), st.lists(words, max_size=3), st.builds(Note, words, words)
)
folds = st.builds(lambda label, inner, note, open: Fold(label, tuple(inner), (note,), open), words, st.lists(plain_blocks, max_size=2),
                  st.builds(Note, words, words), st.booleans())  # fmt: skip
blocks = plain_blocks | tables | folds
diagnostics = st.builds(
    Finding,
    st.sampled_from(["GEN001", "DIR012", "XYZ999"]),
    st.sampled_from(list(Severity)),
    words,
    st.none() | st.builds(Location, words, st.none() | words, st.none() | st.integers(-1, 10**6)),
    st.dictionaries(words, words | st.floats(), max_size=2),
    st.none() | words,
    st.none() | words,
)
subjects = st.lists(st.fixed_dictionaries({"path": words, "kind": words, "findings": st.lists(st.integers(-1, 5), max_size=3)}), max_size=3)
reports = st.builds(
    lambda command, path, subjects, found, skipped, document, error, nothing, verdict: Report(
        command=command,
        subject={"path": path},
        result={"subjects": subjects},
        findings=tuple(found),
        skipped=tuple(skipped),
        document=tuple(document),
        error=error,
        nothing=nothing,
        verdict=verdict if error is None else Verdict(error.message, "refused"),
    ),
    words,
    words,
    subjects,
    st.lists(diagnostics, max_size=4),
    st.lists(st.builds(Skipped, words, words), max_size=2),
    st.lists(blocks, max_size=5),
    st.none() | st.builds(ReportError, words, words),
    st.booleans(),
    st.builds(Verdict, words, st.sampled_from(["ok", "problem", "bound", "undecided", "refused"])),
)
