"""`difix-fix serve`: what it refuses, and the page in a real browser."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix_fix.__main__ import main
from difix_fix.page import fixed_image
from difix_model import DifixPipeline, InputError
from support.gradio_page import free_port, opened_page, served
from support.tiny_fixer import write_tiny_fixer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fixer(tmp_path_factory.mktemp("checkpoint"))


def write_image(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def test_a_busy_port_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert "--port" in error
    assert len(error.splitlines()) == 1


def test_what_cannot_be_served_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.local_page.keep_to_this_machine", lambda folder: None)
    assert main(["serve", "--port", str(free_port()), "--host", "no.such.host.invalid"]) == 2
    assert "there is no address no.such.host.invalid" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--port", str(free_port())]) == 2
    assert "error: the page needs Gradio: run it as uv run --extra serve difix-fix serve" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--port", "0"])
    assert stop.value.code == 2


def test_an_image_is_fixed_at_its_size(tmp_path: Path, checkpoint: Path) -> None:
    pipeline = DifixPipeline.from_pretrained(checkpoint)
    render, photo = write_image(tmp_path / "a.png", (41, 27)), write_image(tmp_path / "b.jpg", (30, 30), seed=1)
    before, after, said = fixed_image(pipeline, render, [photo], 1.0)
    assert before.size == after.size == (41, 27)
    assert said.startswith("41 x 27 pixels, with 1 photo, in ")
    assert not np.array_equal(np.asarray(before), np.asarray(after))
    _, kept, _ = fixed_image(pipeline, render, [], 0.0)
    assert np.array_equal(np.asarray(before), np.asarray(kept))
    with pytest.raises(InputError, match="Choose a render first"):
        fixed_image(pipeline, None, [], 1.0)
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(InputError, match=r"c\.png cannot be read"):
        fixed_image(pipeline, tmp_path / "c.png", [], 1.0)


def request(port: int, name: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.slow
def test_the_page_in_a_browser(checkpoint: Path, tmp_path: Path) -> None:
    render = write_image(tmp_path / "my render.png", (90, 60))
    photo = write_image(tmp_path / "photo.jpg", (80, 64), seed=1)
    flags = ("--gate", "off", "--model", str(checkpoint))
    with served("difix_fix", *flags, log=tmp_path / "server.log") as port, opened_page(port, 800) as page:
        assert request(port, f"localhost:{port}").startswith(b"HTTP/1.1 200")
        assert request(port, "somewhere.example").startswith(b"HTTP/1.1 403")
        page.click("#fix")
        page.wait_for_selector("text=Choose a render first.")
        page.set_input_files("#render input[type=file]", render)
        page.wait_for_selector("#render img")
        page.set_input_files("#references input[type=file]", photo)
        page.wait_for_selector("#references img")
        page.click("#fix")
        page.wait_for_selector("text=90 x 60 pixels, with 1 photo")
        page.wait_for_function("document.querySelectorAll('#fixed img').length >= 2")
        page.wait_for_function(
            "[...document.querySelectorAll('#fixed img')].every(i => i.complete && i.naturalWidth == 90)"
        )
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "downloaded.png")
        assert download.value.suggested_filename == "my render_fixed.png"
        page.screenshot(path=tmp_path / "page.png")
    fixed = Image.open(tmp_path / "downloaded.png")
    assert fixed.size == (90, 60)
    expected = DifixPipeline.from_pretrained(checkpoint)(Image.open(render), Image.open(photo))
    assert np.abs(np.asarray(expected).astype(int) - np.asarray(Image.open(render))).mean() > 5
    assert np.abs(np.asarray(fixed).astype(int) - np.asarray(expected)).max() <= 1
