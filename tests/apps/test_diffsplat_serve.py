"""`diffsplat serve`: what it refuses, and the page in a real browser."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import splat_render
from diffsplat import DiffSplatPipeline, InputError
from diffsplat_app.__main__ import main
from diffsplat_app.serve import generated_files
from support.gradio_page import free_port, opened_page, served
from support.tiny_diffsplat import write_base, write_repository

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


def picture(path: Path) -> Path:
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[12:30, 10:25] = (200, 30, 30)
    Image.fromarray(pixels).save(path)
    return path


def test_what_cannot_be_served_is_one_sentence(capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another one with --port" in capsys.readouterr().err
    monkeypatch.setattr("commands.local_page.keep_to_this_machine", lambda folder: None)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--port", str(free_port())]) == 2
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
def test_the_page_in_a_browser(tmp_path):
    with served("diffsplat_app", log=tmp_path / "server.log") as port, opened_page(port, 1100) as page:
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
    gaussians = splat_render.read_splats(tmp_path / "splat.ply").gaussians
    assert len(gaussians) > 500
