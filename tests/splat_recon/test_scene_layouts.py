"""Scene folders as other programs leave them: read with the right cameras, or named with what to do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon import InputError, make_split, read_camera_file, read_scene, write_scene, write_transforms
from splat_recon.io.layouts import Layout, layout_of, scene_layout
from splat_recon.io.pycolmap_import import pycolmap
from splat_render.poses import quat_wxyz_from_matrix
from support.posed_scenes import orbit_scene

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
SPLIT = {"train": slice(0, 4), "val": slice(4, 5), "test": slice(5, 7)}


@pytest.fixture
def expected():
    return orbit_scene(7)


def write_photo(path: Path, rgb_u8: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb_u8).save(path)


def assert_poses(scene, expected, names, T_read_expected=None):
    """The views of these names stand where the expected ones do, in their order, and show their photos."""
    T = np.eye(4) if T_read_expected is None else T_read_expected
    assert sorted(names) == list(scene.names)
    for name, view in zip(names, expected.views, strict=True):
        np.testing.assert_allclose(scene.view(name).camera.T_world_cam, T @ view.camera.T_world_cam, atol=1e-9)
        np.testing.assert_array_equal(scene.view(name).rgb_u8, view.rgb_u8)


def write_blender(folder: Path, expected, *, opaque: bool = True) -> list[str]:
    """The synthetic NeRF layout: an angle of view, names without ending, RGBA; returns the views' names."""
    names = []
    angle = 2 * math.atan(0.5 * expected.views[0].camera.width / expected.views[0].camera.K[0, 0])
    for side, part in SPLIT.items():
        frames = []
        for index, view in enumerate(expected.views[part]):
            alpha = np.full((*view.rgb_u8.shape[:2], 1), 255, np.uint8)
            if not opaque:
                alpha[:, :16], alpha[:, 16:20] = 0, 100
            write_photo(folder / side / f"r_{index}.png", np.concatenate([view.rgb_u8, alpha], axis=2))
            T = (view.camera.T_world_cam @ OPENGL).tolist()
            frames.append({"file_path": f"./{side}/r_{index}", "rotation": 0.01, "transform_matrix": T})
            names.append(f"{side}/r_{index}.png")
        content = {"camera_angle_x": angle, "frames": frames}
        (folder / f"transforms_{side}.json").write_text(json.dumps(content))
    return names


def test_blenders_split_files_are_read_with_their_split(tmp_path, expected):
    names = write_blender(tmp_path, expected)
    scene = read_scene(tmp_path)
    assert scene_layout(tmp_path) is Layout.BLENDER
    assert_poses(scene, expected, names)
    K = scene.views[0].camera.K
    np.testing.assert_allclose((K[0, 0], K[1, 1], K[0, 2], K[1, 2]), (1.1 * 32, 1.1 * 32, 16, 12))
    split = make_split(scene.names, scene_folder=tmp_path)
    assert split.train == tuple(f"train/r_{index}.png" for index in range(4))
    assert split.test == ("test/r_0.png", "test/r_1.png")
    assert "transforms_test.json" in split.policy
    assert make_split(scene.names, "every:2", scene_folder=tmp_path).test == scene.names[::2]
    assert read_camera_file(tmp_path).names == names


def test_without_a_test_file_the_validation_side_tests(tmp_path, expected):
    names = write_blender(tmp_path, expected)
    (tmp_path / "transforms_test.json").unlink()
    scene = read_scene(tmp_path)
    assert scene.names == tuple(sorted(names[:5]))
    assert make_split(scene.names, scene_folder=tmp_path).test == ("val/r_0.png",)
    (tmp_path / "transforms_val.json").unlink()
    assert make_split(read_scene(tmp_path).names, scene_folder=tmp_path).policy == "every:8"


def test_the_alpha_of_blenders_photos_is_opacity_over_black(tmp_path, expected):
    write_blender(tmp_path, expected, opaque=False)
    view = read_scene(tmp_path).view("train/r_0.png")
    rgb_u8 = expected.views[0].rgb_u8.astype(float)
    assert view.mask is None
    assert not view.rgb_u8[:, :16].any()
    np.testing.assert_allclose(view.rgb_u8[:, 16:20], rgb_u8[:, 16:20] * 100 / 255, atol=1)
    np.testing.assert_array_equal(view.rgb_u8[:, 20:], rgb_u8[:, 20:])


