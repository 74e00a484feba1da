"""nerfstudio's transforms.json, in and out."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from splat_recon import (
    InputError,
    normalized,
    read_camera_file,
    read_scene,
    read_transforms,
    write_scene,
    write_transforms,
)
from splat_recon.io.point_files import read_points_ply, write_points_ply
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.scene.random_points import focus_distance
from splat_render.poses import similarity, transform_camera, transform_points
from support.posed_scenes import assert_same_scenes, orbit_scene, smooth_rgb


@pytest.fixture
def folder(tmp_path):
    write_transforms(tmp_path / "orbit", orbit_scene(5))
    return tmp_path / "orbit"


def content_of(folder):
    return json.loads((folder / "transforms.json").read_text())


def rewrite(folder, change):
    content = content_of(folder)
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def assert_same(a, b, atol=1e-6):
    assert_same_scenes(a, b, atol, K_atol=atol)


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_written_is_read(tmp_path, masks):
    small, large = orbit_scene(4, masks=masks), orbit_scene(4, width=48, height=20, masks=masks)
    mixed = replace(small, views=small.views[:2] + large.views[2:])
    write_transforms(tmp_path / "orbit", mixed)
    assert_same(mixed, read_scene(tmp_path / "orbit"), atol=1e-12)
    write_transforms(tmp_path / "back", normalized(mixed))
    assert_same(mixed, read_scene(tmp_path / "back"))


def test_a_journey_through_both_formats_ends_where_it_began(tmp_path):
    scene = orbit_scene(4)
    write_scene(tmp_path / "colmap", scene)
    write_transforms(tmp_path / "nerfstudio", read_scene(tmp_path / "colmap"))
    write_scene(tmp_path / "again", read_scene(tmp_path / "nerfstudio"))
    assert_same(scene, read_scene(tmp_path / "again"))


def test_the_axes_are_opengls(folder):
    scene = read_scene(folder)
    frame = content_of(folder)["frames"][0]
    T = np.array(frame["transform_matrix"])
    camera = scene.views[0].camera
    np.testing.assert_allclose(T[:3, 2], -camera.T_world_cam[:3, 2], atol=1e-12)
    np.testing.assert_allclose(T[:3, 1], -camera.T_world_cam[:3, 1], atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], camera.center_world, atol=1e-12)
    # The origin, which all cameras look at, is in front: at negative z in OpenGL's axes.
    assert (np.linalg.inv(T) @ [0, 0, 0, 1])[2] < 0


def test_the_applied_transform_leads_back_to_colmaps_frame(folder, tmp_path):
    expected = orbit_scene(5)
    T_file_colmap = similarity(2.0, np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), np.array([0.0, 2, -4]))

    def move(content):
        content["applied_transform"] = (T_file_colmap[:3] / 2).tolist()
        content["applied_scale"] = 2.0
        for frame, view in zip(content["frames"], expected.views, strict=True):
            T = transform_camera(T_file_colmap, view.camera).T_world_cam @ np.diag([1.0, -1, -1, 1])
            frame["transform_matrix"] = T.tolist()

    rewrite(folder, move)
    scene = read_scene(folder)
    np.testing.assert_allclose(scene.T_scene_colmap, T_file_colmap)
    write_scene(tmp_path / "colmap", scene)
    back = read_scene(tmp_path / "colmap")
    for view, view_back in zip(expected.views, back.views, strict=True):
        np.testing.assert_allclose(view.camera.T_world_cam, view_back.camera.T_world_cam, atol=1e-9)
    p_file = transform_points(T_file_colmap, back.points.p_world)
    np.testing.assert_allclose(p_file, scene.points.p_world, atol=1e-5)


def test_shared_intrinsics_and_names_without_endings_are_read(folder):
    expected = read_scene(folder)

    def fraction(content):
        first = content["frames"][0]
        content.update({key: first[key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")})
        for frame in content["frames"]:
            for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
                del frame[key]
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")

    rewrite(folder, fraction)
    assert_same(expected, read_scene(folder))
    # Photos need not lie in images/; the angle of view will do.
    (folder / "images").rename(folder / "train")

    def angle(content):
        content["camera_angle_x"] = 2 * np.arctan(0.5 * content["w"] / content["fl_x"])
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del content[key]
        for frame in content["frames"]:
            frame["file_path"] = frame["file_path"].replace("images", "train")

    rewrite(folder, angle)
    scene = read_transforms(folder / "transforms.json")
    assert scene.names == tuple(f"train/{name}" for name in expected.names)
    K = scene.views[0].camera.K
    np.testing.assert_allclose(K[0, 0], expected.views[0].camera.K[0, 0])
    np.testing.assert_allclose((K[1, 1], K[0, 2], K[1, 2]), (K[0, 0], 16, 12))


@pytest.mark.parametrize(
    ("values", "model"),
    [
        ({"k1": -0.08, "k2": 0.02, "p1": 0.001, "p2": -0.002}, "OPENCV"),
        ({"k1": -0.06, "k2": 0.01, "k3": 0.002, "p1": 0.001}, "FULL_OPENCV"),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.02, "k2": -0.01, "k3": 0.002}, "OPENCV_FISHEYE"),
    ],
)
def test_distortion_is_taken_out(folder, values, model):
    size = {"fl_x": 60.0, "fl_y": 61.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    order = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    if model == "OPENCV_FISHEYE":
        order = ("k1", "k2", "k3", "k4")
    count = {"OPENCV": 4, "FULL_OPENCV": 8, "OPENCV_FISHEYE": 4}[model]
    params = [60, 61, 32, 24, *[values.get(name, 0.0) for name in order[:count]]]
    camera = pycolmap.Camera(camera_id=1, model=model, width=64, height=48, params=np.array(params, dtype=np.float64))
    u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    rays = np.asarray(camera.cam_from_img(np.stack([u.ravel(), v.ravel()], axis=1))).reshape(48, 64, 2)
    Image.fromarray(smooth_rgb(rays[..., 0], rays[..., 1])).save(folder / "images" / "photo_000.png")

    def one_lens(content):
        content["frames"] = [{**content["frames"][0], **size, **values}]

    rewrite(folder, one_lens)
    view = read_scene(folder).views[0]
    K = view.camera.K
    u, v = np.meshgrid(np.arange(view.camera.width) + 0.5, np.arange(view.camera.height) + 0.5)
    expected = smooth_rgb((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1])
    assert np.abs(view.rgb_u8.astype(int) - expected)[2:-2, 2:-2].max() <= 4


def test_cameras_alone_are_those_of_the_scene(folder):
    """Rendering from a file needs no photos, and reads intrinsics likewise: of frames, of the file, as angles."""
    scene = read_scene(folder)

    def spread(content):
        width, focal = content["frames"][0]["w"], content["frames"][0].pop("fl_x")
        content["frames"][0].update(camera_angle_x=2 * np.arctan(width / 2 / focal))
        for key in ("w", "h", "cx", "cy"):
            content[key] = content["frames"][0][key]
            del content["frames"][1][key]
        content["frames"][2].update(k1=0.1)
        content["applied_scale"] = 2.0
        for frame in content["frames"]:
            frame["transform_matrix"] = [[*row[:3], row[3] * 2] for row in frame["transform_matrix"][:3]] + [
                [0, 0, 0, 1]
            ]

    rewrite(folder, spread)
    shutil.rmtree(folder / "images")
    cameras = read_camera_file(folder / "transforms.json")
    assert cameras.names == [f"images/{name}" for name in scene.names]
    for camera, view in zip(cameras.cameras, scene.views, strict=True):
        np.testing.assert_allclose(camera.K, view.camera.K)
        np.testing.assert_allclose(camera.T_world_cam, view.camera.T_world_cam, atol=1e-9)
    rewrite(folder, lambda content: content["frames"][1].update(transform_matrix=np.diag([2, 2, 2, 1]).tolist()))
    with pytest.raises(InputError, match="no rotation"):
        read_camera_file(folder)


def test_without_points_they_are_drawn_where_the_cameras_look(folder, caplog):
    rewrite(folder, lambda content: content.pop("ply_file_path"))
    assert len(read_scene(folder).points) == 40  # sparse_pc.ply lies there all the same
    write_points_ply(folder / "sparse_pc.ply", orbit_scene(1, num_points=0).points)
    assert len(read_scene(folder).points) == 20_000  # one without points is none
    (folder / "sparse_pc.ply").unlink()
    scene = read_scene(folder)
    assert "drawn at random" in caplog.text
    assert len(scene.points) == 20_000
    np.testing.assert_array_equal(scene.points.p_world, read_scene(folder).points.p_world)
    T_world_cam = np.stack([view.camera.T_world_cam for view in scene.views])
    assert focus_distance(T_world_cam) == pytest.approx(3.08, abs=0.1)
    seen = np.zeros(len(scene.points), bool)
    for view in scene.views:
        p_cam = transform_points(view.camera.T_cam_world, scene.points.p_world)
        u, v = (view.camera.K[:2, :2] @ (p_cam[:, :2] / p_cam[:, 2:]).T) + view.camera.K[:2, 2:]
        seen |= (p_cam[:, 2] > 0) & (u > 0) & (u < view.camera.width) & (v > 0) & (v < view.camera.height)
    assert seen.mean() > 0.7


def test_smaller_copies_are_read(folder):
    full = read_scene(folder)
    (folder / "images_2").mkdir()
    for name in full.names:
        with Image.open(folder / "images" / name) as photo:
            photo.resize((16, 12), Image.Resampling.BOX).save((folder / "images_2" / name).with_suffix(".jpg"))
    scene = read_scene(folder, max_size=16)
    assert scene.names == full.names
    np.testing.assert_allclose(scene.views[0].camera.K[:2], full.views[0].camera.K[:2] / 2)


def test_points_of_other_programs_are_read(tmp_path):
    path = tmp_path / "points.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    path.write_text(head + "end_header\n1 2 3\n4 5 6\n")
    points = read_points_ply(path)
    np.testing.assert_array_equal(points.p_world, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(points.rgb_u8, np.full((2, 3), 128))
    path.write_text(head + "end_header\n1 2 3\nnan 5 6\n")
    with pytest.raises(InputError, match="1 are not finite"):
        read_points_ply(path)


def test_a_model_counts_more_than_a_transforms_file(folder):
    write_scene(folder, orbit_scene(2))
    assert len(read_scene(folder).views) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(frames=[]), '"frames" that is not empty'),
        (lambda content: content["frames"][1].pop("file_path"), 'frame 1 has no "file_path"'),
        (lambda content: content["frames"][0]["transform_matrix"][3].__setitem__(0, -1), r"last row .* 0 0 0 1"),
        (lambda content: content["frames"][0]["transform_matrix"][0].__setitem__(0, 1e200), r"no rotation"),
        (lambda content: content["frames"][1].update(file_path="images/none.png"), r"none\.png is missing"),
        (lambda content: content["frames"][1].update(file_path="images/photo_000.png"), "in several frames"),
        (lambda content: content["frames"][1].pop("transform_matrix"), "must be a 4x4 matrix"),
        (lambda content: content["frames"][1].update(transform_matrix=np.diag([2, 1, 1, 1]).tolist()), "no rotation"),
        (lambda content: content["frames"][1].pop("fl_x"), "no focal length"),
        (lambda content: content["frames"][1].update(fl_x=-3.0), "not those of a camera"),
        (lambda content: content["frames"][1].update(w=5), "is 32x24 but its camera is 5x24"),
        (lambda content: content.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR is none of"),
        (lambda content: content.update(ply_file_path="none.ply"), r"none\.ply.* missing"),
        (lambda content: content.update(applied_transform=np.diag([1, 1, -1, 1]).tolist()), "mirrors or shears"),
        (lambda content: content.update(applied_scale=0), "applied_scale"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message):
        read_scene(folder)


def test_files_that_are_no_json_and_folders_without_photos_are_refused(folder, tmp_path):
    shutil.rmtree(folder / "images")
    with pytest.raises(InputError, match="5 problems"):
        read_scene(folder)
    (folder / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_scene(folder)
    scene = orbit_scene(2)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        write_transforms(tmp_path / "file", scene)
