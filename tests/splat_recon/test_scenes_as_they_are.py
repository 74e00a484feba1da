"""Folders as people have them: several models, smaller copies, masks, turned photos, every lens."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon import InputError, read_scene, write_scene
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.undistort import default_cache_folder
from splat_recon.scene.photo_store import StoredView
from splat_render.poses import rigid
from support.posed_scenes import orbit_scene

LENSES = {
    "SIMPLE_PINHOLE": [150, 80, 60],
    "PINHOLE": [150, 165, 82, 57],
    "SIMPLE_RADIAL": [150, 80, 60, -0.08],
    "RADIAL": [150, 80, 60, -0.06, 0.01],
    "OPENCV": [150, 165, 79, 61, -0.08, 0.02, 0.001, -0.002],
    "FULL_OPENCV": [150, 152, 78, 60, -0.06, 0.01, 0.001, -0.001, 0.002, 0.01, 0.0, 0.0],
    "OPENCV_FISHEYE": [150, 155, 79, 61, 0.02, -0.01, 0.002, 0.0],
    "SIMPLE_RADIAL_FISHEYE": [150, 80, 60, 0.02],
    "RADIAL_FISHEYE": [150, 80, 60, 0.02, -0.01],
    "FOV": [150, 152, 80, 60, 0.4],
    "THIN_PRISM_FISHEYE": [150, 152, 80, 60, 0.02, -0.01, 0.001, 0.001, 0, 0, 0.001, 0.001],
    "RAD_TAN_THIN_PRISM_FISHEYE": [150, 152, 80, 60, 0.01, -0.01, 0, 0, 0, 0, 0.001, -0.001, 0.001, 0, 0.001, 0],
    "SIMPLE_FISHEYE": [150, 80, 60],
    "FISHEYE": [150, 158, 80, 60],
    "SIMPLE_DIVISION": [150, 80, 60, -0.05],
    "DIVISION": [150, 158, 80, 60, -0.05],
    "EUCM": [150, 152, 80, 60, 0.6, 1.1],
}
WIDTH, HEIGHT = 160, 120


def dots(camera: pycolmap.Camera, p_cam: np.ndarray) -> np.ndarray:
    """A gray photo with a white dot at each point."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    light = np.zeros((camera.height, camera.width))
    for x, y in np.asarray(camera.img_from_cam(p_cam)):
        light += np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 1.6**2))
    return np.repeat(np.round(30 + 220 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def write_dots(folder: Path, lens: str, *, size=(WIDTH, HEIGHT), turned=False) -> np.ndarray:
    """A scene of one photo of dots through a lens; returns the dots' positions in the camera."""
    params = np.array(LENSES[lens], dtype=np.float64)
    camera = pycolmap.Camera(camera_id=1, model=lens, width=WIDTH, height=HEIGHT, params=params)
    x, y = np.meshgrid(np.linspace(-0.36, 0.36, 5), np.linspace(-0.26, 0.26, 4))
    p_cam = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1) * np.linspace(2, 3, x.size)[:, None]
    T_cam_world = rigid(np.eye(3), np.array([0.1, -0.2, 0.3]))
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name="a.png", camera_id=1, image_id=1)
    reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T_cam_world[:3]))
    for p in p_cam:
        reconstruction.add_point3D(p - T_cam_world[:3, 3], pycolmap.Track(), np.array([9, 9, 9], np.uint8))
    (folder / "sparse" / "0").mkdir(parents=True)
    (folder / "images").mkdir()
    reconstruction.write(folder / "sparse" / "0")
    drawn = pycolmap.Camera(camera.todict())
    drawn.rescale(*size)
    photo, exif = Image.fromarray(dots(drawn, p_cam)), Image.Exif()
    if turned:
        # Stored lying on its side; orientation 6 turns it by a quarter to the right.
        photo, exif[0x0112] = photo.transpose(Image.Transpose.ROTATE_90), 6
    photo.save(folder / "images" / "a.png", exif=exif)
    return p_cam


def worst_offset(view, p_cam) -> float:
    """Largest distance, in pixels, of a dot's center from where the view's pinhole projects it."""
    K, distances = view.camera.K, []
    light = view.rgb_u8[..., 0].astype(float) - 30
    for p in p_cam:
        x, y = (K @ p)[:2] / p[2]
        left, top = int(x) - 5, int(y) - 5
        if left < 0 or top < 0 or left + 11 > view.camera.width or top + 11 > view.camera.height:
            continue
        window = light[top : top + 11, left : left + 11]
        u, v = np.meshgrid(np.arange(left, left + 11) + 0.5, np.arange(top, top + 11) + 0.5)
        distances.append(np.hypot((window * u).sum() / window.sum() - x, (window * v).sum() / window.sum() - y))
    assert len(distances) >= 6
    return max(distances)


def test_every_lens_of_colmap_is_listed():
    known = set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"}
    assert known == set(LENSES)


