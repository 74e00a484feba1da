"""The viewer in a real browser without a screen: what it shows, that it follows the mouse, that it disturbs nothing."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from splat_recon_app.__main__ import main
from support.table_scene import write_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory, num_views=8, width=96, height=72, num_points=800)


@pytest.fixture(scope="module")
def finished(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    flags = ["--scene", str(scene_folder), "--out", str(out), "--device", "cpu", "--split", "every:4"]
    assert main(["train", *flags, "--stereo", "off", "--max-steps", "150", "--eval-every", "0"]) == 0
    return out


def started(argv: list[str]) -> tuple[subprocess.Popen, str]:
    """The command in a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "splat_recon_app", *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed = ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        match = re.search(r"look at (http://127\.0\.0\.1:\d+)", printed)
        if match:
            # Somebody has to read on, or the process stops at a full pipe.
            threading.Thread(target=drained, args=(process.stdout,), daemon=True).start()
            return process, match[1]
    raise AssertionError(printed)


def drained(stream: IO[str]) -> None:
    with stream:
        stream.read()


def opened_page(browser, url: str, outside: list[str]):
    page = browser.new_page(viewport={"width": 800, "height": 600})

    def note(request) -> None:
        if request.url.startswith(("http", "ws")) and "//127.0.0.1:" not in request.url:
            outside.append(request.url)

    page.on("request", note)
    page.goto(url)
    page.wait_for_selector("canvas", timeout=120_000)
    return page


def screenshot(page) -> np.ndarray:
    with Image.open(io.BytesIO(page.screenshot())) as image:
        # Left of the controls, below the notice that WebGL is slow.
        return np.array(image.convert("RGB"))[220:, :440].astype(int)


def seen(page, wanted, seconds: float = 120) -> np.ndarray:
    """The first screenshot that is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        picture = screenshot(page)
        if wanted(picture):
            return picture
        page.wait_for_timeout(500)
    raise AssertionError(f"not seen: mean {picture.mean()}, deviation {picture.std()}")


def kept(page, name: str) -> None:
    """Leave a screenshot for a person, where one asks for it."""
    folder = os.environ.get("DIFIX_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_a_run_is_shown_and_follows_the_mouse(browser, finished: Path):
    process, url = started(["view", "--run", str(finished), "--device", "cpu", "--port", "8490"])
    outside: list[str] = []
    try:
        page = opened_page(browser, url, outside)
        # Before it is connected, a page is white.
        first = seen(page, lambda picture: picture.std() > 15 and picture.mean() < 160)
        kept(page, "viewer_first")
        page.mouse.move(250, 400)
        page.mouse.down()
        page.mouse.move(330, 420, steps=6)
        page.mouse.up()
        seen(page, lambda picture: np.abs(picture - first).mean() > 5 and picture.std() > 10)
        kept(page, "viewer_moved")
        # The browser draws by itself, and again something is to be seen.
        page.get_by_role("combobox", name="Drawn by").click()
        page.get_by_role("option", name="browser").click()
        page.wait_for_timeout(3000)
        seen(page, lambda picture: picture.std() > 10)
        kept(page, "viewer_browser")
        page.close()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert not outside


def test_a_watched_training_is_the_same_bit_for_bit(browser, scene_folder: Path):
    import torch

    from splat_recon import SplatTrainer, TrainConfig, TrainingViewer, ViewSet, normalized, read_scene

    scene = normalized(read_scene(scene_folder))
    config = TrainConfig(random_background=True).scaled_to(80)
    alone, watched = (SplatTrainer(scene, ViewSet.from_views(scene.views), config) for _ in range(2))
    alone.train_until(80)
    outside: list[str] = []
    with TrainingViewer(watched, port=8495) as viewer:
        page = opened_page(browser, viewer.url, outside)
        page.get_by_text("Resolution").wait_for(timeout=120_000)
        while watched.step < 80:
            watched.train_until(watched.step + 1)
            viewer.observe(watched)
            page.mouse.move(250, 400)
            page.mouse.down()
            page.mouse.move(254, 402, steps=2)
            page.mouse.up()
            page.wait_for_timeout(50)
        page.get_by_text(re.compile("step [0-9]+ of 80")).wait_for(timeout=120_000)
        seen(page, lambda picture: picture.std() > 10 and picture.mean() < 160)
        kept(page, "viewer_training")
        page.close()
    for name, tensor in alone.gaussians.parameters().items():
        assert torch.equal(tensor, watched.gaussians.parameters()[name]), name
    assert alone.history == watched.history
    assert not outside
