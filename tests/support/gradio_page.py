"""A page of Gradio in a process of its own, without a way to the internet, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BROWSER_FLAGS = [
    *("--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(module: str, *flags: str, log: Path) -> Iterator[int]:
    """Serve at a free port for the block; Ctrl-C must end it in time, with exit code 0 and without a traceback."""
    if find_spec("gradio") is None:
        pytest.skip("Gradio is absent: install the extra serve")
    port = free_port()
    # Whatever would go out to the internet ends at a port where nobody listens.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", module, "serve", "--port", str(port), *flags]
    environment = {**os.environ, **nowhere, "NO_PROXY": ""}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline(), log.read_text()
        yield port
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.communicate()


@contextmanager
def opened_page(port: int, height: int) -> Iterator[Any]:
    """The page in Chromium for the block, which must fetch nothing from elsewhere."""
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None:
        pytest.skip("there is no chromium on PATH, or playwright (dependency group browser) is absent")
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": height})
        page.set_default_timeout(120_000)
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
        browser.close()
    own = (f"http://127.0.0.1:{port}/", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