@pytest.mark.parametrize("lens", sorted(LENSES))
def test_points_stay_where_the_pinhole_projects_them(tmp_path, lens):
    p_cam = write_dots(tmp_path, lens)
    (view,) = read_scene(tmp_path).views
    assert worst_offset(view, p_cam) < 0.15
    np.testing.assert_allclose(view.camera.center_world, [-0.1, 0.2, -0.3], atol=1e-12)


@pytest.mark.parametrize("lens", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
def test_smaller_photos_scale_every_lens(tmp_path, lens):
    p_cam = write_dots(tmp_path, lens, size=(121, 91))
    (view,) = read_scene(tmp_path).views
    np.testing.assert_allclose(view.camera.K[0, 0], LENSES[lens][0] * 121 / WIDTH, rtol=1e-6)
    assert worst_offset(view, p_cam) < 0.15


@pytest.mark.parametrize("lens", ["PINHOLE", "SIMPLE_RADIAL"])
def test_a_photo_that_only_its_exif_orientation_makes_fit_is_turned(tmp_path, lens, caplog):
    p_cam = write_dots(tmp_path, lens, turned=True)
    with Image.open(tmp_path / "images" / "a.png") as stored:
        assert stored.size == (HEIGHT, WIDTH)
    with caplog.at_level("INFO"):
        (view,) = read_scene(tmp_path).views
    assert "turned by their EXIF orientation" in caplog.text
    assert worst_offset(view, p_cam) < 0.15


@pytest.fixture
def folder(tmp_path):
    write_scene(tmp_path / "orbit", orbit_scene(6))
    return tmp_path / "orbit"


def keep_images(model: Path, out: Path, count: int) -> None:
    reconstruction = pycolmap.Reconstruction(model)
    for image_id in sorted(reconstruction.images)[count:]:
        reconstruction.deregister_frame(reconstruction.images[image_id].frame_id)
    out.mkdir(parents=True)
    reconstruction.write(out)


@pytest.mark.parametrize("text", [False, True])
def test_of_several_models_the_largest_is_read_and_said(folder, caplog, text):
    root = folder / "sparse"
    for number, count in ((1, 4), (2, 6), (10, 3)):
        keep_images(root / "0", root / str(number), count)
    keep_images(root / "1", root / "00", 2)
    shutil.rmtree(root / "0")
    (root / "00").rename(root / "0")
    if text:
        for path in list(root.iterdir()):
            reconstruction = pycolmap.Reconstruction(path)
            shutil.rmtree(path)
            path.mkdir()
            reconstruction.write_text(path)
    scene = read_scene(folder)
    assert len(scene.views) == 6
    assert "holds 4 models, 0 (2 photos), 1 (4 photos), 2 (6 photos), 10 (3 photos): 2 is read" in caplog.text
    assert len(read_scene(folder, model="10").views) == 3
    assert len(read_scene(folder, model="sparse/1").views) == 4
    with pytest.raises(InputError, match=r"no model 7; it has sparse/0, sparse/1"):
        read_scene(folder, model="7")


def test_unregistered_photos_are_counted(folder, caplog):
    Image.new("RGB", (7, 5)).save(folder / "images" / "extra.png")
    with caplog.at_level("INFO"):
        assert len(read_scene(folder).views) == 6
    assert "1 of 7 photos" in caplog.text


def write_copies(folder: Path, factor: int, *, suffix=".jpg", skip=0) -> None:
    copies = folder / f"images_{factor}"
    copies.mkdir()
    for path in sorted((folder / "images").iterdir())[skip:]:
        with Image.open(path) as photo:
            small = photo.resize((photo.width // factor, photo.height // factor), Image.Resampling.BOX)
            small.save((copies / path.name).with_suffix(suffix), quality=98)


def test_the_smallest_copies_that_fill_the_size_are_read(tmp_path, caplog):
    folder = tmp_path / "orbit"
    write_scene(folder, orbit_scene(3, width=101, height=75))
    full = read_scene(folder)
    for factor in (2, 4):
        write_copies(folder, factor)
    assert read_scene(folder).views[0].camera.width == 101
    for max_size, chosen, width in ((25, 4, 25), (20, 4, 20), (26, 2, 26), (50, 2, 50), (51, None, 51)):
        caplog.clear()
        with caplog.at_level("INFO"):
            scene = read_scene(folder, max_size=max_size)
        assert (f"images_{chosen} is read" in caplog.text) == (chosen is not None)
        assert ("is read" in caplog.text) == (chosen is not None)
        assert scene.names == full.names
        camera = scene.views[0].camera
        assert camera.width == width
        # A copy of 101 x 75 pixels halved has 50 x 37: each axis is scaled by its own ratio.
        np.testing.assert_allclose(camera.K[0] / camera.width, full.views[0].camera.K[0] / 101)
        np.testing.assert_allclose(camera.K[1] / camera.height, full.views[0].camera.K[1] / 75)
        assert np.abs(scene.views[0].rgb_u8.mean(axis=(0, 1)) - full.views[0].rgb_u8.mean(axis=(0, 1))).max() < 3
    assert read_scene(folder, images="images_4").views[0].camera.width == 25


def test_incomplete_copies_are_not_read_and_copies_may_stand_alone(tmp_path, caplog):
    folder = tmp_path / "orbit"
    write_scene(folder, orbit_scene(4, width=64, height=48))
    write_copies(folder, 2, skip=1)
    assert read_scene(folder, max_size=32).views[0].camera.width == 32
    assert "lacks 1 of 4 photos" in caplog.text
    write_copies(folder, 4, suffix=".png")
    shutil.rmtree(folder / "images")
    assert read_scene(folder).views[0].camera.width == 16
    assert "images_4 is read" in caplog.text


def test_masks_of_the_full_size_serve_smaller_photos(tmp_path, caplog):
    folder = tmp_path / "orbit"
    write_scene(folder, orbit_scene(3, width=64, height=48, masks=True))
    write_copies(folder, 2)
    with caplog.at_level("INFO"):
        view = read_scene(folder, images="images_2").views[0]
    assert "3 of 3 photos have a mask" in caplog.text
    assert view.mask is not None
    np.testing.assert_array_equal(view.mask, np.arange(32)[None].repeat(24, axis=0) < 24)


def test_masks_that_belong_to_no_photo_are_a_warning(folder, caplog):
    (folder / "masks").mkdir()
    Image.new("L", (32, 24), 255).save(folder / "masks" / "other.png")
    read_scene(folder)
    assert "belongs to none of the photos" in caplog.text


def test_a_mask_that_leaves_nothing_is_refused(folder):
    (folder / "masks").mkdir()
    Image.new("L", (32, 24), 0).save(folder / "masks" / "photo_001.png")
    with pytest.raises(InputError, match=r"photo_001\.png: its mask leaves no pixel"):
        read_scene(folder)


def undistortions(monkeypatch) -> list[str]:
    """Counts from here on what is really undistorted."""
    from splat_recon.io import posed_photos
    from splat_recon.io.undistort import undistorted

    done: list[str] = []

    def counting(pixels, camera):
        done.append(camera.model_name)
        return undistorted(pixels, camera)

    monkeypatch.setattr(posed_photos, "undistorted", counting)
    return done


def test_photos_are_undistorted_once(tmp_path, monkeypatch):
    folder, cache = tmp_path / "scene", tmp_path / "cache"
    write_dots(folder, "OPENCV")
    (folder / "masks").mkdir()
    Image.fromarray((np.arange(WIDTH)[None].repeat(HEIGHT, axis=0) < 100).astype(np.uint8) * 255).save(
        folder / "masks" / "a.png"
    )
    plain = read_scene(folder, max_size=100).views[0]
    assert not cache.exists()
    done = undistortions(monkeypatch)
    for _ in range(2):
        view = read_scene(folder, max_size=100, cache_folder=cache).views[0]
        np.testing.assert_array_equal(view.rgb_u8, plain.rgb_u8)
        np.testing.assert_array_equal(view.mask, plain.mask)
        np.testing.assert_array_equal(view.camera.K, plain.camera.K)
    assert len(done) == 1
    (kept,) = cache.rglob("*.png")
    kept.write_bytes(kept.read_bytes()[:200])
    np.testing.assert_array_equal(read_scene(folder, max_size=100, cache_folder=cache).views[0].rgb_u8, plain.rgb_u8)
    assert len(done) == 2
    read_scene(folder, max_size=90, cache_folder=cache)
    assert len(done) == 3
    # Another photo under the same name, of the same size and age, is another photo.
    photo = folder / "images" / "a.png"
    times = photo.stat()
    with Image.open(photo) as image:
        Image.eval(image, lambda value: 255 - value).save(photo)
    os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not np.array_equal(read_scene(folder, max_size=100, cache_folder=cache).views[0].rgb_u8, plain.rgb_u8)


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    write_dots(tmp_path / "scene", "SIMPLE_RADIAL")
    (tmp_path / "cache").write_text("in the way")
    view = read_scene(tmp_path / "scene", cache_folder=tmp_path / "cache").views[0]
    assert view.rgb_u8.std() > 5
    assert "cannot be kept" in caplog.text


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "splat-recon" / "photos"


def test_nothing_is_written_into_the_scene(tmp_path):
    write_dots(tmp_path / "scene", "RADIAL")
    before = sorted(tmp_path.rglob("*"))
    read_scene(tmp_path / "scene", max_size=50)
    assert sorted(tmp_path.rglob("*")) == before


def test_views_that_are_read_can_be_changed_like_any_other(folder):
    view = read_scene(folder).views[0]
    assert isinstance(view, StoredView)
    moved = replace(view, camera=view.camera.with_pose(np.eye(4)), name="moved.png")
    np.testing.assert_array_equal(moved.rgb_u8, view.rgb_u8)
    assert moved.name == "moved.png"
