"""The chat templates that LLaMA-Factory writes into the models that it trains: 120 families, healthy and with another eos."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.options import GencfgCheckOptions
from tests.conftest import by_folder, write_model

SOURCE = Path(__file__).parents[2] / "llmdoctor" / "labels" / "llama_factory_templates.json"
TEMPLATES: dict[str, dict[str, Any]] = json.loads(SOURCE.read_text())["templates"]
SHAPE = re.compile(r"<[|｜][^<>|｜]{1,40}[|｜]>|</?[a-z_|]{1,24}>|\[e~\[")
WRONG, EOS, BOS = "<|wrong|>", "<|eos-of-text|>", "<|bos-of-text|>"
NAMES = {"eos_token": EOS, "bos_token": BOS}


def text_of(slots: list[Any], place: str = "") -> str:
    """Slots as Jinja writes them, as Template._convert_slots_to_jinja of LLaMA-Factory 0.9.5 does."""
    parts = [slot if isinstance(slot, str) else NAMES.get(slot.get("special", ""), slot.get("token", "")) for slot in slots]
    return "".join(parts).replace("{{content}}", f"' }}}}{{{{ {place} }}}}{{{{ '" if place else "")


def assistant(entry: dict[str, Any]) -> list[Any]:
    """The slots of an answer: register_template() adds the eos unless the collator does (efficient_eos)."""
    return entry.get("assistant") or ["{{content}}", *([] if entry.get("efficient_eos") else [{"special": "eos_token"}])]


def jinja(entry: dict[str, Any]) -> str:
    slots = {"user": entry.get("user") or ["{{content}}"], "assistant": assistant(entry)}
    quoted = {name: text_of(each, "m['content']").replace("\n", "\\n") for name, each in slots.items()}
    prefix = text_of(entry.get("prefix") or []).replace("\n", "\\n")
    branches = "".join(
        f"{{% {word} m['role'] == '{name}' %}}{{{{ '{quoted[name]}' }}}}" for word, name in (("if", "user"), ("elif", "assistant"))
    )
    return f"{{{{ '{prefix}' }}}}{{% for m in messages %}}{branches}{{% endif %}}{{% endfor %}}"


def end_of(entry: dict[str, Any]) -> str | None:
    """The token that the assistant's slots write behind the content; None for plain text."""
    behind = text_of(assistant(entry)).strip()
    found = SHAPE.findall(behind)
    return found[-1] if found else None


def write(path: Path, entry: dict[str, Any], eos: str) -> Path:
    template = jinja(entry)
    tokens = dict.fromkeys((BOS, EOS, WRONG, *(entry.get("stop_words") or []), *SHAPE.findall(template)))
    ids = {token: 300 + at for at, token in enumerate(tokens)}
    added = [{"id": number, "content": token, "special": True} for token, number in ids.items()]
    return write_model(
        path,
        config={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300 + len(ids), "eos_token_id": ids[eos]},
        generation_config={"transformers_version": "4.55.0", "eos_token_id": ids[eos]},
        tokenizer_config={"eos_token": eos, "bos_token": BOS, "chat_template": template},
        tokenizer={"version": "1.0", "added_tokens": added, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
    )


def healthy_eos(entry: dict[str, Any]) -> str:
    return end_of(entry) or next(iter(entry.get("stop_words") or []), EOS)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    root = tmp_path_factory.mktemp("families")
    paths = [write(root / name, entry, healthy_eos(entry)) for name, entry in TEMPLATES.items()]
    paths += [write(root / f"{name}+wrong", entry, WRONG) for name, entry in TEMPLATES.items()]
    report = check_report(GencfgCheckOptions(paths=tuple(map(str, paths)), transformers="5.23.0"))
    return by_folder(report, paths)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_healthy_family_has_no_error_and_no_warning(name: str, findings: dict[str, list[Finding]]) -> None:
    assert [finding.message for finding in findings[name] if finding.severity.rank > 0] == []


@pytest.mark.parametrize("name", [name for name, entry in TEMPLATES.items() if end_of(entry)])
def test_another_eos_is_found_and_the_fix_names_the_end_of_a_turn(name: str, findings: dict[str, list[Finding]]) -> None:
    found = [finding for finding in findings[f"{name}+wrong"] if finding.code == "GEN002"]
    assert len(found) == 1
    assert f"ends an answer with {end_of(TEMPLATES[name])} (" in found[0].message
    assert found[0].fix
