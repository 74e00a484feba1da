"""`splat-recon sfm` and `convert`, and the flags that say how scenes are read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon_app.__main__ import main


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from splat_recon import SyntheticConfig, generate_scene, write_scene

    folder = tmp_path_factory.mktemp("scene") / "table"
    write_scene(folder, generate_scene(5, SyntheticConfig(num_views=6, width=64, height=48, num_points=200)))
    return folder


def refused(capsys, argv) -> str:
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("error: ") :]


def test_scenes_are_converted_there_and_back(scene_folder, tmp_path, capsys):
    from splat_recon import read_scene

    there, back = tmp_path / "there", tmp_path / "back"
    assert main(["convert", "--scene", str(scene_folder), "--out", str(there), "--to", "transforms"]) == 0
    assert capsys.readouterr().out.split() == [str(there)]
    assert (there / "transforms.json").is_file()
    assert main(["convert", "--scene", str(there), "--out", str(back), "--to", "colmap"]) == 0
    expected, found = read_scene(scene_folder), read_scene(back)
    assert found.names == expected.names
    for view, view_found in zip(expected.views, found.views, strict=True):
        np.testing.assert_allclose(view_found.camera.T_world_cam, view.camera.T_world_cam, atol=1e-6)
        np.testing.assert_array_equal(view_found.rgb_u8, view.rgb_u8)
    assert "not empty" in refused(
        capsys, ["convert", "--scene", str(scene_folder), "--out", str(there), "--to", "colmap"]
    )
    assert "no scene folder" in refused(
        capsys, ["convert", "--scene", str(tmp_path / "none"), "--out", str(tmp_path / "x"), "--to", "colmap"]
    )


def train(scene: Path, out: Path, *more: str) -> list[str]:
    flags = ["--scene", str(scene), "--out", str(out), "--device", "cpu", "--split", "every:3", "--max-steps", "12"]
    return ["train", *flags, "--stereo", "off", *more]


def test_a_transforms_folder_is_trained_on_within_a_small_budget(scene_folder, tmp_path):
    there = tmp_path / "there"
    assert main(["convert", "--scene", str(scene_folder), "--out", str(there), "--to", "transforms"]) == 0
    (there / "sparse_pc.ply").rename(there / "cloud.ply")
    content = json.loads((there / "transforms.json").read_text())
    content["ply_file_path"] = "cloud.ply"
    (there / "transforms.json").write_text(json.dumps(content))
    assert main(train(there, tmp_path / "whole")) == 0
    assert main(train(there, tmp_path / "small", "--photo-memory", "0.00001")) == 0
    for name in ("metrics.json", "point_cloud.ply"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "small" / name).read_bytes()
    assert main(["eval", "--splat", str(tmp_path / "small"), "--device", "cpu"]) == 0


def test_the_flags_choose_photos_model_and_split(scene_folder, tmp_path, capsys):
    run = tmp_path / "run"
    for index, path in enumerate(sorted((scene_folder / "images").iterdir())):
        copies = scene_folder / "images_2"
        copies.mkdir(exist_ok=True)
        with Image.open(path) as photo:
            photo.resize((32, 24)).save(copies / path.name)
        (tmp_path / "test.txt").write_text(path.stem if index == 0 else (tmp_path / "test.txt").read_text())
    flags = ["--images", "images_2", "--sparse-model", "0", "--split", str(tmp_path / "test.txt")]
    assert main(train(scene_folder, run, *flags)) == 0
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert settings["images"] == "images_2"
    assert settings["sparse_model"] == "0"
    cameras = json.loads((run / "cameras.json").read_text())["cameras"]
    assert {entry["width"] for entry in cameras.values()} == {32}
    assert len(json.loads((run / "metrics.json").read_text())["per_view"]) == 1
    before = (run / "metrics.json").read_text()
    assert main(["eval", "--splat", str(run), "--device", "cpu"]) == 0
    assert (run / "metrics.json").read_text() == before
    message = refused(capsys, train(scene_folder, tmp_path / "other", "--sparse-model", "3"))
    assert "there is no model 3; it has sparse/0" in message.replace("\n", "")


@pytest.mark.parametrize(
    "flags", [["--photo-memory", "-1"], ["--max-frames", "1"], ["--camera-model", "PINHOLEY"], ["--fps", "0"]]
)
def test_wrong_flags_are_refused(flags, tmp_path, capsys):
    command = train(tmp_path, tmp_path) if "memory" in flags[0] else ["sfm", "--images", "a", "--out", "b"]
    with pytest.raises(SystemExit) as exit_:
        main([*command, *flags])
    assert exit_.value.code == 2
    assert flags[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")


def test_what_cannot_be_read_leaves_no_folder(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.jpg").write_text("no photo")
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (tmp_path / "out", mine):
        assert "not a COLMAP scene" in refused(
            capsys, ["convert", "--scene", str(photos), "--out", str(out), "--to", "colmap"]
        )
        assert "3 problems" in refused(capsys, ["sfm", "--images", str(photos), "--out", str(out)])
    assert not (tmp_path / "out").exists()
    assert mine.is_dir()


@pytest.mark.scenes
def test_photos_become_a_scene_with_a_report(scenes, tmp_path, capsys):
    out = tmp_path / "scene"
    assert main(["sfm", "--images", str(scenes / "kermit_raw" / "images"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == [str(out)]
    shown = captured.err.replace("\n", " ")
    assert "11 of 11 photos have a camera" in shown
    assert "weakest views:" in shown
    report = json.loads((out / "sfm_report.json").read_text())
    assert report["num_registered"] == 11
    again = refused(capsys, ["sfm", "--images", str(scenes / "kermit_raw" / "images"), "--out", str(out)])
    assert "holds a model already" in again


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_the_same_command_goes_on(tmp_path, number, code):
    photos, out = tmp_path / "photos", tmp_path / "scene"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)).save(photos / f"{index:02d}.png")
    argv = [sys.executable, "-m", "splat_recon_app", "sfm", "--images", str(photos), "--out", str(out)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    while not (out / ".sfm" / "database.db").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "the same command goes on from here" in errors.replace("\n", " ")
    assert (out / ".sfm" / "database.db").exists()
