"""Write llmdoctor/labels/llama_factory_templates.json from LLaMA-Factory's own source.

Usage: python conformance/make_llama_factory_templates.py VERSION

Fetches the wheel of that release with pip into a temporary folder and reads the calls of register_template() by syntax tree; nothing of it is run.
A slot is a text, {"token": NAME} or {"special": "eos_token"}.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "llmdoctor" / "labels" / "llama_factory_templates.json"
FORMATTERS = ("format_user", "format_assistant", "format_system", "format_observation", "format_prefix")
PLAIN = (
    "default_system",
    "stop_words",
    "thought_words",
    "efficient_eos",
    "replace_eos",
    "enable_thinking",
    "preserve_thinking",
)


def source_of(version: str) -> str:
    """Return the text of data/template.py of a release."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, f"llamafactory=={version}"], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        return zipfile.ZipFile(wheel).read("llamafactory/data/template.py").decode()


def slots(node: ast.expr) -> list[Any]:
    """Return the slots of a Formatter(...) call."""
    call = node if isinstance(node, ast.Call) else None
    found = (
        next((word.value for word in call.keywords if word.arg == "slots"), call.args[0] if call and call.args else None) if call else None
    )
    return [] if found is None else [_slot(ast.literal_eval(item)) for item in getattr(found, "elts", [])]


def _slot(value: Any) -> Any:
    return {"special": next(iter(value))} if isinstance(value, set) else value


def templates(source: str) -> dict[str, dict[str, Any]]:
    """Return every registered template by name."""
    out: dict[str, dict[str, Any]] = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register_template"):
            continue
        words = {word.arg: word.value for word in node.keywords}
        entry: dict[str, Any] = {name.removeprefix("format_"): slots(words[name]) for name in FORMATTERS if name in words}
        for name in PLAIN:
            if name in words:
                entry[name] = ast.literal_eval(words[name])
        if any(word.arg == "image_token" for word in getattr(words.get("mm_plugin"), "keywords", ())):
            entry["images"] = True  # its plugin asks for a processor, for texts too
        if "template_class" in words:
            entry["class"] = ast.unparse(words["template_class"])
        out[ast.literal_eval(words["name"])] = entry
    return dict(sorted(out.items()))


if __name__ == "__main__":
    version = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    table = {"llamafactory": version, "templates": templates(source_of(version))}
    TARGET.write_text(json.dumps(table, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(table['templates'])} templates of llamafactory {version}")
