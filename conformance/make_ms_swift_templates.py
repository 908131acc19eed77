"""Write llmdoctor/labels/ms_swift_templates.json from ms-swift's own register of templates.

Usage, in an environment with ms-swift: python conformance/make_ms_swift_templates.py > llmdoctor/labels/ms_swift_templates.json

Of each template: its slots (a text, or a list of ids and names of ids such as "eos_token_id"), its flags, and the class that encodes with it if that
is not the base class. Today's date in a text is written {{TODAY}}. A class that changes only what is decoded or generated counts as the base class.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from swift import __version__
from swift.template.base import Template
from swift.template.register import TEMPLATE_MAPPING

SLOTS = ("prefix", "prompt", "chat_sep", "suffix", "system_prefix")
PLAIN = (
    "default_system",
    "auto_add_bos",
    "is_thinking",
    "thinking_prefix",
    "non_thinking_prefix",
    "preserve_thinking",
    "history_thinking_prefix",
)
HARMLESS = {"decode_generate_ids", "_jinja_encode", "jinja_enable_thinking_key", "support_padding_free", "skip_prompt"}


def entry_of(meta: Any) -> dict[str, Any]:
    """Return one template without what the base class does by default."""
    today = datetime.now().strftime("%d %b %Y")
    out: dict[str, Any] = {name: _dated(getattr(meta, name), today) for name in SLOTS if getattr(meta, name) not in ([], None)}
    if meta.chat_sep == []:
        out["chat_sep"] = []
    if meta.is_post_system:
        out["system_prompt"] = meta.system_prompt
    out |= {name: getattr(meta, name) for name in PLAIN if getattr(meta, name)}
    stops = [word for word in meta.stop_words if isinstance(word, str)]
    changed = {
        name for kind in meta.template_cls.__mro__ if kind not in Template.__mro__ for name in vars(kind) if not name.startswith("__")
    }
    own_start = any("__init__" in vars(kind) for kind in meta.template_cls.__mro__ if kind not in Template.__mro__)
    if "non_thinking_prefix_only_after_user" in changed:
        out["prefix_only_after_user"] = bool(meta.template_cls.non_thinking_prefix_only_after_user)
    if own_start or changed - HARMLESS - {"non_thinking_prefix_only_after_user"}:
        out["class"] = meta.template_cls.__name__
    return {"class": out["class"]} if "class" in out else out | ({"stop_words": stops} if stops else {})


def _dated(slots: Any, today: str) -> Any:
    return [slot.replace(today, "{{TODAY}}") if isinstance(slot, str) else slot for slot in slots]


if __name__ == "__main__":
    table = {"ms-swift": __version__, "templates": {name: entry_of(meta) for name, meta in sorted(TEMPLATE_MAPPING.items())}}
    json.dump(table, sys.stdout, indent=1, ensure_ascii=True)
    print()
