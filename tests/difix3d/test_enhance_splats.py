"""Enhancing a splat's film, folders of renders and videos: the right frames, the right references, going on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix3d import InputError
from difix3d.enhance.config import EnhanceConfig
from difix3d.enhance.references import PosedPhotos
from difix3d.enhance.run import Enhancement
from difix_model import FixerConfig
from difix_model.video.fix import Fixer
from media_files import read_frames
from splat_recon import SplatModel, SyntheticConfig, generate_scene, read_scene, write_scene
from splat_recon.io.images import to_u8
from splat_render import read_splats, write_ply, write_splats
from support.frame_fixers import FrameFixer
from support.splat_scenes import make_gaussians


class Brightening(FrameFixer):
    """Adds 20 to every channel, and remembers what it was shown."""

    def __init__(self, *, uses_reference: bool = True, stop_after: int | None = None) -> None:
        self.batch_size = 2
        self.uses_reference = uses_reference
        self.stop_after = stop_after
        self.references: list[Any] = []

    def frames(self, images: list[np.ndarray], references: Any, strength: float) -> list[np.ndarray]:
        if self.stop_after is not None and len(self.references) >= self.stop_after:
            raise KeyboardInterrupt
        self.references += references or [None] * len(images)
        return [(np.clip(image.astype(int) + round(20 * strength), 0, 255)).astype(np.uint8) for image in images]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene folder and a splat in its world."""
    folder = tmp_path_factory.mktemp("place")
    write_scene(folder / "scene", generate_scene(3, SyntheticConfig(width=48, height=36, num_views=6)))
    gaussians = make_gaussians(200, degree=1)
    write_ply(folder / "splat.ply", gaussians)
    return folder


def enhanced(place: Path, out: Path, fixer: Brightening | None = None, **options: Any) -> Enhancement:
    given: dict[str, Any] = {"splat": place / "splat.ply", "scene": place / "scene", "path": "given", "steady": False}
    if "input" in options:
        del given["splat"]
    run = Enhancement(EnhanceConfig(out=out, device="cpu", **(given | options)), fixer or Brightening())
    list(run.run())
    return run


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_every_frame_of_a_splat_is_rendered_fixed_and_written(place: Path, tmp_path: Path) -> None:
    run = enhanced(place, tmp_path / "fixed")
    cameras = read_scene(place / "scene").views
    splats = SplatModel.of_file(place / "splat.ply")
    wanted = [np.clip(to_u8(splats.render(view.camera).rgb).astype(int) + 20, 0, 255) for view in cameras]
    found = pictures(tmp_path / "fixed")
    assert len(found) == len(wanted) == run.job.num_frames
    assert all((a == b).all() for a, b in zip(found, wanted, strict=True))


def test_a_frame_from_a_photos_place_has_this_photo_as_reference(place: Path, tmp_path: Path) -> None:
    run = enhanced(place, tmp_path / "fixed", num_references=2)
    names = [Path(view.name).name for view in read_scene(place / "scene").views]
    assert [several[0] for several in run.reference_names()] == names
    assert all(len(set(several)) == 2 for several in run.reference_names())


def test_what_is_stopped_goes_on_to_the_same_frames(place: Path, tmp_path: Path) -> None:
    enhanced(place, tmp_path / "whole.mp4", path="interpolated", frames=30, steady=True)
    stopped = Enhancement(
        EnhanceConfig(
            splat=place / "splat.ply", scene=place / "scene", frames=30, out=tmp_path / "parts.mp4", device="cpu"
        ),
        Brightening(stop_after=24),
    )
    with pytest.raises(KeyboardInterrupt):
        list(stopped.run())
    assert stopped.frames_written == 24
    options = {"path": "interpolated", "frames": 30, "steady": True, "resume": True}
    fixer = Brightening()
    enhanced(place, tmp_path / "parts.mp4", fixer, **options)
    assert len(fixer.references) == 30 - 24
    whole, parts = (np.stack(list(read_frames(tmp_path / name))) for name in ("whole.mp4", "parts.mp4"))
    assert (whole == parts).all()


def test_a_film_of_another_splat_is_not_gone_on_with(place: Path, tmp_path: Path) -> None:
    config = EnhanceConfig(
        splat=place / "splat.ply", scene=place / "scene", frames=30, out=tmp_path / "film.mp4", device="cpu"
    )
    with pytest.raises(KeyboardInterrupt):
        list(Enhancement(config, Brightening(stop_after=24)).run())
    other = dataclasses.replace(config, path="orbit", resume=True)
    with pytest.raises(InputError, match=r"another|other"):
        Enhancement(other, Brightening())


def test_strength_reaches_the_fixer(place: Path, tmp_path: Path) -> None:
    config = EnhanceConfig(
        splat=place / "splat.ply",
        scene=place / "scene",
        path="given",
        steady=False,
        out=tmp_path / "none",
        device="cpu",
        fixer=FixerConfig(strength=0.0),
    )
    list(Enhancement(config, Brightening()).run())
    splats = SplatModel.of_file(place / "splat.ply")
    first = read_scene(place / "scene").views[0]
    assert (pictures(tmp_path / "none")[0] == to_u8(splats.render(first.camera).rgb)).all()


def test_both_halves_stand_side_by_side(place: Path, tmp_path: Path) -> None:
    enhanced(place, tmp_path / "film.mp4", side_by_side=tmp_path / "both.mp4")
    frames = list(read_frames(tmp_path / "both.mp4"))
    alone = list(read_frames(tmp_path / "film.mp4"))
    assert len(frames) == len(alone) == 6
    assert frames[0].shape[1] == 2 * alone[0].shape[1] + 4
    # The right half is the brightened one, away from labels.
    left, right = frames[0][:20, :48].astype(float), frames[0][:20, 52:].astype(float)
    assert 10 < (right - left).mean() < 25


