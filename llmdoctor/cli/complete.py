"""What the shell completes: names that the code knows. Each function takes the beginning of a word and returns the words that begin so."""

from __future__ import annotations

from collections.abc import Iterable


def formats(begun: str) -> list[str]:
    """Complete --format."""
    from llmdoctor.report import FORMATS

    return _beginning(begun, FORMATS)


def presets(begun: str) -> list[str]:
    """Complete the trainers of `gencfg presets` and --preset."""
    from llmdoctor.gencfg.trainers import preset_names

    return _beginning(begun, preset_names())


def gencfg_engines(begun: str) -> list[str]:
    """Complete the engines of the gencfg commands."""
    from llmdoctor.gencfg.engines import MODULES

    return _beginning(begun, MODULES)


def sample_engines(begun: str) -> list[str]:
    """Complete the engines of the sample commands."""
    from llmdoctor.sample.tables import ENGINES

    return _beginning(begun, ENGINES)


def trainers(begun: str) -> list[str]:
    """Complete the trainers of the labels commands."""
    from llmdoctor.labels.trainers import NAMES

    return _beginning(begun, NAMES)


def rules(begun: str) -> list[str]:
    """Complete a rule's code, and the families of codes."""
    from llmdoctor.rules import all_rules

    codes = [rule.code for rule in all_rules()]
    return _beginning(begun, [*dict.fromkeys(code[:3] for code in codes), *codes])


def _beginning(begun: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(begun)]
