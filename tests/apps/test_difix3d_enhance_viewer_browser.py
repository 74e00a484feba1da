"""`difix3d-enhance view` in a real browser without a screen: off, on and side by side, and what follows the mouse."""

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, and a splat of it that has learned for a while."""
    from splat_recon import SplatTrainer, SyntheticConfig, TrainConfig, ViewSet, generate_scene, read_scene, write_scene
    from splat_render import write_ply

    folder = tmp_path_factory.mktemp("place")
    config = SyntheticConfig(num_views=8, width=96, height=72, num_points=800, layout="table")
    write_scene(folder / "scene", generate_scene(5, config))
    scene = read_scene(folder / "scene")
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views[:3]), TrainConfig().scaled_to(150))
    trainer.train_until(150)
    write_ply(folder / "splat.ply", trainer.gaussians)
    return folder


@dataclasses.dataclass
class Shown:
    """A page in the browser."""

    page: Any

    def choose(self, control: str, option: str) -> None:
        self.page.get_by_role("combobox", name=control).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def line(self) -> str:
        """What the page says about its picture."""
        return self.page.get_by_text(re.compile("[0-9]+ x [0-9]+ pixels")).first.inner_text()

    def wait(self, wanted: Callable[[str], bool], seconds: float = 90) -> str:
        end, line = time.monotonic() + seconds, "nothing"
        while time.monotonic() < end:
            line = self.line()
            if wanted(line):
                # The words are there before the picture is.
                self.page.wait_for_timeout(1500)
                return line
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the page says {line!r}")

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Left and right of the seam, without controls, notices and bar."""
        with Image.open(io.BytesIO(self.page.screenshot())) as image:
            pixels = np.array(image.convert("RGB")).astype(int)[220:]
        canvas = self.page.locator("canvas").first.bounding_box()
        middle = round(canvas["x"] + canvas["width"] / 2)
        width = middle - round(canvas["x"]) - 12
        return pixels[:-60, middle - 6 - width : middle - 6], pixels[:-60, middle + 6 : middle + 6 + width]

    def keep(self, name: str) -> None:
        """Leave a screenshot for a person, where one asks for it."""
        folder = os.environ.get("DIFIX_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


def drained(stream: IO[str]) -> None:
    with stream:
        stream.read()


@pytest.fixture
def shown(browser: Any, place: Path) -> Iterator[Shown]:
    flags = ["--splat", str(place / "splat.ply"), "--scene", str(place / "scene"), "--gate", "off", "--max-size", "256"]
    process = subprocess.Popen(
        [sys.executable, "-m", "difix3d_enhance_app", "view", *flags, "--device", "cpu", "--port", "8640"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    outside: list[str] = []

    def note(request: Any) -> None:
        if request.url.startswith(("http", "ws")) and "//127.0.0.1:" not in request.url:
            outside.append(request.url)

    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr.read()
        threading.Thread(target=drained, args=(process.stderr,), daemon=True).start()
        page = browser.new_page(viewport={"width": 1100, "height": 650})
        page.on("request", note)
        page.goto(url)
        page.wait_for_selector("canvas", timeout=120_000)
        page.get_by_text(re.compile("[0-9]+ x [0-9]+ pixels")).first.wait_for(timeout=120_000)
        yield Shown(page)
        page.close()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        if process.stdout is not None:
            process.stdout.close()
    assert not outside


def test_off_on_and_side_by_side(shown: Shown) -> None:
    shown.wait(lambda line: "mean change" in line)
    shown.keep("live_side_by_side")
    left, right = shown.halves()
    assert left.std() > 10
    assert np.abs(left - right).mean() > 0.5
    # The picture follows the mouse, and is fixed again where the camera comes to rest.
    page = shown.page
    page.mouse.move(200, 400)
    page.mouse.down()
    for step in range(8):
        page.mouse.move(200 + 8 * step, 400 + 2 * step)
        page.wait_for_timeout(60)
    page.mouse.up()
    moved = shown.wait(lambda line: "mean change" in line)
    for word in ("render", "fix", "ms", "reference"):
        assert word in moved
    shown.keep("live_moved")
    fixed_left, fixed_right = shown.halves()
    assert np.abs(fixed_left - left).mean() > 3
    assert np.abs(fixed_left - fixed_right).mean() > 0.5
    # One picture over the whole page, without and with the fix.
    shown.choose("Fix", "off")
    assert "fix" not in shown.wait(lambda line: "fix" not in line)
    shown.keep("live_off")
    off = np.concatenate(shown.halves(), axis=1)
    shown.choose("Fix", "on")
    shown.wait(lambda line: "mean change" in line)
    shown.keep("live_on")
    on = np.concatenate(shown.halves(), axis=1)
    assert 0.5 < np.abs(on - off).mean() < 60
