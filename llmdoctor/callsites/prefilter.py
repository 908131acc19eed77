"""Which files can hold a finding at all, told from their bytes: most of a repository is never parsed."""

from __future__ import annotations

# For each rule, words of which a file must hold all; an alternative stands as a row of its own. Everything is searched as it is written
# in Python and in a notebook's JSON alike.
_WORDS: tuple[tuple[bytes, ...], ...] = (
    (b"eos_token_id", b"None", b"generat"),  # PYC001
    (b"attention_mask", b"eos_token"),  # PYC002, with pad_token = eos_token
    (b"masked_fill", b"mask"),  # PYC003
    (b"log_softmax", b".scores"),  # PYC004
    (b"log_softmax", b"scores", b"output_scores"),
    (b"DataCollatorFor", b"pad_token", b"eos_token"),  # PYC005
    (b"padding_side", b"right", b".generate("),  # PYC006
    (b"random", b"for ", b"prob"),  # PYC007
    (b"softmax", b"temp", b"/"),  # PYC008
    (b"do_sample", b"True"),  # PYC009
    (b"do_sample", b"False"),  # PYC010
    (b"padding", b"input_ids", b".generate("),  # PYC011
)


def may_hold_a_finding(data: bytes) -> bool:
    """False where no rule can apply to a file with these bytes."""
    return any(all(word in data for word in words) for words in _WORDS)