def test_other_splat_formats_are_seen_too(place: Path, tmp_path: Path) -> None:
    write_splats(tmp_path / "splat.spz", read_splats(place / "splat.ply"))
    enhanced(place, tmp_path / "fixed", splat=tmp_path / "splat.spz")
    enhanced(place, tmp_path / "original")
    first, second = (np.stack(pictures(tmp_path / name)).astype(float) for name in ("fixed", "original"))
    assert np.abs(first - second).mean() < 4


def test_frames_that_are_rendered_already_find_references_by_pose_and_by_looks(place: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    views = read_scene(place / "scene").views
    for index, view in enumerate(views):
        Image.fromarray(view.rgb_u8).save(frames / f"{index:03d}.png")
    names = [Path(view.name).name for view in views]
    by_pose = enhanced(place, tmp_path / "a", input=frames, path="interpolated", cameras=place / "scene")
    assert [several[0] for several in by_pose.reference_names()] == names
    by_looks = enhanced(place, tmp_path / "b", input=frames, path="interpolated")
    assert [several[0] for several in by_looks.reference_names()] == names
    video = tmp_path / "film.mp4"
    enhanced(place, video, references="none")
    of_video = enhanced(place, tmp_path / "again.mp4", input=video, path="interpolated", references="similarity")
    assert len(of_video.reference_names()) == 6


def test_frames_of_ns_render_find_references_by_their_camera_path(place: Path, tmp_path: Path) -> None:
    """Images of `ns-render camera-path`, its camera path, and the dataparser_transforms.json of its run."""
    frames = tmp_path / "renders"
    frames.mkdir()
    views = read_scene(place / "scene").views[::-1]
    turned = np.array([[0.0, 1, 0, 0.4], [-1, 0, 0, -0.2], [0, 0, 1, 0.3]])
    scale, opengl = 0.2, np.diag([1.0, -1, -1, 1])
    path = []
    for index, view in enumerate(views):
        Image.fromarray(view.rgb_u8).save(frames / f"{index:05d}.jpg")
        pose = np.vstack([turned, [0, 0, 0, 1]]) @ view.camera.T_world_cam @ opengl
        pose[:3, 3] *= scale
        path.append({"camera_to_world": pose.flatten().tolist(), "fov": 50.0, "aspect": 4 / 3})
    place_of_path = tmp_path / "path"
    place_of_path.mkdir()
    content = {"camera_type": "perspective", "render_height": 48, "render_width": 64, "fps": 24, "camera_path": path}
    (place_of_path / "camera_path.json").write_text(json.dumps(content))
    transforms = {"transform": turned.tolist(), "scale": scale}
    (place_of_path / "dataparser_transforms.json").write_text(json.dumps(transforms))
    done = enhanced(
        place, tmp_path / "out", input=frames, path="interpolated", cameras=place_of_path / "camera_path.json",
        references="pose",
    )  # fmt: skip
    assert [several[0] for several in done.reference_names()] == [Path(view.name).name for view in views]


def test_weights_without_references_get_none(place: Path, tmp_path: Path) -> None:
    fixer = Brightening(uses_reference=False)
    assert isinstance(fixer, Fixer)
    enhanced(place, tmp_path / "fixed", fixer)
    assert set(fixer.references) == {None}
    with pytest.raises(InputError, match="know no references"):
        enhanced(place, tmp_path / "more", fixer, references="pose")


def test_what_cannot_be_is_said_in_a_sentence(place: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"splat": tmp_path / "none.ply"}, "there is no"),
        ({"scene": None}, "from where"),
        ({"out": tmp_path / "film.txt"}, "cannot hold"),
        ({"side_by_side": place / "splat.mp4", "out": place / "splat.mp4"}, "named twice"),
        ({"input": place / "scene" / "images", "frames": 3}, "rendered already"),
        ({"references": "similarity", "scene": tmp_path / "away", "cameras": place / "scene"}, "no folder"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            enhanced(place, options.pop("out", tmp_path / "out.mp4"), **options)
    wrongs: list[dict[str, Any]] = [{"fps": 0.0}, {"frames": 0}, {"side_by_side": Path("both.gif")}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EnhanceConfig(input=Path("a"), out=Path("b"), **wrong)


def test_photos_of_blenders_scenes_are_references_by_pose(tmp_path):
    frames = {side: [] for side in ("train", "test")}
    for side, listed in frames.items():
        (tmp_path / side).mkdir()
        for index in range(3):
            Image.new("RGB", (8, 6)).save(tmp_path / side / f"r_{index}.png")
            T = np.eye(4)
            T[0, 3] = index + (10 if side == "test" else 0)
            listed.append({"file_path": f"./{side}/r_{index}", "transform_matrix": T.tolist()})
        content = {"camera_angle_x": 0.7, "frames": listed}
        (tmp_path / f"transforms_{side}.json").write_text(json.dumps(content))
    photos = PosedPhotos.of_scene(tmp_path)
    found = photos.nearest(photos.T_world_photo, 1)
    places = {
        path.relative_to(tmp_path).as_posix(): T[0, 3] for (path,), T in zip(found, photos.T_world_photo, strict=True)
    }
    assert places == {f"{side}/r_{index}.png": index + 10 * (side == "test") for side in frames for index in range(3)}
    near = photos.less((10.0, 0.0, 0.0)).nearest(np.eye(4)[None], 1)
    assert near[0][0] == tmp_path / "test" / "r_0.png"
