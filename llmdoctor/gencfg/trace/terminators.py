"""Ids that end a turn, as a run's models and tokenizers have them."""

from __future__ import annotations

from typing import Any

from llmdoctor.gencfg.trace.values import ids_of

# Texts of tokens that end a turn in published chat models; a tokenizer's own eos is added to them.
TURN_ENDS = frozenset(
    "<|im_end|> <|endoftext|> <|eot_id|> <|eom_id|> <|end_of_text|> </s> <end_of_turn> <turn|> <|end|> <|return|> <|user|> <|eot|> "
    "<|END_OF_TURN_TOKEN|> <|end_of_role|> <|assistant_end|> <|role_end|> <eos> [EOS] <｜end▁of▁sentence｜>".split()
)


class Terminators:
    """Ids that end a turn, with their texts, as this process's models and tokenizers have them."""

    def __init__(self) -> None:
        self._by_tokenizer: dict[str, dict[int, str]] = {}
        self._by_model: dict[str, set[int]] = {}

    def of_tokenizer(self, tokenizer: Any) -> None:
        """A tokenizer was loaded."""
        known = {int(index): str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        found = {index: text for index, text in known.items() if text in TURN_ENDS}
        if tokenizer.eos_token_id is not None:
            found[tokenizer.eos_token_id] = str(tokenizer.eos_token)
        self._by_tokenizer[str(tokenizer.name_or_path)] = found

    def of_model(self, model: Any) -> None:
        """A model was loaded, or is about to generate: what its configs say now."""
        config = getattr(model, "config", None)
        inner = [getattr(config, name, None) for name in ("text_config", "llm_config", "language_config")]
        holders = [getattr(model, "generation_config", None), config, *inner]
        found = {token for holder in holders for token in ids_of(getattr(holder, "eos_token_id", None))}
        self._by_model.setdefault(model_name(model), set()).update(found)

    def known(self, model: Any) -> dict[int, str | None]:
        """The ids for `model` with their texts: its own, and those of the tokenizer of the same directory, else of every tokenizer."""
        own = self._by_tokenizer.get(model_name(model))
        texts = own if own is not None else {index: text for known in self._by_tokenizer.values() for index, text in known.items()}
        ids = dict.fromkeys(self._by_model.get(model_name(model), ()))
        return {**ids, **texts}


def model_name(model: Any) -> str:
    return str(getattr(model, "name_or_path", ""))
