"""The live page without a browser: which picture is shown when, and which fixes are dropped."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix3d import InputError
from difix3d.viewer.composer import FixComposer
from difix3d.viewer.config import LiveConfig
from difix3d.viewer.fixes import LiveFixes, PictureFixer
from difix3d.viewer.pictures import SEAM_PX, bar_height, half_camera, side_by_side
from splat_recon.io.images import to_u8
from splat_recon.pages.view_requests import ViewRequests, camera_of
from splat_render import Camera, RenderOutput, make_rasterizer
from support import viewer_page
from support.splat_scenes import make_camera, make_gaussians
from support.viewer_page import Clock

GAUSSIANS = make_gaussians(100)


class Page(viewer_page.Page):
    """A small page, and the camera of a whole picture of it."""

    def __init__(self, width: int = 160, height: int = 96) -> None:
        super().__init__(width=width, height=height)

    def whole(self) -> Camera:
        camera = camera_of(self.camera, 1000)
        assert camera is not None
        return camera


class Inverting:
    """A fix that no render can be taken for; what happens while it works is up to the test."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []
        self.meanwhile: Any = None

    def __call__(self, rgb_u8: np.ndarray, T_world_cam: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        self.given.append(rgb_u8)
        if self.meanwhile is not None:
            self.meanwhile()
        return 255 - rgb_u8, ("photo.jpg",)


class Stage:
    """Everything but the server and the browser; fixes are made when the test says so."""

    def __init__(self, mode: Any = "side-by-side", fixer: Any = None) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.fixer = fixer or Inverting()
        self.fixes = LiveFixes(self.fixer)
        self.composer = FixComposer(self.fixes, mode=mode, set_status=self.said.append)
        self.requests = ViewRequests(max_px=1000, clock=self.clock, composer=self.composer)
        self.fixes.ready = self.requests.ask_again
        self.num_renders = 0

    def render(self, camera: Camera) -> RenderOutput:
        self.num_renders += 1
        return make_rasterizer("cpu")(GAUSSIANS, camera, sh_degree=0)

    def draw(self) -> bool:
        return self.requests.draw_one(self.render)

    def moved(self, page: Page, *, client_id: int = 1, by: float = 0.0) -> None:
        """The page's camera moves, and the picture of the movement is drawn."""
        page.camera.position = page.camera.position + np.array([by, 0.0, 0.0])
        self.requests.ask(client_id, page)
        assert self.draw()

    def rested(self, page: Page, *, client_id: int = 1, by: float = 0.0) -> None:
        """It moves and comes to rest, and that is drawn, too."""
        self.moved(page, client_id=client_id, by=by)
        self.clock.settle()
        assert self.draw()


def rendered(camera: Camera) -> np.ndarray:
    return to_u8(make_rasterizer("cpu")(GAUSSIANS, camera, sh_degree=0).rgb)


def halves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = (picture.shape[1] - SEAM_PX) // 2
    above = picture[: -bar_height(96)]
    assert (above[:, width : width + SEAM_PX] == 255).all()
    return above[:, :width], above[:, width + SEAM_PX :]


def test_both_halves_are_bit_for_bit_what_was_given() -> None:
    generator = np.random.default_rng(3)
    left, right = (generator.integers(0, 256, (50, 61, 3), dtype=np.uint8) for _ in range(2))
    picture = side_by_side(left, right, ("as rendered, 3 ms", "fixed, 40 ms"), 20)
    assert picture.shape == (70, 2 * 61 + SEAM_PX, 3)
    np.testing.assert_array_equal(picture[:50, :61], left)
    np.testing.assert_array_equal(picture[:50, 61 + SEAM_PX :], right)
    for label in (picture[50:, :61], picture[50:, 61 + SEAM_PX :]):
        assert label.max() > 200 > 100 > label.min()


def test_each_half_sees_things_as_large_as_the_page_does() -> None:
    page = dataclasses.replace(make_camera(), width=200, height=120)
    half = half_camera(page)
    assert 2 * half.width + SEAM_PX == page.width
    assert half.height + bar_height(page.height) == page.height
    assert (half.K[0, 0], half.K[1, 1]) == (page.K[0, 0], page.K[1, 1])
    assert (half.K[0, 2], half.K[1, 2]) == (half.width / 2, half.height / 2)
    np.testing.assert_array_equal(half.T_world_cam, page.T_world_cam)


def test_side_by_side_the_render_comes_at_once_and_the_fix_when_it_is_ready() -> None:
    stage, page = Stage(), Page()
    stage.moved(page)
    assert not stage.fixes.fix_one()
    assert "moving" in stage.said[-1]
    stage.clock.settle()
    assert stage.draw()
    wanted = rendered(half_camera(page.whole()))
    for half in halves(page.pictures[-1]):
        np.testing.assert_array_equal(half, wanted)
    assert "fixing" in stage.said[-1]
    assert stage.requests.is_settled
    num_renders = stage.num_renders
    assert stage.fixes.fix_one()
    assert stage.draw()
    left, right = halves(page.pictures[-1])
    np.testing.assert_array_equal(left, wanted)
    np.testing.assert_array_equal(right, 255 - wanted)
    # What was rendered for the fix is not rendered once more.
    assert stage.num_renders == num_renders
    for word in ("render", "fix ", "ms", "photo.jpg", "mean change"):
        assert word in stage.said[-1]
    assert not stage.draw()
    assert not stage.fixes.fix_one()


def test_off_and_on_show_the_whole_picture() -> None:
    stage, page = Stage(mode="off"), Page()
    stage.rested(page)
    wanted = rendered(page.whole())
    np.testing.assert_array_equal(page.pictures[-1], wanted)
    assert not stage.fixes.fix_one()
    stage.composer.mode = "on"
    stage.requests.ask_again()
    assert stage.draw()
    np.testing.assert_array_equal(page.pictures[-1], wanted)
    assert stage.fixes.fix_one()
    assert stage.draw()
    np.testing.assert_array_equal(page.pictures[-1], 255 - wanted)
    stage.composer.mode = "off"
    stage.requests.ask_again()
    assert stage.draw()
    np.testing.assert_array_equal(page.pictures[-1], wanted)
    with pytest.raises(ValueError, match="mode must be one of off, on, side-by-side"):
        stage.composer.mode = "maybe"


def test_depth_and_opacity_are_never_fixed() -> None:
    stage, page = Stage(mode="on"), Page()
    stage.requests.shown = "opacity"
    stage.rested(page)
    assert np.ptp(page.pictures[-1], axis=2).max() == 0
    assert not stage.fixes.fix_one()


def test_a_fix_that_is_outdated_when_it_is_done_is_dropped() -> None:
    fixer = Inverting()
    stage, page = Stage(mode="on", fixer=fixer), Page()
    stage.rested(page)
    fixer.meanwhile = lambda: stage.moved(page, by=0.1)
    assert stage.fixes.fix_one()
    assert stage.fixes.num_dropped == 1
    fixer.meanwhile = None
    assert not stage.draw()
    wanted = rendered(page.whole())
    np.testing.assert_array_equal(page.pictures[-1], wanted)
    # Where the page rests now, a fix of what it shows comes.
    stage.clock.settle()
    assert stage.draw()
    assert stage.fixes.fix_one()
    assert stage.draw()
    np.testing.assert_array_equal(page.pictures[-1], 255 - wanted)
    assert stage.fixes.num_dropped == 1


def test_a_fix_that_was_ready_is_not_shown_elsewhere() -> None:
    stage, page = Stage(mode="on"), Page()
    stage.rested(page)
    assert stage.fixes.fix_one()
    # The page moves before the fix is drawn.
    stage.moved(page, by=0.1)
    np.testing.assert_array_equal(page.pictures[-1], rendered(page.whole()))


def test_what_is_outdated_before_its_turn_is_never_fixed() -> None:
    stage, page = Stage(mode="on"), Page()
    for _ in range(3):
        stage.rested(page, by=0.1)
    assert stage.fixes.fix_one()
    assert not stage.fixes.fix_one()
    assert len(stage.fixer.given) == 1
    np.testing.assert_array_equal(stage.fixer.given[0], rendered(page.whole()))


def test_pages_are_fixed_in_turn_each_for_itself() -> None:
    stage, pages = Stage(mode="on"), [Page(), Page(width=120)]
    for number, page in enumerate(pages):
        stage.rested(page, client_id=number)
    for page in pages:
        num_before = [len(one.pictures) for one in pages]
        assert stage.fixes.fix_one()
        assert stage.draw()
        assert not stage.draw()
        np.testing.assert_array_equal(page.pictures[-1], 255 - rendered(page.whole()))
        assert sum(len(one.pictures) for one in pages) == sum(num_before) + 1
    stage.rested(pages[0], client_id=0, by=0.1)
    stage.requests.cancel(0)
    assert not stage.fixes.fix_one()


def test_where_the_fixer_fails_the_page_goes_on_and_says_why() -> None:
    def failing(rgb_u8: np.ndarray, T_world_cam: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        raise InputError("photo.jpg is damaged")

    stage, page = Stage(fixer=failing), Page()
    assert isinstance(failing, PictureFixer)
    stage.rested(page)
    assert stage.fixes.fix_one()
    assert stage.draw()
    left, right = halves(page.pictures[-1])
    np.testing.assert_array_equal(left, right)
    assert "no fix" in stage.said[-1]
    assert "photo.jpg is damaged" in stage.said[-1]
    assert not stage.draw()


def test_a_thread_of_its_own_fixes_and_ends() -> None:
    stage, page = Stage(mode="on"), Page()
    ready = threading.Event()
    stage.fixes.ready = lambda client_id: (stage.requests.ask_again(client_id), ready.set())  # type: ignore[assignment,return-value]
    stage.fixes.start()
    stage.rested(page)
    assert ready.wait(timeout=20)
    assert stage.draw()
    np.testing.assert_array_equal(page.pictures[-1], 255 - rendered(page.whole()))
    stage.fixes.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fixes"]


def test_a_photos_place_is_fixed_as_the_same_frame_of_a_film(tmp_path: Path) -> None:
    from difix3d.enhance.config import EnhanceConfig
    from difix3d.enhance.references import PosedPhotos
    from difix3d.enhance.run import Enhancement
    from difix3d.viewer.page import PhotoFixer
    from difix_model import FixerConfig, open_pipeline
    from splat_recon import SyntheticConfig, generate_scene, read_scene, write_scene
    from splat_render import write_ply

    write_scene(tmp_path / "scene", generate_scene(3, SyntheticConfig(width=48, height=40, num_views=4)))
    write_ply(tmp_path / "splat.ply", GAUSSIANS)
    pipeline = open_pipeline(FixerConfig(gate="off"), device="cpu")
    film = EnhanceConfig(
        splat=tmp_path / "splat.ply",
        scene=tmp_path / "scene",
        out=tmp_path / "film",
        path="given",
        steady=False,
        device="cpu",
        fixer=FixerConfig(gate="off"),
    )
    list(Enhancement(film, pipeline).run())
    frames = [np.array(Image.open(path)) for path in sorted((tmp_path / "film").glob("*.png"))]
    fixer = PhotoFixer(pipeline, PosedPhotos.of_scene(tmp_path / "scene"))
    for view, frame in zip(read_scene(tmp_path / "scene").views, frames, strict=True):
        fixed, references = fixer(rendered_as_saved(view.camera), view.camera.T_world_cam)
        assert references == (Path(view.name).name,)
        np.testing.assert_array_equal(fixed, frame)
        assert (fixed != rendered_as_saved(view.camera)).any()


def rendered_as_saved(camera: Camera) -> np.ndarray:
    return to_u8(make_rasterizer("cpu")(GAUSSIANS, camera, sh_degree=GAUSSIANS.sh_degree_max).rgb)


def test_a_page_of_a_scene_is_served_and_closed(tmp_path: Path) -> None:
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    import urllib.request

    from difix3d.viewer.page import LivePage
    from splat_recon import SyntheticConfig, generate_scene, write_scene
    from splat_render import write_ply

    class Unused:
        batch_size = 1
        uses_reference = False

        def fix_images(self, images: Any, references: Any = None, **options: Any) -> Any:
            raise AssertionError("nobody looks at the page")

    write_scene(tmp_path / "scene", generate_scene(3, SyntheticConfig(width=48, height=40, num_views=4)))
    write_ply(tmp_path / "splat.ply", GAUSSIANS)
    config = LiveConfig(splat=tmp_path / "splat.ply", scene=tmp_path / "scene", device="cpu", port=8620)
    with LivePage(config, Unused()) as page:
        page.serve(seconds=0.1)
        assert page.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(page.url, timeout=20) as content:
            assert b"<script" in content.read()
    assert not [thread for thread in threading.enumerate() if thread.name == "fixes"]
    with pytest.raises(InputError, match="there is no"):
        LivePage(dataclasses.replace(config, scene=tmp_path / "away"), Unused())


def test_wrong_flags_are_named() -> None:
    wrongs: list[dict[str, Any]] = [{"max_size": 64}, {"num_references": -1}, {"port": 0}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LiveConfig(splat=Path("a.ply"), **wrong)
