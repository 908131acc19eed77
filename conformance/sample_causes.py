"""Which cause does `sample compare` name? Real models, every cause on purpose: python conformance/sample_causes.py [--runs 20] [--pool FILE.npz]

Tiny Qwen2 and Qwen2-MoE models are trained on this repository's own text until their distributions look like those of a language model (peaked and
flat steps). transformers' generate draws the tokens, in float32 or bfloat16; the other side scores the same tokens with one forward pass. Each case
then does one thing wrong, or several, or nothing. For each case the table counts: the right cause named, a part of a combination named, only
possible causes listed or nothing said (undecided), a wrong cause named. A wrong name is the worst. What it prints is kept in docs/sample_causes.txt.
"""

from __future__ import annotations

import argparse
import collections
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
ROOT = Path(__file__).parent.parent
VOCAB, LENGTH, PROMPT, STEPS = 1500, 128, 8, 64
TEMPERATURE, CUT, SHIFT, PADDING, ORDER = (
    "temperature-scaled against raw",
    "a cut on one side",
    "shifted by one",
    "padding counted",
    "sequences in another order",
)
OUTLIERS, NOISE, WEIGHTS = "a few outliers", "precision noise", "different weights or inputs"
PROCESSED = "processed against raw"
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong: the engine and its settings, which log-probabilities each side reports, what happens to them, and the names that are
    right; `part` are those that name a part of the truth."""

    name: str
    engine: str
    drawn: Mapping[str, Any]
    trainer_kind: str
    engine_kind: str
    right: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    trainer_change: Change | None = None
    engine_change: Change | None = None


def corpus() -> Any:
    """The tokens of this repository's documentation and code, one tensor, by a byte-level BPE that is trained on it."""
    import tokenizers
    import torch

    paths = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("llmdoctor/**/*.py"))]
    texts = [path.read_text() for path in paths]
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocab_size=VOCAB, show_progress=False)
    return torch.tensor([at for text in texts for at in made.encode(text).ids])