def test_the_lists_of_a_transforms_file_are_its_split(tmp_path, expected):
    write_transforms(tmp_path, expected)
    content = json.loads((tmp_path / "transforms.json").read_text())
    paths = [frame["file_path"] for frame in content["frames"]]
    content |= {"train_filenames": ["./" + paths[1], paths[2].replace("/", "\\")], "val_filenames": paths[:1]}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    split = make_split(read_scene(tmp_path).names, scene_folder=tmp_path)
    assert (split.train, split.test) == (("photo_001.png", "photo_002.png"), ("photo_000.png",))
    content["val_filenames"] = paths[1:2]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"photo_001\.png is in train_filenames and in val_filenames"):
        make_split(read_scene(tmp_path).names, scene_folder=tmp_path)


def write_splatting_output(folder: Path, expected, *, endings: bool) -> None:
    """As the 3D Gaussian Splatting code leaves it; its first version drops the endings of names."""
    entries = []
    for view in expected.views:
        T, K = view.camera.T_world_cam, view.camera.K
        name = view.name if endings else view.name.split(".")[0]
        entries.append(
            {"id": len(entries), "img_name": name, "width": view.camera.width, "height": view.camera.height}
            | {"position": T[:3, 3].tolist(), "rotation": T[:3, :3].tolist(), "fx": K[0, 0], "fy": K[1, 1]}
        )
    folder.mkdir()
    (folder / "cameras.json").write_text(json.dumps(entries))
    (folder / "cfg_args").write_text("Namespace(sh_degree=3, source_path='/nowhere/garden', model_path='out')")
    (folder / "point_cloud" / "iteration_7000").mkdir(parents=True)
    (folder / "point_cloud" / "iteration_7000" / "point_cloud.ply").write_bytes(b"ply\n")


@pytest.mark.parametrize("endings", [False, True])
def test_outputs_of_gaussian_splatting_are_read_where_their_photos_are(tmp_path, expected, endings):
    output = tmp_path / "output"
    write_splatting_output(output, expected, endings=endings)
    cameras = read_camera_file(output)
    for camera, view in zip(cameras.cameras, expected.views, strict=True):
        np.testing.assert_allclose(camera.T_world_cam, view.camera.T_world_cam, atol=1e-12)
        np.testing.assert_allclose(camera.K[[0, 1], [0, 1]], view.camera.K[[0, 1], [0, 1]])
    assert cameras.names[0] == expected.names[0].removesuffix("" if endings else ".png")
    with pytest.raises(InputError, match=r"trained on /nowhere/garden.*iteration_7000"):
        read_scene(output)
    for view in expected.views:
        write_photo(output / "images" / view.name, view.rgb_u8)
    assert_poses(read_scene(output), expected, expected.names)


def test_the_scene_of_an_output_is_read_where_it_still_is(tmp_path, expected, caplog):
    output = tmp_path / "output"
    write_splatting_output(output, expected, endings=True)
    write_scene(tmp_path / "garden", expected)
    (output / "cfg_args").write_text(f"Namespace(sh_degree=3, source_path='{tmp_path / 'garden'}')")
    assert_poses(read_scene(output), expected, expected.names)
    assert "is read, its scene" in caplog.text


def test_polycams_export_is_read_corrected_photos_first(tmp_path, expected):
    for prefix, offset in (("", 5.0), ("corrected_", 0.0)):
        for index, view in enumerate(expected.views):
            T, K = view.camera.T_world_cam @ OPENGL, view.camera.K
            entry = {
                f"t_{row}{column}": T[row, column] + offset * (column == 3) for row in range(3) for column in range(4)
            }
            entry |= {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "width": 32, "height": 24}
            (tmp_path / "keyframes" / f"{prefix}cameras").mkdir(parents=True, exist_ok=True)
            (tmp_path / "keyframes" / f"{prefix}cameras" / f"{100 + index}.json").write_text(json.dumps(entry))
            write_photo(tmp_path / "keyframes" / f"{prefix}images" / f"{100 + index}.png", view.rgb_u8)
    scene = read_scene(tmp_path)
    # ARKit's y axis becomes z.
    T_z_up = np.eye(4)[[2, 0, 1, 3]]
    assert_poses(scene, expected, [f"{100 + index}.png" for index in range(7)], T_z_up)
    np.testing.assert_allclose(scene.views[0].camera.K, expected.views[0].camera.K)
    assert scene.name == tmp_path.name


