"""A pytest mark for memory. pytest loads this module wherever llmdoctor is installed: it imports nothing else until the mark is used."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, so that --strict-markers accepts it."""
    config.addinivalue_line(
        "markers", "max_memory(size): fail the test if it allocates more than `size` ('20GiB') on a CUDA device; skip it without a device"
    )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Measure a marked test; one that cannot be measured is skipped before it runs, because it would prove nothing."""
    mark = pyfuncitem.get_closest_marker("max_memory")
    if mark is None:
        return (yield)
    from llmdoctor.mem.live.peak import device_peaks, reset_peaks

    limit = _limit(mark)
    if not reset_peaks():
        pytest.skip("max_memory needs a CUDA device")
    result = yield
    for device, peak in device_peaks().items():
        if peak > limit:
            pytest.fail(f"{device} held {peak / 2**30:.2f} GiB at the peak, and max_memory allows {limit / 2**30:.2f} GiB", pytrace=False)
    return result


def _limit(mark: pytest.Mark) -> int:
    """Return the bytes of a mark's size. Fails the test if it is not one size with a unit."""
    from llmdoctor.core.text import size_of

    size = size_of(mark.args[0]) if len(mark.args) == 1 and isinstance(mark.args[0], str) else None
    if size is None:
        pytest.fail('max_memory takes one size with its unit: @pytest.mark.max_memory("20GiB")', pytrace=False)
    return size
