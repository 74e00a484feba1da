"""Numbers in JSON files that are none: one sentence each, that says where."""

import json
import re
from pathlib import Path

import pytest

from splat_recon import InputError, read_camera_file, read_scene, write_transforms
from splat_recon.run_folder import RunFolder, read_cameras, read_settings
from support.posed_scenes import orbit_scene

BAD = {
    "not a number": "NaN",
    "infinite": "Infinity",
    "beyond floats": "1e400",
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5000,
    "negative": "-96",
    "text": '"wide"',
    "true": "true",
    "list": "[96]",
}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transforms")
    write_transforms(folder, orbit_scene(2))
    return folder


def refused(path: Path, content: str, key: str) -> None:
    before = path.read_text()
    path.write_text(content)
    try:
        for read in (read_scene, read_camera_file):
            with pytest.raises(InputError) as caught:
                read(path.parent)
            assert key in str(caught.value)
    finally:
        path.write_text(before)


@pytest.mark.parametrize("key", ["w", "h", "fl_x", "fl_y", "cx", "k1"])
@pytest.mark.parametrize("bad", sorted(BAD))
def test_numbers_of_a_lens_are_checked(written: Path, key: str, bad: str):
    if (key, bad) in {("cx", "negative"), ("k1", "negative")}:
        pytest.skip("a good number here")
    content = json.loads((written / "transforms.json").read_text())
    content["frames"][1][key] = "HERE"
    named = "not those of a camera" if bad == "negative" and key.startswith("fl") else f'"{key}"'
    refused(written / "transforms.json", json.dumps(content).replace('"HERE"', BAD[bad]), named)


@pytest.mark.parametrize("value", ["0", "-1", "3.1415926536", "7", "NaN", "Infinity", "1e-300"])
def test_angles_of_view_are_checked(written: Path, value: str):
    content = json.loads((written / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["fl_x"], frame["fl_y"]
    content["camera_angle_x"] = "HERE"
    refused(written / "transforms.json", json.dumps(content).replace('"HERE"', value), '"camera_angle_x"')


@pytest.mark.parametrize(("key", "value"), [("applied_scale", bad) for bad in BAD.values()])
def test_the_frame_of_a_file_is_checked(written: Path, key: str, value: str):
    text = (written / "transforms.json").read_text()
    refused(written / "transforms.json", text.replace("{", f'{{"{key}": {value}, ', 1), f'"{key}"')


@pytest.mark.parametrize("value", ["NaN", "Infinity", "9" * 400, '"x"', "1e400"])
def test_poses_are_checked(written: Path, value: str):
    content = json.loads((written / "transforms.json").read_text())
    content["frames"][0]["transform_matrix"][1][3] = "HERE"
    text = json.dumps(content).replace('"HERE"', value)
    refused(written / "transforms.json", text, "transform_matrix")


@pytest.mark.parametrize("content", [DEEP, "", "{", '{"frames": [' + DEEP + "]}", "\udc80"])
def test_what_is_no_json_is_refused(written: Path, content: str):
    path = written / "transforms.json"
    before = path.read_bytes()
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    try:
        with pytest.raises(InputError, match=r"transforms\.json"):
            read_scene(written)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("key", "value"), [(key, bad) for key in ("render_height", "fov", "aspect") for bad in BAD.values()]
)
def test_numbers_of_a_camera_path_are_checked(tmp_path: Path, key: str, value: str):
    entry = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "fov": 50, "aspect": 1.5}
    content = {"render_height": 32, "camera_path": [entry]}
    (content if key in content else entry)[key] = "HERE"
    path = tmp_path / "camera_path.json"
    path.write_text(json.dumps(content).replace('"HERE"', value))
    with pytest.raises(InputError, match=re.escape(f'"{key}"')):
        read_camera_file(path)


@pytest.mark.parametrize("value", [*BAD.values(), DEEP])
def test_a_runs_cameras_are_checked(tmp_path: Path, value: str):
    identity = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    camera = {"T_world_cam": identity, "K": [[20, 0, 8], [0, 20, 6], [0, 0, 1]], "width": "HERE", "height": 12}
    content = json.dumps({"T_scene_colmap": identity, "cameras": {"a.png": camera}}).replace('"HERE"', value)
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(InputError, match=r"cameras\.json|camera a\.png"):
        read_cameras(RunFolder(tmp_path))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_settings(RunFolder(tmp_path))


def test_the_frame_of_a_runs_cameras_is_a_similarity(tmp_path: Path):
    mirrored = [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    (tmp_path / "cameras.json").write_text(json.dumps({"T_scene_colmap": mirrored, "cameras": {}}))
    with pytest.raises(InputError, match=r"cameras\.json does not hold the cameras of a run"):
        read_cameras(RunFolder(tmp_path))
