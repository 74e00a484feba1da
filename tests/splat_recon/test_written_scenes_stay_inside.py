"""Scenes are written under safe names, whatever their views are called, and read back with the same photos."""

from dataclasses import replace
from pathlib import Path

import pytest

from splat_recon import InputError, Scene, read_scene, write_scene, write_transforms
from support.posed_scenes import orbit_scene

WRITERS = [write_scene, write_transforms]


def renamed(names: list[str]) -> Scene:
    scene = orbit_scene(len(names), masks=True, width=16, height=12)
    views = [replace(view, name=name) for view, name in zip(scene.views, names, strict=True)]
    return replace(scene, views=tuple(views))


@pytest.mark.parametrize("write", WRITERS)
def test_a_link_in_the_folder_is_not_written_through(write, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "photos")
    with pytest.raises(InputError, match=r"out/images leads to .*photos, out of"):
        write(tmp_path / "out", orbit_scene(2))
    assert not list((tmp_path / "photos").iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_with_a_second_name_elsewhere_keeps_its_bytes(write, tmp_path: Path):
    (tmp_path / "photo.png").write_bytes(b"a photo of the user's")
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "photo_000.png").hardlink_to(tmp_path / "photo.png")
    write(tmp_path / "out", orbit_scene(2))
    assert (tmp_path / "photo.png").read_bytes() == b"a photo of the user's"


def test_names_that_are_fine_stay(tmp_path: Path):
    write_scene(tmp_path, renamed(["left/1.jpg", "a b.PNG", "no_ending", "photo.heic"]))
    assert read_scene(tmp_path).names == ("a b.PNG", "left/1.jpg", "no_ending.png", "photo.png")
