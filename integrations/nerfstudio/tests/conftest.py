"""A small scene, small settings of both methods, and no network."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

SIZE = (80, 60)
NUM_PHOTOS = 5


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def look_at_origin(angle: float) -> np.ndarray:
    """Camera to world with OpenGL axes, on a circle of radius 1 around the origin."""
    back = np.array([np.sin(angle), 0.2, np.cos(angle)])
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = back
    return pose


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos of smooth colors in nerfstudio's layout, the last one for evaluation, with images_2/."""
    folder = tmp_path_factory.mktemp("scene")
    frames = []
    for place, width, height in (("images", *SIZE), ("images_2", SIZE[0] // 2, SIZE[1] // 2)):
        (folder / place).mkdir()
        for index in range(NUM_PHOTOS):
            y, x = np.mgrid[0:height, 0:width]
            waves = [np.sin(6 * x / width + index / 2 + c) * np.cos(5 * y / height + c) for c in range(3)]
            split = "eval" if index == NUM_PHOTOS - 1 else "train"
            name = f"image_{split}_{index}.png"
            Image.fromarray((127 + 100 * np.stack(waves, -1)).astype(np.uint8)).save(folder / place / name)
            if place == "images":
                frames.append(
                    {"file_path": f"images/{name}", "transform_matrix": look_at_origin(0.25 * index).tolist()}
                )
    points = np.random.default_rng(0).normal(size=(40, 3)) * 0.2
    header = "ply\nformat ascii 1.0\nelement vertex 40\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) + "end_header\n"
    rows = "".join(f"{x:.6f} {y:.6f} {z:.6f} 200 120 40\n" for x, y, z in points)
    (folder / "points.ply").write_text(header + rows, encoding="utf-8")
    transforms = {
        "camera_model": "OPENCV", "fl_x": 90.0, "fl_y": 90.0, "cx": 40.0, "cy": 30.0, "w": SIZE[0], "h": SIZE[1],
        "ply_file_path": "points.ply", "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(transforms), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_lpips() -> Iterator[None]:
    """LPIPS is not built: every attempt would wait for a name that cannot be resolved."""
    from difix3d_nerfstudio.models import MissingLpips
    from torchmetrics.image import lpip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", lambda **_: MissingLpips())
        yield


@pytest.fixture
def nerfacto(scene: Path, tmp_path: Path):
    """The method `difix3d` at settings that train in seconds: three rounds in 30 steps."""
    return small_nerfacto(scene, tmp_path / "out")


def small_nerfacto(scene: Path, out: Path):
    """The config of `nerfacto`, writing to `out`."""
    from difix3d_nerfstudio.methods import difix3d

    config = copy.deepcopy(difix3d.config)
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.output_dir, config.experiment_name, config.timestamp = out, "small", "t"
    config.data = scene
    config.max_num_iterations, config.steps_per_save = 30, 1000
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    pipeline = config.pipeline
    pipeline.datamanager.data = scene
    pipeline.datamanager.train_num_rays_per_batch = pipeline.datamanager.eval_num_rays_per_batch = 128
    parser = pipeline.datamanager.dataparser
    parser.downscale_factor, parser.eval_mode = 2, "filename"
    parser.orientation_method = parser.center_method = "none"
    parser.auto_scale_poses = False
    model = pipeline.model
    model.implementation, model.num_levels, model.log2_hashmap_size = "torch", 4, 10
    model.hidden_dim = model.hidden_dim_color = 16
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (12, 8), 8
    for arguments in model.proposal_net_args_list:
        arguments |= {"log2_hashmap_size": 9, "num_levels": 3}
    pipeline.rounds.first, pipeline.rounds.every = 8, 10
    pipeline.fixer.gate = "off"
    pipeline.targets.num_views = 3
    return config


def train(config):
    """Train as ns-train does; returns the trainer."""
    import random

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - nerfstudio draws from it.
    torch.manual_seed(0)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer
