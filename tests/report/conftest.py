"""A headless browser for the tests of a module that open pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.webdriver import CHROMIUM, DRIVER, Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromium-driver are not installed")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
