"""What no pinhole can show is said: fisheyes that see farther, panoramas, paths of other projections."""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from colmap_models import CAMERA_MODELS
from splat_recon import InputError, read_camera_file, read_scene, write_transforms
from splat_recon.io.field_of_view import field_of_view
from splat_recon.io.pycolmap_import import pycolmap
from support.posed_scenes import orbit_scene


def lens(model, params, size=(256, 256)):
    array = np.array(params, dtype=np.float64)
    return pycolmap.Camera(camera_id=1, model=model, width=size[0], height=size[1], params=array)


def write_lens_scene(folder, camera):
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    (folder / "images").mkdir(parents=True)
    (folder / "sparse").mkdir()
    for index in range(2):
        image = pycolmap.Image(name=f"{index}.png", camera_id=1, image_id=index + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([index, 0.0, 0.0]))
        reconstruction.add_image_with_trivial_frame(image, pose)
        Image.new("RGB", (camera.width, camera.height), (90, 90, 90)).save(folder / "images" / f"{index}.png")
    reconstruction.write(folder / "sparse")


def test_an_equidistant_lens_is_measured_as_its_formula_says():
    """r = f theta: the border at 128 pixels is at 128/100 radians, and the pinhole keeps what COLMAP crops to."""
    found = field_of_view(lens("RADIAL_FISHEYE", [100, 128, 128, 0, 0]))
    assert found.lens_deg == pytest.approx(2 * np.degrees(1.28), abs=0.5)
    pinhole = pycolmap.undistort_camera(
        pycolmap.UndistortCameraOptions(), lens("RADIAL_FISHEYE", [100, 128, 128, 0, 0])
    )
    tangent = pinhole.width / 2 / pinhole.focal_length_x
    assert found.pinhole_deg == pytest.approx(2 * np.degrees(np.arctan(tangent)), abs=1e-6)
    # Pixels of the lens, one by one, against the pinhole's borders.
    u, v = (np.stack(np.meshgrid(np.arange(256), np.arange(256))) + 0.5 - 128) / 100
    theta = np.hypot(u, v)
    x, y = (np.tan(theta) * side / np.maximum(theta, 1e-12) for side in (u, v))
    shown = (theta < np.pi / 2) & (np.abs(x) < tangent) & (np.abs(y) < tangent)
    assert found.kept == pytest.approx(shown.mean(), abs=0.01)
    assert found.is_much_lost


def test_the_table_of_camera_models_is_that_of_colmap():
    models = [model for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"]
    num_params = {model: len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params) for model in models}
    assert {int(model): (model.name, num_params[model]) for model in models} == CAMERA_MODELS


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (
            lens("RADIAL_FISHEYE", [75, 128, 128, 0, 0]),
            "sees 180 degrees or more across.*keeps an angle of view of 119",
        ),
        (lens("OPENCV_FISHEYE", [90, 90, 128, 128, 0.02, -0.01, 0.002, 0]), "sees 160 degrees across"),
    ],
)
def test_what_is_cut_from_a_fisheye_is_said_with_its_amount(tmp_path, caplog, camera, words):
    write_lens_scene(tmp_path / "scene", camera)
    assert len(read_scene(tmp_path / "scene").views) == 2
    assert re.search(rf"2 photos are of a lens.*{words}.*% of each photo are cut away", caplog.text)
    caplog.clear()
    drawn = read_camera_file(tmp_path / "scene").cameras[0]
    np.testing.assert_allclose(drawn.K, read_scene(tmp_path / "scene").views[0].camera.K)
    assert "2 cameras are fisheyes and are drawn as pinholes" in caplog.text


def test_ordinary_distortion_is_no_warning(tmp_path, caplog):
    write_lens_scene(tmp_path / "scene", lens("OPENCV", [230, 230, 128, 128, -0.08, 0.02, 0, 0]))
    read_scene(tmp_path / "scene")
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [message for message in warned if "cut away" in message]


def test_panoramas_are_no_cameras_to_draw_with(tmp_path):
    write_lens_scene(tmp_path / "scene", lens("EQUIRECTANGULAR", [256, 128], (256, 128)))
    for act in (read_scene, read_camera_file):
        with pytest.raises(InputError, match="EQUIRECTANGULAR is no perspective or fisheye"):
            act(tmp_path / "scene")


@pytest.mark.parametrize("place", ["file", "entry"])
@pytest.mark.parametrize("projection", ["equirectangular", "fisheye", "omnidirectional", "vr180"])
def test_paths_of_other_projections_are_refused(tmp_path, projection, place):
    entry = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50, "aspect": 2}
    content = {"camera_type": "perspective", "render_height": 64, "camera_path": [entry, entry]}
    path = tmp_path / "camera_path.json"
    path.write_text(json.dumps(content))
    assert len(read_camera_file(path).cameras) == 2
    if place == "file":
        content["camera_type"] = projection
    else:
        content["camera_path"] = [entry, {**entry, "camera_type": projection}]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"only perspective paths are drawn.*{projection}"):
        read_camera_file(path)


def test_instant_ngps_flag_makes_a_fisheye(tmp_path):
    """is_fisheye with k1 to k4 is the lens that camera_model OPENCV_FISHEYE names."""
    write_transforms(tmp_path, orbit_scene(3))
    content = json.loads((tmp_path / "transforms.json").read_text())
    for frame in content["frames"]:
        frame.update(k1=0.02, k2=-0.01, k3=0.002, k4=0.0)
    readings = []
    for change in (
        {"is_fisheye": True, "camera_model": "OPENCV"},
        {"camera_model": "OPENCV_FISHEYE"},
        {"is_fisheye": False},
    ):
        (tmp_path / "transforms.json").write_text(json.dumps({**content, **change}))
        readings.append((read_scene(tmp_path).views[0], read_camera_file(tmp_path).cameras[0]))
    (flagged, drawn), (named, _), (perspective, _) = readings
    np.testing.assert_array_equal(flagged.rgb_u8, named.rgb_u8)
    np.testing.assert_allclose(drawn.K, flagged.camera.K)
    assert flagged.rgb_u8.shape != perspective.rgb_u8.shape


@pytest.mark.parametrize("mark", [{"equirectangular": True}, {"latlong": True}, {"ftheta_p0": 0.1}])
def test_other_projections_of_instant_ngp_are_refused(tmp_path, mark):
    write_transforms(tmp_path, orbit_scene(3))
    content = json.loads((tmp_path / "transforms.json").read_text())
    (tmp_path / "transforms.json").write_text(json.dumps({**content, **mark}))
    with pytest.raises(InputError, match="is no projection that is read"):
        read_scene(tmp_path)
