"""COLMAP models of scripts and other programs: read with all their photos, or refused in a sentence."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from splat_recon import InputError, read_camera_file, read_scene, write_scene
from splat_recon.io.pycolmap_import import pycolmap
from support.colmap_files import change, photo_lines
from support.posed_scenes import orbit_scene

SCENE = orbit_scene(6, width=16, height=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scene(tmp_path / "scene", SCENE)
    return tmp_path / "scene"


@pytest.fixture
def text(folder: Path) -> Path:
    """The model as text, without rigs, as older programs write it."""
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for path in list(model.iterdir()):
        path.unlink()
    reconstruction.write_text(model)
    for name in ("rigs.txt", "frames.txt"):
        (model / name).unlink(missing_ok=True)
    return folder


def is_the_scene(folder: Path) -> bool:
    """Every photo with its own pose and pixels, and nothing else."""
    found = read_scene(folder)
    assert len(found.views) == len(SCENE.views)
    for view in SCENE.views:
        (same,) = [f for f in found.views if np.allclose(f.camera.T_world_cam, view.camera.T_world_cam, atol=1e-9)]
        np.testing.assert_allclose(same.camera.K, view.camera.K)
        np.testing.assert_array_equal(same.rgb_u8, view.rgb_u8)
    assert len(found.points) == len(SCENE.points)
    return True


@pytest.mark.parametrize(
    "name", ["A-DJI plan ({}).png", "12 34 {}.png", "#{}.png", "\u3042 \u0301{}.png", "a\u00a0b{}.png"]
)
def test_photos_of_any_name_are_found(text: Path, name: str):
    def renamed(content: str) -> str:
        for index, view in enumerate(SCENE.views):
            content = content.replace(f" {view.name}\n", f" {name.format(index)}\n")
        return content

    change(text / "sparse" / "0" / "images.txt", renamed)
    for index, view in enumerate(SCENE.views):
        (text / "images" / view.name).rename(text / "images" / name.format(index))
    assert is_the_scene(text)
    assert read_scene(text).names == tuple(sorted(name.format(index) for index in range(6)))


def renamed_in_model(folder: Path, rule: Callable[[str], bytes]) -> None:
    path = folder / "sparse" / "0" / "images.bin"
    content = path.read_bytes()
    for view in SCENE.views:
        content = content.replace(view.name.encode() + b"\0", rule(view.name) + b"\0")
    path.write_bytes(content)


@pytest.mark.parametrize(("letter", "encoding"), [("\u00fc", "cp1252"), ("\u0436", "cp1251"), ("\u4e2d", "gbk")])
def test_names_in_the_code_page_of_another_system_find_their_files(folder: Path, letter: str, encoding: str):
    for view in SCENE.views:
        (folder / "images" / view.name).rename(folder / "images" / f"{letter}{view.name}")
    renamed_in_model(folder, lambda name: f"{letter}{name}".encode(encoding))
    assert is_the_scene(folder)
    assert all(name.isprintable() for name in read_scene(folder).names)


def test_names_that_are_no_text_anywhere_are_told_as_missing(folder: Path):
    renamed_in_model(folder, lambda name: b"\xfc\xff" + name.encode())
    with pytest.raises(InputError, match=r"whose name in the model is no UTF-8, is missing"):
        read_scene(folder)


def test_the_two_unicode_forms_of_a_name_are_one(folder: Path):
    for view in SCENE.views:
        (folder / "images" / view.name).rename(
            folder / "images" / unicodedata.normalize("NFD", f"sch\u00f6n{view.name}")
        )
    renamed_in_model(folder, lambda name: f"sch\u00f6n{name}".encode())
    assert is_the_scene(folder)


def test_cameras_that_no_photo_has_do_not_matter(text: Path):
    change(
        text / "sparse" / "0" / "cameras.txt",
        lambda content: (
            content + "77 PINHOLE 0 0 0 0 0 0\n78 NO_LENS 5 5\n79 OPENCV 5 5 1\n80 PINHOLE 99 99 nan 1 1 1\n"
        ),
    )
    assert is_the_scene(text)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ("NO_LENS 16 12 1 2 3", "the model NO_LENS is none of COLMAP's"),
        ("PINHOLE 16 12 20 20 8", "the model PINHOLE is of 4 parameters, not 3"),
        ("PINHOLE 16 12 nan 20 8 6", "are not those of a camera"),
        ("PINHOLE -16 12 20 20 8 6", "the size -16x12 is not that of a photo"),
        ("PINHOLE 0 12 20 20 8 6", "the size 0x12 is not that of a photo"),
        (f"PINHOLE {'9' * 400} 12 20 20 8 6", "the size 9999.* is not that of a photo"),
    ],
)
def test_cameras_of_photos_are_checked(text: Path, camera: str, message: str):
    (text / "sparse" / "0" / "cameras.txt").write_text(f"1 {camera}\n")
    change(
        text / "sparse" / "0" / "images.txt",
        lambda content: "\n".join(" ".join([*w[:8], "1", w[9]]) for w in map(str.split, photo_lines(content))),
    )
    with pytest.raises(InputError, match=message):
        read_scene(text)
    with pytest.raises(InputError, match=message):
        read_camera_file(text)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("images", "hello", r"images\.txt, line \d+ is neither a photo"),
        (
            "images",
            "7 0 0 0 0 0 0 0 1 photo_9.png",
            "photo_9.png has a pose that is not finite, or a quaternion of zeros",
        ),
        ("images", "7 nan 0 0 0 0 0 0 1 photo_9.png", "photo_9.png has a pose that is not finite"),
        ("images", "7 1 0 0 0 0 0 0 99 photo_9.png", "camera 99, which photo photo_9.png has, is not in the model"),
        ("images", "7 1 0 0 0 0 0 0 1 photo_9.png", "photo .*photo_9.png is missing"),
        ("points3D", "99 nan 0 0 1 2 3 0", "1 of 41 3D points are not finite"),
    ],
)
def test_lines_that_say_nothing_are_named(text: Path, name: str, line: str, message: str):
    change(text / "sparse" / "0" / f"{name}.txt", lambda content: f"{content.rstrip()}\n\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_scene(text)


def test_poses_of_rigs_are_those_of_colmaps_own_reader(tmp_path: Path):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 3, 2, 20
    expected = pycolmap.synthesize_dataset(options)
    for kind in ("binary", "text"):
        (tmp_path / kind).mkdir()
        (expected.write_binary if kind == "binary" else expected.write_text)(tmp_path / kind)
        found = read_camera_file(tmp_path / kind)
        assert len(found.names) == 12
        for image in expected.images.values():
            camera = found.cameras[found.names.index(image.name)]
            np.testing.assert_allclose(camera.T_cam_world[:3], image.cam_from_world().matrix(), atol=1e-9)
