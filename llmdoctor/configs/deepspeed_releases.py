"""What each release of DeepSpeed has: settings, removed settings, defaults. schemas/deepspeed_releases.json is written by
conformance/make_deepspeed_releases.py from the releases' own sources; conformance/deepspeed_check.py holds it against each release, run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.versions import LibraryVersion, version_of
from llmdoctor.core.release import release

_OLDER_ZERO = {
    "mics_shard_size": "int",
    "mics_hierarchical_params_gather": "bool",
    "zeropp_loco_param": "object?",
}  # zero/config.py of 0.19.6

# A field, the release from which it has the type of deepspeed_schema.py, and its type before (zero/config.py, precision_config.py).
_STRICTER = (
    (("zero_optimization",), "reduce_bucket_size", "0.19.6", "int>=0"),
    (("fp16",), "loss_scale", "0.18.8", "float"),
    (("fp16",), "loss_scale_window", "0.19.3", "int"),
    (("fp16",), "min_loss_scale", "0.19.3", "int"),
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DeepSpeedRelease:
    """One release: `version` is the one that was wanted, `rules` the known one whose table applies.

    `sections` maps a place to its fields and their types (see deepspeed_schema.py). `validated` are the sections that a pydantic model reads, which
    forbids what it does not know; the others ignore it. `top` are the keys at the top level. `removed` and `removed_zero` map a key on which the
    release raises to the advice. `defaults` are those that differ between releases, by place. `master_stages` are the ZeRO stages that 16-bit master
    weights are accepted with.
    """

    version: str
    rules: str
    sections: Mapping[tuple[str, ...], Mapping[str, str]]
    validated: frozenset[tuple[str, ...]]
    top: frozenset[str]
    removed: Mapping[str, str]
    removed_zero: tuple[str, ...]
    defaults: Mapping[str, Any]
    master_stages: tuple[int, ...]

    @property
    def title(self) -> str:
        """Return the name for a message."""
        return f"DeepSpeed {self.version}"


@cache
def _table() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / "deepspeed_releases.json").read_bytes())
    return data


def known_releases() -> tuple[str, ...]:
    """Return the releases whose sources were read, oldest first."""
    return tuple(_table()["releases"])


def deepspeed_for(near: str | None, named: str | None = None) -> LibraryVersion:
    """Return the release of DeepSpeed that an answer about the file `near` is for: `named` by the user, else pinned, installed or the newest."""
    return version_of("deepspeed", named=named, near=near, known=known_releases(), title="DeepSpeed")


@cache
def deepspeed_release(version: str | None = None) -> DeepSpeedRelease:
    """Return what a release has; without `version` the newest known one."""
    known = known_releases()
    version = version or known[-1]
    rules = next((each for each in reversed(known) if release(each) <= release(version)), known[0])
    table = _table()

    def has(spans: list[list[str]]) -> bool:
        return any(release(first) <= release(rules) <= release(last) for first, last in spans)

    kinds = {place: {**fields, **(_OLDER_ZERO if place == ("zero_optimization",) else {})} for place, fields in schema.SECTIONS.items()}
    validated = frozenset(place for place in kinds if has(table["models"][".".join(place)]))
    sections = {
        place: {
            name: kind for name, kind in fields.items() if place not in validated or has(table["sections"][".".join(place)].get(name, []))
        }
        for place, fields in kinds.items()
    }
    for name in ("bf16_master_weights_and_grads", "bf16_optimizer_states", "check_grad_overflow"):
        if ("bf16",) not in validated:
            sections["bf16",].pop(name)  # runtime/config.py of 0.15 to 0.17.0 asks for "enabled" and "immediate_grad_update" alone
    for place, name, since, before in _STRICTER:
        if release(rules) < release(since):
            sections[place][name] = before
    removed = {key: advice for key, advice in schema.REMOVED.items() if has(table["removed"][key])}
    top = (schema.TOP | schema.REMOVED.keys()) - removed.keys()
    return DeepSpeedRelease(
        version=version,
        rules=rules,
        sections=sections,
        validated=validated,
        top=frozenset(name for name in top if has(table["names"].get(name, [[known[0], known[-1]]]))),
        removed=removed,
        removed_zero=tuple(key for key in schema.REMOVED_ZERO if has(table["removed_zero"][key])),
        defaults={
            place: next((value for first, value in reversed(changes) if release(first) <= release(rules)), None)
            for place, changes in table["defaults"].items()
        },
        master_stages=(1, 2, 3) if release(rules) >= (0, 18, 3) else (2,),  # runtime/config.py, _do_error_check
    )


def since_removed(key: str) -> str:
    """Return the first release that raises on a key that was removed."""
    table = _table()
    first: str = (table["removed"].get(key) or table["removed_zero"][key])[0][0]
    return first


def releases_with(place: tuple[str, ...], name: str) -> str | None:
    """Return which releases have a field of a section, or a key at the top level (`place` is empty), such as "from 0.18.3"; None if none has."""
    table, known = _table(), known_releases()
    spans = table["names"].get(name) if not place else table["sections"].get(".".join(place), {}).get(name)
    if not spans:
        return None
    first, last = spans[0][0], spans[-1][1]
    if last != known[-1]:
        return f"up to {last}"
    return "in every release known here" if first == known[0] else f"from {first}"
