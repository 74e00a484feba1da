"""COLMAP folders built here: round trips, distortion, and every kind of bad input."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon import InputError, Scene, normalized, read_scene, write_scene
from splat_recon.io.pycolmap_import import pycolmap
from splat_render.poses import rigid, similarity, transform_points
from support.posed_scenes import assert_same_scenes, orbit_scene, smooth_rgb


@pytest.fixture
def folder(tmp_path):
    write_scene(tmp_path / "orbit", orbit_scene(5))
    return tmp_path / "orbit"


def assert_same(a: Scene, b: Scene, atol=1e-9):
    assert_same_scenes(a, b, atol, K_atol=1e-12)


@pytest.mark.parametrize("masks", [False, True])
def test_a_written_scene_reads_back(tmp_path, masks):
    scene = orbit_scene(5, masks=masks)
    write_scene(tmp_path / "orbit", scene)
    back = read_scene(tmp_path / "orbit")
    assert_same(scene, back)
    assert back.name == "orbit"
    np.testing.assert_array_equal(back.T_scene_colmap, np.eye(4))


def test_a_normalized_scene_is_written_in_colmaps_frame(tmp_path):
    scene = orbit_scene(5)
    write_scene(tmp_path, normalized(scene))
    assert_same(scene, read_scene(tmp_path), atol=1e-6)


def test_text_models_and_the_other_places_are_read(folder, tmp_path):
    expected = read_scene(folder)
    reconstruction = pycolmap.Reconstruction(folder / "sparse" / "0")
    for place in ("colmap/sparse/0", "sparse"):
        other = tmp_path / place.replace("/", "_")
        shutil.copytree(folder / "images", other / "images")
        (other / place).mkdir(parents=True)
        reconstruction.write_text(other / place)
        assert_same(expected, read_scene(other))


def test_old_models_without_rigs_are_read(folder):
    expected = read_scene(folder)
    for name in ("rigs.bin", "frames.bin"):
        (folder / "sparse" / "0" / name).unlink()
    assert_same(expected, read_scene(folder))


def test_photos_that_the_model_does_not_register_are_left_alone(folder):
    expected = read_scene(folder)
    Image.new("RGB", (7, 5)).save(folder / "images" / "photo_000b.png")
    (folder / "images" / "notes.txt").write_text("not a photo")
    assert_same(expected, read_scene(folder))


def test_names_may_have_folders(tmp_path):
    scene = orbit_scene(3)
    views = tuple(replace(view, name=f"left/{index}/{view.name}") for index, view in enumerate(scene.views))
    nested = replace(scene, views=views)
    write_scene(tmp_path, nested)
    assert_same(nested, read_scene(tmp_path))


def test_several_cameras_of_different_sizes_are_read(tmp_path):
    small, large = orbit_scene(4), orbit_scene(4, width=48, height=20)
    mixed = replace(small, views=small.views[:2] + large.views[2:])
    write_scene(tmp_path, mixed)
    back = read_scene(tmp_path)
    assert_same(mixed, back)
    assert len({view.camera.width for view in back.views}) == 2


def test_keypoints_without_points_do_not_matter(tmp_path):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 4
    options.num_points3D, options.num_points2D_without_point3D = 30, 12
    options.camera_width, options.camera_height, options.camera_model_id = 48, 36, pycolmap.CameraModelId.PINHOLE
    options.camera_params = [50.0, 52.0, 24.0, 18.0]
    reconstruction = pycolmap.synthesize_dataset(options)
    assert any(not point.has_point3D() for image in reconstruction.images.values() for point in image.points2D)
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    reconstruction.write(tmp_path / "sparse" / "0")
    for image in reconstruction.images.values():
        path = tmp_path / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 36)).save(path)
    scene = read_scene(tmp_path)
    assert len(scene.views) == 4
    assert len(scene.points) == 30
    image = next(image for image in reconstruction.images.values() if image.name == scene.views[1].name)
    camera = scene.views[1].camera
    for point in [point for point in image.points2D if point.has_point3D()][:5]:
        p_cam = camera.T_cam_world @ [*reconstruction.points3D[point.point3D_id].xyz, 1]
        np.testing.assert_allclose((camera.K @ p_cam[:3])[:2] / p_cam[2], point.xy, atol=1e-6)


def test_common_smaller_photos_scale_the_intrinsics(folder, caplog):
    full = read_scene(folder)
    for name in full.names:
        with Image.open(folder / "images" / name) as photo:
            (folder / "images_2").mkdir(exist_ok=True)
            photo.resize((16, 12)).save(folder / "images_2" / name)
    with caplog.at_level("INFO"):
        half = read_scene(folder, images="images_2")
    assert "intrinsics are scaled" in caplog.text
    for view_full, view_half in zip(full.views, half.views, strict=True):
        assert (view_half.camera.width, view_half.camera.height) == (16, 12)
        np.testing.assert_allclose(view_half.camera.K[:2], view_full.camera.K[:2] / 2)


def test_max_size_downscales_while_reading(folder):
    scene = read_scene(folder, max_size=20)
    full = read_scene(folder)
    for view, view_full in zip(scene.views, full.views, strict=True):
        assert (view.camera.width, view.camera.height) == (20, 15)
        assert view.rgb_u8.shape == (15, 20, 3)
        np.testing.assert_allclose(view.camera.K[0], view_full.camera.K[0] * 20 / 32)


def test_exif_rotation_is_not_applied(folder):
    expected = read_scene(folder)
    name = expected.names[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "images" / name) as photo:
        rotated = photo.copy()
    rotated.save(folder / "images" / name, exif=exif)
    assert_same(expected, read_scene(folder))


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: f"{name}.PNG",
        lambda name: name.replace(".png", ".PNG"),
        lambda name: name.replace(".png", ".JPG"),
        lambda name: name.replace(".png", ".tif"),
        lambda name: name.upper(),
    ],
)
def test_masks_are_found_under_other_endings_and_in_either_case(folder, rule):
    (folder / "masks").mkdir()
    first = read_scene(folder).views[0]
    height, width = first.rgb_u8.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    alpha[:, : width // 2] = 255
    Image.fromarray(alpha).save(folder / "masks" / rule(first.name))
    mask = read_scene(folder).views[0].mask
    assert mask is not None
    np.testing.assert_array_equal(mask, alpha > 0)


def test_transparent_photos_and_mask_files_give_masks(folder):
    scene = read_scene(folder)
    first, second = scene.names[:2]
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:, :10] = 0
    Image.fromarray(np.dstack([scene.view(first).rgb_u8, alpha])).save(folder / "images" / first)
    (folder / "masks").mkdir()
    Image.fromarray(alpha).save(folder / "masks" / second)
    back = read_scene(folder)
    for name in (first, second):
        mask = back.view(name).mask
        assert mask is not None
        np.testing.assert_array_equal(mask, alpha > 0)
        np.testing.assert_array_equal(back.view(name).rgb_u8, scene.view(name).rgb_u8)
    assert back.views[2].mask is None


DISTORTED = {
    "SIMPLE_RADIAL": [60, 32, 24, -0.08],
    "RADIAL": [60, 32, 24, -0.06, 0.01],
    "OPENCV": [60, 61, 31.5, 24.5, -0.08, 0.02, 0.001, -0.002],
    "FULL_OPENCV": [60, 61, 31, 24, -0.06, 0.01, 0.001, -0.001, 0.002, 0.01, 0.0, 0.0],
    "OPENCV_FISHEYE": [60, 61, 31.5, 24.5, 0.02, -0.01, 0.002, 0.0],
    "SIMPLE_RADIAL_FISHEYE": [60, 32, 24, 0.02],
    "RADIAL_FISHEYE": [60, 32, 24, 0.02, -0.01],
    "FOV": [60, 61, 32, 24, 0.4],
    "THIN_PRISM_FISHEYE": [60, 61, 32, 24, 0.02, -0.01, 0.001, 0.001, 0, 0, 0.001, 0.001],
    "SIMPLE_FISHEYE": [60, 32, 24],
    "SIMPLE_DIVISION": [60, 32, 24, -0.05],
}


@pytest.mark.parametrize("model", sorted(DISTORTED))
def test_distortion_is_taken_out(tmp_path, model):
    camera = pycolmap.Camera(
        camera_id=1, model=model, width=64, height=48, params=np.array(DISTORTED[model], dtype=np.float64)
    )
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name="a.png", camera_id=1, image_id=1)
    reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(rigid(np.eye(3), np.ones(3))[:3]))
    reconstruction.add_point3D(np.ones(3), pycolmap.Track(), np.array([1, 2, 3], np.uint8))
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    reconstruction.write(tmp_path / "sparse" / "0")
    u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    rays = np.asarray(camera.cam_from_img(np.stack([u.ravel(), v.ravel()], axis=1))).reshape(48, 64, 2)
    Image.fromarray(smooth_rgb(rays[..., 0], rays[..., 1])).save(tmp_path / "images" / "a.png")
    view = read_scene(tmp_path).views[0]
    K = view.camera.K
    u, v = np.meshgrid(np.arange(view.camera.width) + 0.5, np.arange(view.camera.height) + 0.5)
    expected = smooth_rgb((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1])
    error = np.abs(view.rgb_u8.astype(int) - expected)[2:-2, 2:-2]
    assert error.max() <= 4
    assert error.mean() < 0.7
    np.testing.assert_allclose(view.camera.center_world, [-1, -1, -1])


def break_folder(folder: Path, how: str) -> None:
    first = folder / "images" / "photo_000.png"
    if how == "missing photo":
        first.unlink()
    elif how == "truncated photo":
        first.write_bytes(first.read_bytes()[:-200])
    elif how == "text as photo":
        first.write_text("hello")
    elif how == "empty photo":
        first.write_bytes(b"")
    elif how == "other size":
        Image.new("RGB", (31, 24)).save(first)
    elif how == "all larger":
        for path in sorted((folder / "images").iterdir()):
            Image.new("RGB", (64, 48)).save(path)
    elif how == "rotated":
        Image.new("RGB", (24, 32)).save(first)
    elif how == "no images folder":
        shutil.rmtree(folder / "images")
    elif how == "no model":
        shutil.rmtree(folder / "sparse")
    elif how == "no points file":
        (folder / "sparse" / "0" / "points3D.bin").unlink()
    elif how == "truncated model":
        path = folder / "sparse" / "0" / "images.bin"
        path.write_bytes(path.read_bytes()[:-37])
    elif how == "wrong mask":
        (folder / "masks").mkdir()
        Image.new("L", (5, 5)).save(folder / "masks" / "photo_000.png")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing photo", r"photo .*photo_000\.png is missing"),
        ("truncated photo", r"photo_000\.png cannot be read as an image, it may be damaged"),
        ("text as photo", r"photo_000\.png cannot be read as an image"),
        ("empty photo", r"photo_000\.png cannot be read as an image"),
        ("other size", r"photo_000\.png is 31x24 but its camera is 32x24"),
        ("all larger", r"is 64x48 but its camera is 32x24"),
        ("rotated", r"24x32 .* 32x24: its EXIF rotation"),
        ("no images folder", r"there is no folder .*images"),
        ("no model", r"is not a COLMAP scene folder"),
        ("no points file", r"lacks points3D\.bin"),
        ("truncated model", r"images\.bin is cut short"),
        ("wrong mask", r"mask .* is 5x5 but its photo is 32x24"),
    ],
)
def test_bad_folders_are_refused_in_a_sentence(folder, how, message):
    break_folder(folder, how)
    with pytest.raises(InputError, match=message):
        read_scene(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        read_scene(tmp_path / "nowhere")


def write_model(folder: Path, reconstruction) -> None:
    (folder / "sparse" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    reconstruction.write(folder / "sparse" / "0")


def test_models_without_images_are_refused_and_without_points_get_random_ones(tmp_path, folder, caplog):
    write_model(tmp_path / "empty", pycolmap.Reconstruction())
    with pytest.raises(InputError, match="no registered images"):
        read_scene(tmp_path / "empty")
    reconstruction = pycolmap.Reconstruction(folder / "sparse" / "0")
    for point_id in list(reconstruction.points3D):
        reconstruction.delete_point3D(point_id)
    reconstruction.write(folder / "sparse" / "0")
    scene = read_scene(folder)
    assert len(scene.points) > 1000
    assert "has no 3D points: training starts from points drawn at random" in caplog.text
    np.testing.assert_array_equal(scene.points.p_world, read_scene(folder).points.p_world)
    forward = [
        (transform_points(view.camera.T_cam_world, scene.points.p_world)[:, 2] > 0).mean() for view in scene.views
    ]
    assert max(forward) > 0.5


def test_panoramas_are_refused(folder):
    reconstruction = pycolmap.Reconstruction(folder / "sparse" / "0")
    reconstruction.cameras[1].model = pycolmap.CameraModelId.EQUIRECTANGULAR
    reconstruction.cameras[1].params = [32.0, 24.0]
    reconstruction.write(folder / "sparse" / "0")
    with pytest.raises(InputError, match="EQUIRECTANGULAR"):
        read_scene(folder)


def test_all_problems_come_in_one_error_and_ten_are_shown(tmp_path):
    write_scene(tmp_path, orbit_scene(14))
    for path in sorted((tmp_path / "images").iterdir())[1:]:
        path.unlink()
    first = tmp_path / "images" / "photo_000.png"
    first.write_bytes(first.read_bytes()[:-200])
    with pytest.raises(InputError) as caught:
        read_scene(tmp_path)
    message = str(caught.value)
    assert "14 problems" in message
    assert "and 4 more" in message
    assert message.count("is missing") == 10


def test_scenes_that_colmap_cannot_hold_are_not_written(tmp_path):
    scene = orbit_scene(2)
    skewed = scene.views[0].camera.K.copy()
    skewed[0, 1] = 1
    camera = replace(scene.views[0].camera, K=skewed)
    with pytest.raises(InputError, match="skew"):
        write_scene(tmp_path / "b", replace(scene, views=(replace(scene.views[0], camera=camera),)))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        write_scene(tmp_path / "file", scene)


def test_pycolmap_does_not_break_png_files():
    code = (
        "import tempfile, pathlib, numpy as np\n"
        "from splat_recon.io.pycolmap_import import pycolmap\n"
        "from PIL import Image\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "rng = np.random.default_rng(0)\n"
        "for index in range(20):\n"
        "    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f'{index}.png')\n"
        "bitmap = pycolmap.Bitmap.from_array(np.zeros((8, 8, 3), np.uint8))\n"
        "bitmap.write(folder / 'a.png')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_frame_of_a_moved_scene_is_kept(tmp_path):
    scene = orbit_scene(3)
    T_scene_colmap = similarity(2.0, np.eye(3), np.array([1.0, 2, 3]))
    write_scene(tmp_path, replace(scene, T_scene_colmap=T_scene_colmap))
    back = read_scene(tmp_path)
    for view, moved in zip(scene.views, back.views, strict=True):
        expected = (view.camera.center_world - [1, 2, 3]) / 2
        np.testing.assert_allclose(moved.camera.center_world, expected, atol=1e-12)
