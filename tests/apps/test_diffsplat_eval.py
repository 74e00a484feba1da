"""`diffsplat eval` scores true views and prompts as it says, and refuses what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplat import InputError
from diffsplat.cameras import flipped_axes, orbit_rig
from diffsplat.clip_scores import similarity_and_precision
from diffsplat.view_folders import read_posed_views
from diffsplat_app.__main__ import main
from support.tiny_diffsplat import write_base, write_clip_model, write_repository
from synthetic_objects import intrinsics, ray_cast, sample_object

ANGLE = 2 * np.arctan(0.5 * 1024 / 1422.222)


def write_object(folder: Path, *, turned_deg: float = 30.0, distance: float = 2.8) -> torch.Tensor:
    """Views of a generated object with z up, from twice the canonical distance and another azimuth."""
    folder.mkdir(parents=True)
    canonical = orbit_rig(-20.0, [0.0, 90.0, 200.0])
    frames = []
    azimuth = np.deg2rad(turned_deg)
    turn = np.eye(4)
    turn[0, 0] = turn[2, 2] = np.cos(azimuth)
    turn[0, 2], turn[2, 0] = np.sin(azimuth), -np.sin(azimuth)
    to_z_up = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    for index, pose in enumerate(canonical):
        maps = ray_cast(sample_object(3), pose.double().numpy(), intrinsics(32), 32, 32, samples=1)
        Image.fromarray((255 * maps.rgb).astype(np.uint8)).save(folder / f"r_{index}.png")
        moved = turn @ flipped_axes(pose).double().numpy()
        moved[:3, 3] *= distance / 1.4
        frames.append({"file_path": f"./r_{index}", "transform_matrix": (to_z_up @ moved).tolist()})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": float(ANGLE), "frames": frames}))
    return canonical


def test_cameras_come_into_the_frame_of_generation(tmp_path):
    canonical = write_object(tmp_path / "one")
    views = read_posed_views(tmp_path / "one", 32)
    torch.testing.assert_close(views.T_world_cam, canonical, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(views.fxfycxcy[0], torch.tensor([1422.222 / 1024] * 2 + [0.5] * 2))
    assert views.elevation_deg == pytest.approx(20, abs=1e-3)
    (tmp_path / "one" / "r_1.png").unlink()
    with pytest.raises(InputError, match="r_1 is not there"):
        read_posed_views(tmp_path / "one", 32)
    with pytest.raises(InputError, match=r"transforms\.json holds no cameras"):
        read_posed_views(tmp_path, 32)


def test_similarity_and_precision_are_those_of_the_vectors():
    prompts = torch.eye(3)
    images = torch.stack([torch.eye(3)[[0, 0]], torch.eye(3)[[1, 0]], torch.eye(3)[[0, 1]]])
    similarity, precision = similarity_and_precision(images, prompts)
    assert similarity.tolist() == [100, 50, 0]
    assert precision.tolist() == [1, 0.5, 0]


def test_images_and_prompts_are_scored(tmp_path, capsys):
    weights, base, data = tmp_path / "weights", tmp_path / "base", tmp_path / "data"
    write_repository(weights, "sd15")
    write_repository(weights, "sd15", image=True)
    write_base(base, "sd15")
    write_object(data / "one")
    more = ["--model", str(weights), "--base", str(base), "--device", "cpu", "--num-steps", "2", "--size", "32"]
    assert main(["eval", "images", "--data", str(data), "--out", str(tmp_path / "images"), *more]) == 0
    scores = json.loads((tmp_path / "images" / "scores.json").read_text())
    assert scores["objects"][0]["num_views"] == 2
    assert scores["mean"]["psnr"] == scores["objects"][0]["psnr"]
    assert 0 < scores["mean"]["psnr"] < 60
    assert 'src="one.png"' in (tmp_path / "images" / "index.html").read_text()
    clip = write_clip_model(tmp_path / "clip")
    listed = tmp_path / "prompts.txt"
    listed.write_text("a ball\na <box>\n")
    command = ["eval", "prompts", "--prompts", str(listed), "--out", str(tmp_path / "prompts"), *more]
    assert main([*command, "--clip", str(clip)]) == 0
    scores = json.loads((tmp_path / "prompts" / "scores.json").read_text())
    assert len(scores["objects"]) == 2
    assert 0 <= scores["mean"]["r_precision"] <= 100
    assert "a &lt;box&gt;" in (tmp_path / "prompts" / "index.html").read_text()
    capsys.readouterr()
    assert main([*command, "--clip", str(tmp_path / "none")]) == 2
    assert "CLIP is not available" in capsys.readouterr().err
    assert main(["eval", "images", "--data", str(tmp_path / "base"), "--out", str(tmp_path / "no"), *more]) == 2
    assert "one per object" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
