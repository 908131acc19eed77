"""The recorder as a pytest fixture. pytest loads this module wherever llmdoctor is installed: it imports nothing else until it is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmdoctor.gencfg.trace.recording import Recording


@pytest.fixture
def generate_must_stop() -> Iterator[Recording]:
    """Fails the test if a generate() in it cannot stop before its length limit, and says which line took its eos away.

    Its value is the Recording, with `records` and `report()`.
    """
    from llmdoctor.gencfg.trace.recording import recording

    with recording() as found:
        yield found
        complaint = None if found.judged else found.complaint()  # a unittest.TestCase's method does not go through the hook below
    if complaint is not None:
        pytest.fail(complaint, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """After the test's own asserts, so that the test fails and not its teardown."""
    result = yield
    recorded: Any = pyfuncitem.funcargs.get("generate_must_stop")
    if recorded is None:
        return result
    recorded.judged = True
    complaint = recorded.complaint()
    if complaint is not None:
        pytest.fail(complaint, pytrace=False)
    return result
