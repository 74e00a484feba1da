"""Evaluation: protocols say which frames count, masks blacken, different protocols never meet, epipolar lines hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from difix3d import InputError
from difix3d.evaluation.ablation import over_seeds
from difix3d.evaluation.consistency import ConsistencyConfig, consistency, epipolar_distances, fundamental, matches
from difix3d.evaluation.pages import write_pages
from difix3d.evaluation.protocol import Protocol, load_protocol, protocol_names
from difix3d.evaluation.scores import check_comparable, read_scores, score_renders
from splat_recon import SyntheticConfig, generate_scene
from splat_recon.scene.synthetic.cameras import make_cameras
from splat_recon.scene.synthetic.layouts import make_world
from splat_recon.scene.synthetic.raycast import cast_image

rng = np.random.default_rng(0)
PHOTO = rng.integers(0, 200, (24, 32, 3), dtype=np.uint8)


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """A capture in the form of Nerfbusters with two test photos, masks, and renders that are 10 too bright."""
    scene = tmp_path / "scenes" / "art"
    for name in ("frame_00000", "frame_00001", "frame_1_00000", "frame_1_00001"):
        save(scene / "images" / f"{name}.png", PHOTO)
    mask = np.zeros((24, 32), np.uint8)
    mask[:, :16] = 1
    for place in range(2):
        save(scene / "visibility_median_count" / f"{place:05d}.png", mask)
        bright = PHOTO + np.uint8(10)
        bright[:, 16:] = 255
        save(tmp_path / "renders" / "art" / f"frame_1_{place:05d}.png", bright)
    return tmp_path


def scored(place: Path, protocol: Protocol | None = None, **options) -> dict:
    protocol = protocol or load_protocol("nerfbusters")
    *_, content = score_renders(place / "renders", place / "scenes", protocol, method="ours", **options)
    return content


def test_nerfbusters_tests_on_the_second_pass_and_halves_some_scenes(captures: Path) -> None:
    protocol = load_protocol("nerfbusters")
    assert len(protocol.scenes) == 12
    names = [path.name for path in protocol.test_photos(captures / "scenes" / "art")]
    assert names == ["frame_1_00000.png", "frame_1_00001.png"]
    assert protocol.photo_folder(Path("car")).name == "images_2"


def test_dl3dv_drops_frames_before_it_counts_and_asks_for_train_ids(tmp_path: Path) -> None:
    protocol = load_protocol("dl3dv-difix")
    assert len(protocol.scenes) == 27
    name, dropped = next(iter(protocol.dropped.items()))
    assert name in protocol.scenes
    scene = tmp_path / name
    frames = ["frame_90001.png", dropped[0], "frame_90002.png", "frame_90003.png"]
    (scene / "nerfstudio").mkdir(parents=True)
    content = {"frames": [{"file_path": f"images/{frame}"} for frame in frames]}
    (scene / "nerfstudio" / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not public"):
        protocol.test_photos(scene)
    (scene / "difix_train_ids.json").write_text("[0, 2]")
    assert [path.name for path in protocol.test_photos(scene)] == ["frame_90002.png"]
    (scene / "difix_train_ids.json").write_text("[0, 3]")
    with pytest.raises(InputError, match="below 3"):
        protocol.test_photos(scene)


def test_what_is_masked_is_black_in_both_and_counts_as_right(captures: Path) -> None:
    content = scored(captures)
    # Half of the image is 10 of 255 off, the other half is black in both.
    wanted = -10 * np.log10((10 / 255) ** 2 / 2)
    assert content["means"]["psnr"] == pytest.approx(wanted, abs=1e-4)
    unmasked = scored(captures, masked=False)
    assert unmasked["means"]["psnr"] < wanted - 3
    assert content["fid"] is None
    assert "FID" in content["reasons"]["fid"]
    assert len(content["scenes_left_out"]) == 11


def test_scores_of_different_protocols_are_not_compared(captures: Path) -> None:
    same, unmasked = scored(captures), scored(captures, masked=False)
    other = scored(captures, dataclasses.replace(load_protocol("nerfbusters"), version=2))
    files = [captures / "a.json", captures / "b.json"]
    check_comparable(files, [same, scored(captures)])
    with pytest.raises(InputError, match="masked"):
        check_comparable(files, [same, unmasked])
    with pytest.raises(InputError, match="protocol version"):
        check_comparable(files, [same, other])
    files[0].write_text(json.dumps(same))
    assert read_scores(files[0])["means"] == same["means"]
    files[1].write_text("{}")
    with pytest.raises(InputError, match="no scores"):
        read_scores(files[1])


def test_everything_that_is_missing_is_named(captures: Path) -> None:
    (captures / "renders" / "art" / "frame_1_00000.png").unlink()
    (captures / "scenes" / "art" / "visibility_median_count" / "00001.png").unlink()
    with pytest.raises(InputError, match=r"frame_1_00000.png is absent; art/frame_1_00001.png has no mask"):
        scored(captures)
    with pytest.raises(InputError, match=", ".join(protocol_names())):
        load_protocol("mine")


def test_the_cameras_of_a_scene_are_consistent_with_its_photos() -> None:
    scene = generate_scene(3, SyntheticConfig(width=160, height=120, num_views=24))
    # Two views from places near each other: pixels of world points lie on each other's epipolar lines.
    a, b = scene.views[0].camera, scene.views[1].camera
    p_world = np.concatenate([scene.points.p_world[:50].astype(np.float64), np.ones((50, 1))], axis=1)
    pixels = []
    for camera in (a, b):
        projected = (p_world @ camera.T_cam_world.T)[:, :3] @ camera.K.T
        pixels.append(projected[:, :2] / projected[:, 2:])
    distances = epipolar_distances(fundamental(a, b), *pixels)
    assert distances.max() < 1e-6
    moved = epipolar_distances(fundamental(a, b), pixels[0], pixels[1] + np.array([3.0, 4.0]))
    assert np.median(moved) > 0.5


def test_matches_follow_a_shift_and_wrong_cameras_are_found_out() -> None:
    scene = generate_scene(3, SyntheticConfig(width=160, height=120, num_views=4))
    photo = np.array(scene.views[0].rgb_u8)
    p_a, p_b = matches(photo[:, :-6], photo[:, 6:])
    assert len(p_a) > 30
    assert np.abs(p_a - p_b - [6, 0]).max() < 1e-9
    # A camera that moves right sees the picture of a far wall shifted along rows, and not along columns.
    camera = scene.views[0].camera
    left = dataclasses.replace(camera, width=154)
    right, up = np.eye(4), np.eye(4)
    right[0, 3], up[1, 3] = 0.1, 0.1
    frames = [photo[:, :-6], photo[:, 6:]]
    good = consistency(frames, [left, left.with_pose(left.T_world_cam @ right)])
    bad = consistency(frames, [left, left.with_pose(left.T_world_cam @ up)])
    assert good["consistent_fraction"] == 1.0
    assert bad["consistent_fraction"] == 0.0
    assert consistency(frames, [left, left.with_pose(left.T_world_cam @ right)], ConsistencyConfig(min_matches=10**6))[
        "consistent_fraction"
    ] == pytest.approx(0)
    with pytest.raises(ValueError, match="two frames"):
        consistency(frames[:1], [left])


def test_what_bends_from_frame_to_frame_is_told_from_one_rigid_world() -> None:
    """Ray-cast frames are consistent whatever their size; bent ones are not, and the more the less."""
    rng = np.random.default_rng(3)
    world = make_world(rng, "garden")
    medians = {}
    for width, height in ((160, 120), (256, 192)):
        config = SyntheticConfig(layout="garden", width=width, height=height, num_views=40)
        cameras = make_cameras(np.random.default_rng(5), "garden", config)[:4]
        frames = [(cast_image(world, camera, 2).clip(0, 1) * 255).astype(np.uint8) for camera in cameras]
        for bent_by in (0.0, 1.5, 3.0):
            unit = max(width, height) / 256
            shown = [_bent(frame, bent_by * unit, rng) for frame in frames]
            found = consistency(shown, cameras)
            medians[width, bent_by] = found["median_distance"]
            assert found["consistent_fraction"] == found["fractions"]["1"]
            assert list(found["fractions"].values()) == sorted(found["fractions"].values())
            assert (found["consistent_fraction"] == 1.0) == (bent_by == 0.0)
    for width in (160, 256):
        assert medians[width, 0.0] < 0.7 < 1.0 < medians[width, 1.5] < medians[width, 3.0]


def _bent(frame: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """A frame moved by a smooth random field of so many pixels, root mean square."""
    height, width = frame.shape[:2]
    fields = []
    for _ in range(2):
        field = gaussian_filter(rng.normal(size=(height, width)), max(height, width) / 20)
        fields.append(field / field.std() * pixels)
    y, x = np.mgrid[:height, :width]
    planes = [
        map_coordinates(frame[..., c].astype(float), [y + fields[0], x + fields[1]], order=1, mode="nearest")
        for c in range(3)
    ]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def test_a_table_of_several_seeds_has_means_spreads_and_gains(tmp_path: Path) -> None:
    consistent = {"consistent_fraction": 1.0, "fractions": {"1": 1.0}, "median_distance": 0.4, "num_pairs": 2}
    found = [consistent | {"num_matches": 10}, consistent | {"consistent_fraction": 0.5, "num_matches": 30}]
    scores = [{"psnr": 20.0, "gain": 1.0}, {"psnr": 22.0, "gain": -0.5}]
    by_seed = {
        seed: {**one, "ssim": 0.5, "lpips": None, "consistency": seen}
        for seed, one, seen in zip((1, 2), scores, found, strict=True)
    }
    row = over_seeds(by_seed)
    assert (row["psnr"], row["gain"], row["lpips"]) == (21.0, 0.25, None)
    assert row["spread"] == pytest.approx({"psnr": 2**0.5, "gain": 1.5 / 2**0.5, "ssim": 0.0})
    assert row["consistency"]["consistent_fraction"] == 0.75
    assert row["consistency"]["num_matches"] == 40
    assert over_seeds({1: by_seed[1]}) == by_seed[1]
    markdown, _ = write_pages(tmp_path, "ablation", {"loop": row}, title="A", notes=[], facts={})
    assert "| loop | 21.00 ± 1.41 | +0.25 ± 1.06 | 0.5000 ± 0.0000 | – | – | 75% (median 0.40 px) |" in (
        markdown.read_text(encoding="utf-8")
    )


def test_pages_say_what_is_not_known(tmp_path: Path) -> None:
    rows = {"plain": {"psnr": 17.123, "ssim": 0.5, "lpips": None}}
    markdown, page = write_pages(tmp_path, "scores", rows, title="Scores", notes=["no masks"], facts={"a": 1})
    assert "| plain | 17.12 | 0.5000 | – | – |" in markdown.read_text(encoding="utf-8")
    assert "no masks" in page.read_text(encoding="utf-8")
    assert "<!--" not in page.read_text(encoding="utf-8")
