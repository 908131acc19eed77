"""Hold mem's reading of configuration files against a folder of public ones: how many are answered, refused and by which key, what is ignored.

    python conformance/configs_table.py FOLDER... [--markdown FILE] [--list]

A file counts if configs/ recognises its format. "answered": `mem compare` would predict from it; "refused": it names the key that is not modelled,
unknown or rejected; "unread": keys of answered files that are neither used nor ignored with a reason, which must be none.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmdoctor.configs.reading import flat, opened, read
from llmdoctor.configs.recognise import recognise
from llmdoctor.configs.types import Ignored, Uses
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.keys import StrategyContext
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.strategies import read_strategy

UNDER = {"output_dir": "out", "per_device_train_batch_size": 1, "learning_rate": 1e-5}  # arguments that name a DeepSpeed config
ENDINGS = (".json", ".yaml", ".yml")
CONTEXT = StrategyContext(model_dtype="bfloat16", model_type="llama", hidden_size=4096)


@dataclass
class Row:
    """What became of the files of one format."""

    files: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--list", action="store_true", help="print each refusal")
    arguments = parser.parse_args()
    rows: dict[str, Row] = defaultdict(Row)
    for path in files(arguments.folders):
        judge(path, rows, arguments.list)
    text = table(rows)
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text)


def files(folders: list[Path]) -> Iterator[Path]:
    """Yield the files that can be configurations."""
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.suffix in ENDINGS and path.is_file())


def judge(path: Path, rows: dict[str, Row], verbose: bool) -> None:
    """Add one file to the table."""
    try:
        file = opened(str(path))
    except QuestionError:
        return
    found = recognise(file.value)
    if found is None:
        return
    under = found.auto and '"auto"' in file.text
    row = rows[f"{found.title} under the Trainer" if under else found.title]
    row.files += 1
    try:
        strategy = under_the_trainer(path, file.text) if under else read_strategy(str(path), CONTEXT)
    except QuestionError as error:
        reason = reason_of(str(error), str(path))
        row.refused[reason] += 1
        if verbose:
            print(f"{path}: {error}")
        return
    row.answered += 1
    configuration = read(str(path))
    ignored = configuration.of("memory", Ignored)
    row.ignored.update(ignored.keys())
    known = {*ignored, *configuration.of("memory", Uses), *(one.key for one in configuration.unknown)}
    listed = {*strategy.inputs.used, *strategy.inputs.ignored}
    for name, _, _ in flat(file.value, configuration.variant):
        if name not in known or name not in listed:
            row.unread[name] += 1


def under_the_trainer(path: Path, text: str) -> Strategy:
    """Return the strategy of arguments that name a DeepSpeed config whose "auto" the Trainer fills in."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = Path(folder) / "args.json"
        half = {} if '"fp16"' in text and '"bf16"' not in text else {"bf16": True}
        arguments.write_text(json.dumps({**UNDER, **half, "deepspeed": str(path.resolve())}))
        return read_strategy(str(arguments), CONTEXT)


def reason_of(message: str, path: str) -> str:
    """Return the key that a refusal names first, or its words without the path."""
    text = message.removeprefix(path).lstrip(":, ")
    text = re.sub(r"^\S*args\.json: (deepspeed: )?", "", text)
    return text.split(":")[0][:60]


def table(rows: dict[str, Row]) -> str:
    """Return the counts as Markdown."""
    out = [
        "| format | files | answered | refused | unread keys of answered files | refused by | ignored keys |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, row in sorted(rows.items()):
        refused = ", ".join(f"{key} {count}" for key, count in row.refused.most_common(12))
        ignored = ", ".join(f"{key} {count}" for key, count in row.ignored.most_common(12))
        unread = ", ".join(f"{key} {count}" for key, count in row.unread.most_common(8)) or "0"
        out.append(f"| {title} | {row.files} | {row.answered} | {row.files - row.answered} | {unread} | {refused} | {ignored} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
