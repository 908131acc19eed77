"""Hold `mem kvcache` against real caches: `python conformance/compare_kvcache.py [TYPE...]` prints which model types agree to the byte.

A tiny random model of each type reads 19 tokens and then one more, with the library's own DynamicCache, and 20 with a StaticCache of 24; every
storage that the cache holds is counted once. What agrees is written into llmdoctor/mem/kvcache_types.json by hand.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from compare_masks import tiny

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem import kvcache
from llmdoctor.mem.options import KvcacheOptions
from llmdoctor.modeldir import layerkinds


def held(value: Any, seen: dict[int, int], depth: int = 0) -> int:
    """Bytes of all tensors of a cache, each storage once."""
    import torch

    inside: Any = ()
    if isinstance(value, torch.Tensor):
        if value.numel() > 1:
            seen.setdefault(value.untyped_storage()._cdata, value.untyped_storage().nbytes())
    elif isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    elif hasattr(value, "__dict__"):
        inside = vars(value).values()
    for item in inside if depth < 8 else ():
        held(item, seen, depth + 1)
    return sum(seen.values())


def compare(kind: str) -> str:
    """ "agrees", or what is different."""
    import torch
    from transformers import StaticCache

    from llmdoctor.mask.live import build

    config = tiny(kind)
    config.architectures = [layerkinds.table()["types"][kind]["class"]]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        config.save_pretrained(folder)
        mine = {}
        for kind_of in ("dynamic", "static:24"):
            options = KvcacheOptions(model=folder, batch=2, length=20, cache=kind_of, dtype="float32")
            mine[kind_of] = kvcache.kvcache_report(options).result["kvcache"]["allocated_bytes"]
        model = build.build(build.config_of(folder), "eager", "float32")
        ids = torch.arange(40).reshape(2, 20) + 5
        cache = model(input_ids=ids[:, :-1], use_cache=True).past_key_values
        model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
        real = {"dynamic": held(cache, {})}
        static = StaticCache(config=model.config, max_cache_len=24)
        model(input_ids=ids, past_key_values=static, use_cache=True)
        real["static:24"] = held(static, {})
    return "agrees" if mine == real else f"{mine} really {real}"


def main() -> int:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    kvcache.KNOWN = frozenset(layerkinds.table()["types"])
    agree: set[str] = set()
    for kind in sys.argv[1:] or layerkinds.table()["types"]:
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                said = compare(kind)
                text = tiny(kind).get_text_config()
        except Exception as error:
            said = f"{'refused' if isinstance(error, QuestionError) else type(error).__name__}: {str(error)[:120]}"
        print(kind, said, flush=True)
        if said == "agrees":
            agree.add(text.model_type)
    print("KNOWN", *sorted(agree))
    return 0


if __name__ == "__main__":
    sys.exit(main())