def train(tokens: Any, device: str, updates: int) -> dict[str, Any]:
    """The models: base, later (one update more), stale (30 more), other (another seed), quantised (4 bits), and a mixture of experts."""
    import torch
    import transformers

    shape = {"vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    dense = transformers.Qwen2Config(**shape, intermediate_size=384, tie_word_embeddings=False)
    moe = transformers.Qwen2MoeConfig(
        **shape, intermediate_size=256, moe_intermediate_size=96, shared_expert_intermediate_size=96, num_experts=16, num_experts_per_tok=2
    )

    def steps(model: Any, count: int, rate: float, seed: int) -> None:
        torch.manual_seed(seed)
        best = torch.optim.AdamW(model.parameters(), lr=rate)
        for _ in range(count):
            at = torch.randint(0, len(tokens) - LENGTH, (12,))
            batch = torch.stack([tokens[one : one + LENGTH] for one in at]).to(device)
            model(input_ids=batch, labels=batch).loss.backward()
            best.step()
            best.zero_grad()

    models: dict[str, Any] = {}
    for name, config, seed in (("base", dense, 0), ("other", dense, 1), ("moe", moe, 2)):
        torch.manual_seed(seed)
        models[name] = transformers.AutoModelForCausalLM.from_config(config).to(device).train()
        steps(models[name], updates, 2e-3, seed)
    for name, after, count, rate in (("later", "base", 1, 1e-4), ("stale", "base", 30, 5e-4)):
        models[name] = copy.deepcopy(models[after])
        steps(models[name], count, rate, 7)
    models["quantised"] = copy.deepcopy(models["base"])
    with torch.no_grad():
        for weight in models["quantised"].parameters():
            if weight.ndim == 2:
                scale = weight.abs().amax(dim=1, keepdim=True) / 7
                weight.copy_((weight / scale).round() * scale)
    for name in ("base", "moe"):
        models[f"{name} bfloat16"] = copy.deepcopy(models[name]).to(torch.bfloat16)
    return {name: model.eval() for name, model in models.items()}


def roll(models: dict[str, Any], tokens: Any, engine: str, drawn: Mapping[str, Any], sequences: int, device: str) -> dict[str, np.ndarray]:
    """Draw sequences by generate() with the settings `drawn`: the log-probabilities [sequences, 64] of the engine, raw and processed, and of every
    trainer, raw and at the temperature that was requested."""
    import torch

    starts = torch.randint(0, len(tokens) - PROMPT, (sequences,))
    prompt = torch.stack([tokens[at : at + PROMPT] for at in starts]).to(device)
    settings = {"do_sample": True, "top_k": 0, "temperature": 1.0, **drawn}
    with torch.no_grad():
        out = models[engine].generate(  # llmdoctor: ignore[PYC001]
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=STEPS, eos_token_id=[], pad_token_id=0,
            return_dict_in_generate=True, output_scores=True, output_logits=True, **settings,
        )  # fmt: skip
        drawn_ids = out.sequences[:, PROMPT:]

        def picked(logits: Any) -> np.ndarray:
            found = torch.log_softmax(logits.float(), -1).gather(-1, drawn_ids[..., None])[..., 0]
            return np.asarray(found.cpu().numpy(), np.float32)

        found = {"raw": picked(torch.stack(out.logits, 1)), "processed": picked(torch.stack(out.scores, 1))}
        family = "moe" if engine.startswith("moe") else "base"
        trainers = [family, f"{family} bfloat16"] + (["later", "stale", "other"] if family == "base" else [])
        for name in trainers:
            logits = models[name](input_ids=out.sequences).logits
            found[name] = picked(logits[:, PROMPT - 1 : -1])
            found[f"{name} scaled"] = picked(logits[:, PROMPT - 1 : -1].float() / settings["temperature"])
            if name == "base":
                found["labels not shifted"] = picked(logits[:, PROMPT:])
                found["prompt missing"] = picked(models[name](input_ids=out.sequences[:, PROMPT - 1 :]).logits[:, :-1])
    return found


def make_pool(path: Path, sequences: int, updates: int, seed: int) -> None:
    """Train the models, draw with every setting, and write all log-probabilities to an .npz."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = corpus()
    models = train(tokens, device, updates)
    torch.manual_seed(seed + 1)
    found = {}
    for engine, drawn in DRAWN:
        for kind, values in roll(models, tokens, engine, drawn, sequences, device).items():
            found[f"{pool_name(engine, drawn)}|{kind}"] = values
    np.savez_compressed(path, **found)  # type: ignore[arg-type]
    print(f"{len(found)} lists of {sequences * STEPS} tokens drawn on {device} with torch {torch.__version__}")


def pool_name(engine: str, drawn: Mapping[str, Any]) -> str:
    return " ".join([engine, *(f"{name} {value}" for name, value in drawn.items())])


TEMPERATURES = (0.3, 0.6, 0.9, 1.3)
CUTS: tuple[dict[str, Any], ...] = ({"top_p": 0.95}, {"top_p": 0.8}, {"top_k": 20}, {"top_k": 3}, {"min_p": 0.1})
BOTH: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
)
DTYPES = ("base", "base bfloat16")
DRAWN: tuple[tuple[str, dict[str, Any]], ...] = (
    *((engine, drawn) for engine in DTYPES for drawn in ({}, *({"temperature": one} for one in TEMPERATURES), *CUTS, *BOTH)),
    ("moe", {}),
    ("moe bfloat16", {}),
    ("quantised", {}),
)


def shifted(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.roll(rows, 1, axis=1))


def padded(rows: np.ndarray, value: float | None, random: np.random.Generator) -> np.ndarray:
    """Each sequence ends early, in padding: `value`, or what a model says of padding tokens. Both sides end at the same places."""
    length = rows.shape[1]
    ends = np.random.default_rng(len(rows)).integers(length // 3, max(length // 3 + 1, length - 5), len(rows))
    tail = np.arange(length)[None, :] >= ends[:, None]
    return np.asarray(np.where(tail, -random.gamma(2.0, 3.0, rows.shape) if value is None else value, rows))


def outliers(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One token in 200, at least one, that one side scores as something else."""
    picks = random.choice(rows.size, max(1, rows.size // 200), replace=False)
    found = rows.copy()
    found.reshape(-1)[picks] -= random.uniform(4, 18, len(picks))
    return np.asarray(found)


def cases() -> Iterator[Case]:
    """Every cause alone, in float32 and bfloat16, and combinations."""
    yield Case("identical", "base", {}, "raw", "raw")
    for engine in DTYPES:
        words = "engine in bfloat16" if "bf" in engine else "engine in float32"
        yield Case(f"nothing wrong, {words}", engine, {}, "base", "raw", (NOISE,))
        yield Case(f"nothing wrong, trainer in bfloat16, {words}", engine, {}, "base bfloat16", "raw", (NOISE,))
        for t in TEMPERATURES:
            yield Case(f"T {t}: trainer scaled, engine raw, {words}", engine, {"temperature": t}, "base scaled", "raw", (TEMPERATURE,))
            yield Case(f"T {t}: trainer raw, engine processed, {words}", engine, {"temperature": t}, "base", "processed", (TEMPERATURE,))
        for cut in CUTS:
            yield Case(f"{pool_name('', cut).strip()}: trainer raw, engine processed, {words}", engine, cut, "base", "processed", (CUT,))
        for drawn in BOTH:
            named = pool_name("", drawn).strip()
            parts = (TEMPERATURE, CUT)
            yield Case(f"{named}: trainer raw, engine processed, {words}", engine, drawn, "base", "processed", (PROCESSED,), parts)
            yield Case(f"{named}: trainer scaled, engine raw, {words}", engine, drawn, "base scaled", "raw", (TEMPERATURE,))
            yield Case(f"{named}: trainer scaled, engine processed, {words}", engine, drawn, "base scaled", "processed", (CUT,))
        yield Case(f"values shifted by one, {words}", engine, {}, "base", "raw", (SHIFT,), trainer_change=lambda rows, _: shifted(rows))
        yield Case(
            f"padding counted, engine 0, {words}", engine, {}, "base", "raw", (PADDING,),
            trainer_change=lambda rows, random: padded(rows, None, random), engine_change=lambda rows, random: padded(rows, 0.0, random),
        )  # fmt: skip
        yield Case(
            f"padding left in, trainer 0, engine -1, {words}", engine, {}, "base", "raw", (PADDING,),
            trainer_change=lambda rows, random: padded(rows, 0.0, random), engine_change=lambda rows, random: padded(rows, -1.0, random),
        )  # fmt: skip
        yield Case(f"a few outliers, {words}", engine, {}, "base", "raw", (OUTLIERS,), trainer_change=outliers)
        yield Case(f"sequences in another order, {words}", engine, {}, "base", "raw", (ORDER,), trainer_change=lambda rows, _: rows[::-1])
    for engine in ("moe", "moe bfloat16"):
        yield Case(f"{engine}, trainer in float32", engine, {}, "moe", "raw", (NOISE,))
        yield Case(f"{engine}, trainer in bfloat16", engine, {}, "moe bfloat16", "raw", (NOISE,))
    yield Case("one update behind", "base", {}, "later", "raw", (WEIGHTS,))
    yield Case("thirty updates behind", "base", {}, "stale", "raw", (WEIGHTS,))
    yield Case("thirty updates behind, engine in bfloat16", "base bfloat16", {}, "stale", "raw", (WEIGHTS,))
    yield Case("engine's weights in 4 bits", "quantised", {}, "base", "raw", (WEIGHTS,))
    yield Case("another model", "base", {}, "other", "raw", (WEIGHTS,))
    yield Case("another model, T 0.6 processed", "base", {"temperature": 0.6}, "other", "processed", (WEIGHTS,))
    yield Case("another model, top_p 0.8 processed", "base", {"top_p": 0.8}, "other", "processed", (WEIGHTS,))
    yield Case("labels not shifted before the gather", "base", {}, "labels not shifted", "raw", (WEIGHTS,))
    yield Case("the prompt is missing", "base", {}, "prompt missing", "raw", (WEIGHTS,))
    yield Case(
        "shifted by one, T 0.6 scaled against raw", "base", {"temperature": 0.6}, "base scaled", "raw", (), (SHIFT, TEMPERATURE),
        trainer_change=lambda rows, _: shifted(rows),
    )  # fmt: skip
    yield Case(
        "a few outliers, T 0.6 scaled",
        "base",
        {"temperature": 0.6},
        "base scaled",
        "raw",
        (),
        (TEMPERATURE, OUTLIERS),
        trainer_change=outliers,
    )
    yield Case("thirty updates behind, T 0.6 scaled", "base", {"temperature": 0.6}, "stale scaled", "raw", (), (TEMPERATURE, WEIGHTS))
    yield Case("thirty updates behind, top_p 0.8 processed", "base", {"top_p": 0.8}, "stale", "processed", (), (CUT, WEIGHTS))


def picked(pool: Mapping[str, np.ndarray], case: Case, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of `size` tokens of a case: whole sequences of 64, or the first tokens of one."""
    kinds = [pool[f"{pool_name(case.engine, case.drawn)}|{kind}"] for kind in (case.trainer_kind, case.engine_kind)]
    rows = random.choice(len(kinds[0]), max(1, size // STEPS), replace=False)
    trainer, engine = (kind[rows, : max(1, min(STEPS, size))].astype(np.float64) for kind in kinds)
    trainer = trainer if case.trainer_change is None else case.trainer_change(trainer, random)
    engine = engine if case.engine_change is None else case.engine_change(engine, random)
    return trainer, engine


def named(trainer: np.ndarray, engine: np.ndarray, folder: Path) -> tuple[str, list[str]]:
    """The verdict, and the causes that the report names, from files as a user would write them."""
    from llmdoctor.sample.compare import compare_report
    from llmdoctor.sample.options import SampleCompareOptions

    for side, rows in (("trainer", trainer), ("engine", engine)):
        np.save(folder / f"{side}.npy", rows)
    result: Any = compare_report(SampleCompareOptions(trainer=str(folder / "trainer.npy"), engine=str(folder / "engine.npy"))).result
    return result["verdict"], [one["name"] for one in result["causes"] if one["named"]]


def outcome(case: Case, verdict: str, causes: list[str]) -> str:
    """One of right, part, undecided, wrong. A verdict of agreement is right only if nothing but arithmetic differs."""
    if verdict == "agree":
        return "right" if (case.right in ((), (NOISE,)) and not case.part) or "padding left in" in case.name else "undecided"
    if not causes:
        return "undecided"
    if any(name not in (*case.right, *case.part) for name in causes):
        return "wrong"
    return "right" if any(name in case.right for name in causes) else "part"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", help="an .npz of drawn log-probabilities: written if it does not exist")
    parser.add_argument("--sequences", type=int, default=128, help="drawn with each setting")
    parser.add_argument("--updates", type=int, default=2500, help="of the models' training")
    parser.add_argument("--sizes", default="1,8,24,64,1024")
    parser.add_argument("--match", default="")
    arguments = parser.parse_args()
    start = time.monotonic()
    print(f"{date.today()}, --runs {arguments.runs} --seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.pool or f"{folder}/pool.npz")
        if not path.exists():
            make_pool(path, arguments.sequences, arguments.updates, arguments.seed)
        with np.load(path) as file:
            pool = {name: file[name] for name in file.files}
        good = table(pool, arguments, Path(folder))
    print(
        f"{'everything holds' if good else 'SOMETHING DOES NOT HOLD'}: wrong names in at most 2% of the runs ({time.monotonic() - start:.0f} s)"
    )
    return 0 if good else 1


def table(pool: Mapping[str, np.ndarray], arguments: argparse.Namespace, folder: Path) -> bool:
    """Print the counts of every case. Whether wrong names are rare at every size."""
    total: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    print("number of tokens: right / part of it / undecided / wrong, and the wrong names")
    for number, case in enumerate(cases()):
        if arguments.match not in case.name:
            continue
        cells, wrong = [], collections.Counter[str]()
        for size in map(int, arguments.sizes.split(",")):
            random = np.random.default_rng([arguments.seed, number, size])
            counts: collections.Counter[str] = collections.Counter()
            for _ in range(arguments.runs):
                verdict, causes = named(*picked(pool, case, size, random), folder)
                said = outcome(case, verdict, causes)
                counts[said] += 1
                if said == "wrong":
                    wrong[f"{size}: {verdict}, {' and '.join(causes)}"] += 1
            total[size] += counts
            cells.append(f"{size}: {counts['right']}/{counts['part']}/{counts['undecided']}/{counts['wrong']}")
        print(f"{case.name:<84}{'  '.join(f'{cell:<15}' for cell in cells)}{dict(wrong) or ''}", flush=True)
    for size, counts in total.items():
        many = sum(counts.values())
        print(
            f"{size} tokens: "
            + ", ".join(f"{name} {counts[name]} ({counts[name] / many:.1%})" for name in ("right", "part", "undecided", "wrong"))
        )
    return all(counts["wrong"] <= 0.02 * sum(counts.values()) for counts in total.values())


if __name__ == "__main__":
    sys.exit(main())