def test_record3ds_export_is_read_in_the_order_of_its_numbers(tmp_path, expected):
    K, poses = expected.views[0].camera.K, []
    for index, view in enumerate(expected.views):
        T = view.camera.T_world_cam @ OPENGL
        poses.append([*quat_wxyz_from_matrix(T[:3, :3])[[1, 2, 3, 0]], *T[:3, 3]])
        write_photo(tmp_path / "EXR_RGBD" / "rgb" / f"{index}.png", view.rgb_u8)
    content = {"poses": poses, "K": K.T.ravel().tolist(), "w": 32, "h": 24, "fps": 60}
    (tmp_path / "EXR_RGBD" / "metadata.json").write_text(json.dumps(content))
    scene = read_scene(tmp_path)
    assert_poses(scene, expected, [f"{index}.png" for index in range(7)])
    np.testing.assert_allclose(scene.views[0].camera.K, [[K[0, 0], 0, K[0, 2]], [0, K[1, 1], K[1, 2]], [0, 0, 1]])
    content["poses"] = poses[:3]
    (tmp_path / "EXR_RGBD" / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no pose for rgb/3\.png"):
        read_scene(tmp_path)


@pytest.mark.parametrize("place", [".", "photos"])
def test_models_and_photos_may_lie_right_in_the_folder(tmp_path, expected, place):
    """As Metashape and RealityScan export COLMAP: three text files, and the photos somewhere."""
    write_scene(tmp_path / "a", expected)
    pycolmap.Reconstruction(tmp_path / "a" / "sparse" / "0").write_text(tmp_path / "a")
    for path in [*(tmp_path / "a" / "sparse" / "0").iterdir()]:
        path.unlink()
    (tmp_path / "a" / "images").rename(tmp_path / "a" / "photos")
    for path in [*(tmp_path / "a" / "photos").iterdir()]:
        path.rename(tmp_path / "a" / place / path.name)
    assert_poses(read_scene(tmp_path / "a"), expected, expected.names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.psx", "", "Metashape.*file type Colmap"),
        ("cameras.xml", '<?xml version="1.0"?>\n<document version="2.0.0"><chunk label="a">', "Metashape.*type Colmap"),
        ("scan.csv", "#name,x,y,alt,heading,pitch,roll\na.jpg,0,0,0,0,0,0\n", "RealityScan.*COLMAP"),
        ("a.r3d", "", r"Record3D.*EXR \+ RGB"),
        ("poses_bounds.npy", "", "LLFF.*splat-recon sfm"),
        ("cameras_sphere.npz", "", r"NeuS.*transforms\.json"),
        ("sfm_data.json", "{}", "OpenMVG.*COLMAP"),
        ("reconstruction.json", "[]", "OpenSfM.*export_colmap"),
        ("a.nvm", "", "VisualSFM.*COLMAP"),
        ("dataparser_transforms.json", "{}", "nerfstudio training"),
    ],
)
def test_layouts_that_are_not_read_are_named_with_what_to_export(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    for act in (read_scene, read_camera_file):
        with pytest.raises(InputError, match=message) as error:
            act(tmp_path)
        assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("transforms.json", "give the folder it lies in"), ("a.zip", "unpack it"), ("a.mp4", "splat-recon sfm")],
)
def test_files_given_for_scenes_are_refused_with_what_to_give(tmp_path, name, message):
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=f"is a file and no scene folder.*{message}"):
        read_scene(tmp_path / name)


def test_a_folder_above_a_scene_and_a_folder_of_nothing_are_refused(tmp_path, expected):
    with pytest.raises(InputError, match="is not a COLMAP scene folder"):
        read_scene(tmp_path)
    write_transforms(tmp_path / "garden", expected)
    with pytest.raises(InputError, match="its subfolder garden is one"):
        read_scene(tmp_path)
    assert layout_of(tmp_path) is None
    assert layout_of(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no cameras"),
        ("[1, {}]", "2 problems"),
        ('[{"img_name": "a", "rotation": [[1]], "position": [0, 0, 0]}]', "is no camera"),
        ("[", "cannot be read"),
    ],
)
def test_cameras_that_are_none_are_refused_in_a_sentence(tmp_path, content, message):
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_camera_file(tmp_path / "cameras.json")
