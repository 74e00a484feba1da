"""Which file a name means: one, said clearly where it is none or several."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon import InputError, make_split, read_scene, write_scene, write_transforms
from splat_recon.io.image_folders import find_mask, listed
from splat_recon.io.pycolmap_import import pycolmap
from support.posed_scenes import orbit_scene


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(folder / name, format="PNG")
    return folder


@pytest.mark.parametrize(
    ("there", "name", "expected"),
    [
        (["a.png"], "a.png", ["a.png"]),
        (["a.jpg"], "a.png", ["a.jpg"]),
        (["a.png"], "a", ["a.png"]),
        (["1305.125.png", "1305.126.png"], "1305.126", ["1305.126.png"]),
        (["1305.125.png", "1305.126.png"], "1305.127", []),
        (["frame.0001.jpg", "frame.0002.jpg"], "frame.0002.png", ["frame.0002.jpg"]),
        (["A.PNG"], "a.png", ["A.PNG"]),
        (["A.PNG"], "a.jpg", ["A.PNG"]),
        (["a.png", "a.jpg"], "a.png", ["a.png"]),
        (["a.png", "a.jpg"], "a", ["a.jpg", "a.png"]),
        (["a.png", "a.jpg"], "a.webp", ["a.jpg", "a.png"]),
        (["A.png", "a.PNG"], "a.png", ["A.png", "a.PNG"]),
        (["o\u0308.png"], "\u00f6.png", ["o\u0308.png"]),
        (["\u00f6.png", "o\u0308.png"], "\u00f6.png", ["\u00f6.png"]),
        (["left/a.png", "right/a.png"], "left\\a.png", ["left/a.png"]),
        (["left/a.png", "right/a.png"], "a.png", []),
        (["a.png"], "C:\\photos\\a.png", ["a.png"]),
        (["left/a.png", "right/a.png"], "/elsewhere/scene/left/a.jpg", ["left/a.png"]),
        (["._a.png", ".thumbnails/a.png", "b.png"], "a.png", []),
    ],
)
def test_a_name_means_the_file_that_is_likest(tmp_path: Path, there: list[str], name: str, expected: list[str]):
    folder = listed(photos(tmp_path, *there))
    assert folder.candidates(name) == expected
    assert folder.file(name) == (tmp_path / expected[0] if len(expected) == 1 else None)


def test_photos_outside_the_folder_are_found_with_and_without_their_ending(tmp_path: Path):
    photos(tmp_path / "elsewhere", "a.png", "b.jpg", "b.png")
    folder = listed(photos(tmp_path / "scene", "c.png"))
    assert folder.file("../elsewhere/a.png") == tmp_path / "scene" / "../elsewhere/a.png"
    assert folder.file("../elsewhere/a") == tmp_path / "scene" / "../elsewhere/a.png"
    assert folder.file(str(tmp_path / "elsewhere" / "a")) == tmp_path / "elsewhere" / "a.png"
    assert len(folder.candidates("../elsewhere/b")) == 2


def scene_of(folder: Path, names: list[str], there: list[str]) -> Path:
    """A model of photos with these names, and files with those."""
    write_scene(folder, orbit_scene(len(names), width=4, height=3))
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for image, name in zip(reconstruction.images.values(), names, strict=True):
        (folder / "images" / image.name).unlink()
        image.name = name
    reconstruction.write(model)
    photos(folder / "images", *there)
    return folder


def test_two_photos_are_never_one_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"photos a\.jpg and a\.png are both .*images/a\.png: one of them is missing"):
        read_scene(scene_of(tmp_path / "ending", ["a.jpg", "a.png"], ["a.png"]))
    with pytest.raises(InputError, match=r"photos B\.png and b\.png are both|photos b\.png and B\.png are both"):
        read_scene(scene_of(tmp_path / "case", ["B.png", "b.png"], ["B.png"]))


def test_what_cannot_be_decided_is_said_with_both_candidates(tmp_path: Path):
    with pytest.raises(InputError, match=r"photo a may be a\.jpg or a\.png in .*: rename or remove all but one"):
        read_scene(scene_of(tmp_path, ["a", "b.png"], ["a.jpg", "a.png", "b.png"]))


def test_hidden_files_and_folders_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = scene_of(tmp_path, ["a.png", "b.png"], ["a.png", "b.png", ".thumbnails/a.png"])
    (folder / "images" / "._a.png").write_bytes(b"\0\5\x16\7")
    with caplog.at_level(logging.INFO):
        assert read_scene(folder).names == ("a.png", "b.png")
    assert "not registered" not in caplog.text


@pytest.mark.parametrize("name", ["photo.png", "/abs/photo.png", "../images/photo.png"])
def test_a_photo_is_not_its_own_mask(tmp_path: Path, name: str):
    photos(tmp_path / "images", "photo.png")
    name = name.replace("/abs", str(tmp_path / "images"))
    (tmp_path / "masks").mkdir()
    assert find_mask(tmp_path, tmp_path / "images", name) is None
    photos(tmp_path / "masks", "photo.png")
    assert find_mask(tmp_path, tmp_path / "images", name) == tmp_path / "masks" / "photo.png"


def test_masks_of_names_with_dots_are_their_own(tmp_path: Path):
    photos(tmp_path / "masks", "1305.125.png", "1305.126.png")
    assert find_mask(tmp_path, tmp_path / "images", "1305.126") == tmp_path / "masks" / "1305.126.png"
    assert find_mask(tmp_path, tmp_path / "images", "1305.127") is None


def transforms(folder: Path, change: Callable[[Path, dict, int], None]) -> Path:
    write_transforms(folder, orbit_scene(4, masks=True))
    content = json.loads((folder / "transforms.json").read_text())
    for index, frame in enumerate(content["frames"]):
        change(folder, frame, index)
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def elsewhere(folder: Path, frame: dict, index: int) -> None:
    place = folder.parent / "photos" / f"{index}.png"
    place.parent.mkdir(exist_ok=True)
    (folder / frame["file_path"]).rename(place)
    frame["file_path"] = str(place)


def dotted(folder: Path, frame: dict, index: int) -> None:
    (folder / frame["file_path"]).rename(folder / "images" / f"{1305.125 + index:.3f}.png")
    frame["file_path"] = f"./images/{1305.125 + index:.3f}"


def with_backslashes(folder: Path, frame: dict, index: int) -> None:
    for key in ("file_path", "mask_path"):
        frame[key] = frame[key].replace("/", "\\")


def without_endings(folder: Path, frame: dict, index: int) -> None:
    frame["file_path"] = frame["file_path"].removesuffix(".png")


def in_capitals(folder: Path, frame: dict, index: int) -> None:
    frame["mask_path"] = f"masks/{Path(frame['mask_path']).name.upper()}"


@pytest.mark.parametrize("change", [elsewhere, dotted, with_backslashes, without_endings, in_capitals])
def test_photos_and_masks_of_a_transforms_json_are_found(tmp_path: Path, change):
    found, expected = read_scene(transforms(tmp_path / "scene", change)), orbit_scene(4, masks=True)
    assert len(found.views) == 4
    for view in expected.views:
        (same,) = [f for f in found.views if np.allclose(f.camera.T_world_cam, view.camera.T_world_cam, atol=1e-6)]
        np.testing.assert_array_equal(same.rgb_u8, view.rgb_u8)
        np.testing.assert_array_equal(same.mask, view.mask)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_files_of_windows_editors_are_read(tmp_path: Path, encoding: str):
    path = transforms(tmp_path, lambda *_: None) / "transforms.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert len(read_scene(tmp_path).views) == 4


def test_splits_name_views_in_either_unicode_form_and_without_ending(tmp_path: Path):
    names = ("1305.125.png", "1305.126.png", "sch\u00f6n.png")
    content = {"train": ["1305.125.png", "1305.126"], "test": ["scho\u0308n.png"]}
    (tmp_path / "splits.json").write_text(json.dumps(content), encoding="utf-8-sig")
    split = make_split(names, "auto", scene_folder=tmp_path)
    assert split.test == ("sch\u00f6n.png",)
    assert split.train == names[:2]
    (tmp_path / "splits.json").write_text('{"train": ["a"], "test": ["b.png"]}')
    with pytest.raises(InputError, match=r'"train" names a, which may be a\.jpg or a\.png'):
        make_split(("a.jpg", "a.png", "b.png"), "auto", scene_folder=tmp_path)
