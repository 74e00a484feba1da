"""`diffsplat serve`: what it refuses, and the page in a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import splat_render
from diffsplat import DiffSplatPipeline, InputError
from diffsplat_app.__main__ import main
from diffsplat_app.serve import generated_files
from support.tiny_diffsplat import write_base, write_repository

BROWSER_ARGUMENTS = ["--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
                     "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip

SHOWN = """() => new Promise(resolve => requestAnimationFrame(() => {
    const canvas = document.querySelector("#viewer canvas"), copy = document.createElement("canvas");
    copy.width = copy.height = 32;
    const context = copy.getContext("2d");
    context.drawImage(canvas, 0, 0, 32, 32);
    resolve(context.getImageData(0, 0, 32, 32).data.some((value, index) => index % 4 == 1 && value > 40));
}))"""
"""Whether the viewer's picture shows something green."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, base = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("base") / "base"
    write_repository(root, "sd15", image=True)
    write_base(base, "sd15")
    return root, base


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def picture(path: Path) -> Path:
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[12:30, 10:25] = (200, 30, 30)
    Image.fromarray(pixels).save(path)
    return path


def test_what_cannot_be_served_is_one_sentence(free_port, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another one with --port" in capsys.readouterr().err
    monkeypatch.setattr("diffsplat_app.serve.keep_to_this_machine", lambda folder: None)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--port", str(free_port)]) == 2
    assert "uv run --extra serve diffsplat serve" in capsys.readouterr().err


def test_the_page_makes_what_the_pipeline_makes(weights, tmp_path):
    root, base = weights
    pipe = DiffSplatPipeline.from_pretrained(root, image=True, base=base)
    settings = {"seed": 3, "num_steps": 2, "guidance": 2.0, "num_frames": 2, "size": 24}
    image = picture(tmp_path / "object.png")
    folder, said = generated_files(pipe, tmp_path / "made", "", image, **settings)
    found = splat_render.read_splats(folder / "splat.ply").gaussians
    assert said.startswith(f"{len(found)} Gaussians in ")
    assert (folder / "turntable.mp4").stat().st_size > 200
    with pytest.raises(InputError, match="Write a prompt or choose an image"):
        generated_files(pipe, tmp_path / "none", "  ", None, **settings)


@pytest.mark.slow
def test_the_page_in_a_browser(free_port, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None or find_spec("gradio") is None:
        pytest.skip("chromium on PATH, the extra serve and the dependency group browser are needed")
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    # Whatever would go out to the internet ends at a port where nobody listens.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "diffsplat_app", "serve", "--port", str(free_port)]
    elsewhere: list[str] = []
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **nowhere, "NO_PROXY": ""}
        )
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{free_port}" in process.stdout.readline(), (tmp_path / "server.log").read_text()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
                page = browser.new_page(viewport={"width": 1200, "height": 1100})
                page.set_default_timeout(120_000)
                page.on(
                    "request",
                    lambda sent: (
                        None
                        if sent.url.startswith((f"http://127.0.0.1:{free_port}/", "data:", "blob:"))
                        else elsewhere.append(sent.url)
                    ),
                )
                page.goto(f"http://127.0.0.1:{free_port}/")
                page.fill("#prompt textarea", " ")
                page.click("#generate")
                page.wait_for_selector("text=Write a prompt or choose an image first.")
                page.fill("#prompt textarea", "a green ball")
                page.click("#generate")
                page.wait_for_selector("text=Gaussians in")
                page.wait_for_function("document.querySelector('#film video')?.readyState >= 2")
                page.wait_for_selector("#viewer canvas")
                page.wait_for_function(SHOWN)
                with page.expect_download() as download:
                    page.click("#download")
                download.value.save_as(tmp_path / "splat.ply")
                page.screenshot(path=tmp_path / "page.png")
                browser.close()
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            if process.stdout is not None:
                process.stdout.close()
    gaussians = splat_render.read_splats(tmp_path / "splat.ply").gaussians
    assert len(gaussians) > 500
    assert not elsewhere
    assert "Traceback" not in (tmp_path / "server.log").read_text()
