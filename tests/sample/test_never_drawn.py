"""The test for a token that was never drawn although it should have been."""

from __future__ import annotations

import numpy as np

from llmdoctor.sample.testing import never_drawn


def test_no_token_is_missed_if_each_was_drawn() -> None:
    found = never_drawn(np.array([4, 7]), np.array([0.999, 0.9999]), [7, 4])
    assert (found.p_value, found.says) == (1.0, "every likely token was drawn")


def test_a_likely_token_that_was_never_drawn_is_named() -> None:
    found = never_drawn(np.array([4, 7]), np.array([0.999, 0.9999]), [7, 7])
    assert found.p_value < 0.002
    assert found.says.startswith("token 4 was never drawn, 1.0 draws expected")
