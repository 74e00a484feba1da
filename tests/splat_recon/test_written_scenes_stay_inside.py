"""Scenes are written under safe names, whatever their views are called, and read back with the same photos."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_recon import InputError, Scene, read_scene, write_scene, write_transforms
from support.hostile_names import HOSTILE, files_outside
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


NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=12), st.just("ABSOLUTE"))


@pytest.mark.parametrize("write", WRITERS)
@given(names=st.lists(NAMES, min_size=1, max_size=5, unique=True))
@settings(max_examples=25, deadline=None)
def test_nothing_is_written_outside_the_folder(write, names: list[str]):
    with TemporaryDirectory() as temporary:
        world = Path(temporary)
        (world / "beside").mkdir()
        (world / "beside" / "up.png").write_bytes(b"a photo of the user's")
        names = [str(world / "beside" / "up.png") if name == "ABSOLUTE" else name for name in names]
        before = files_outside(world, world / "out")
        scene = renamed(names)
        write(world / "out", scene)
        assert files_outside(world, world / "out") == before
        found = read_scene(world / "out")
        for view in scene.views:
            (same,) = [f for f in found.views if np.allclose(f.camera.T_world_cam, view.camera.T_world_cam, atol=1e-6)]
            assert np.abs(same.rgb_u8.astype(int) - view.rgb_u8).mean() < 12
            assert same.mask is not None
