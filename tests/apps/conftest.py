"""A browser without a screen, for the tests that look at pages, and the weights of a tiny fixer."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSER_FLAGS = [
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
"""WebGL in software, and no connection of the browser's own."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="the dependency group browser is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on PATH")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=chromium, headless=True, args=BROWSER_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    from support.tiny_fixer import write_tiny_fixer

    return str(write_tiny_fixer(tmp_path_factory.mktemp("checkpoint")))
