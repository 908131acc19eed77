"""The recorder as a pytest fixture and a mark. pytest loads this module wherever llmdoctor is installed: it imports nothing else until it is used."""

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


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, so that --strict-markers accepts it."""
    config.addinivalue_line("markers", "must_stop: fail the test if a generate() in it cannot stop before its length limit")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each marked test the fixture: `@pytest.mark.must_stop` is `generate_must_stop` for a test that needs no Recording."""
    for item in items:
        names = item.fixturenames if isinstance(item, pytest.Function) else None
        if names is not None and item.get_closest_marker("must_stop") is not None and "generate_must_stop" not in names:
            names.append("generate_must_stop")


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
