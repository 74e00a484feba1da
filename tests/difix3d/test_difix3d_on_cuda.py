"""Whole runs on a fake CUDA device: rounds with rollbacks, distillation, enhanced films, splat-recon's own commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix3d import (
    Experiment,
    MixtureConfig,
    PairsConfig,
    ProgressiveTrainer,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
    ViewFixerConfig,
)
from difix3d.enhance.config import EnhanceConfig
from difix3d.enhance.run import Enhancement
from difix3d.fixers.batches import photo
from difix3d.pairs.trained import new_trainer, render_at_checkpoints
from difix_model import FixerConfig
from media_files import read_frames
from splat_recon import read_scene, write_scene
from splat_render import write_ply
from support.fake_cuda import FakeCuda
from support.rendered_scenes import ball, photographed, ring_camera
from support.tiny_fixer import write_tiny_fixer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene's folder, and weights of a tiny network that is wrong everywhere."""
    folder = tmp_path_factory.mktemp("place")
    write_ply(folder / "ball.ply", ball(40))
    write_scene(folder / "scene", photographed(ball(40), [ring_camera(i, 8, width=24, height=18) for i in range(8)]))
    write_tiny_fixer(folder / "weights", uses_reference=True)
    return folder


RUNS: dict[str, dict[str, Any]] = {
    "rounds": {
        "loop": "rounds",
        "rounds": RoundsConfig(num_rounds=2),
        "num_references": 3,
        "mixture": MixtureConfig(novel_weight=20.0, photo_tolerance=0.2, unseen_weight=0.3),
        "validation": ValidationConfig(fraction=0.3, min_views=3, max_drop_db=0.0),
    },
    "distillation": {"loop": "distillation"},
    "from a splat": {"targets": "perturbed", "rounds": RoundsConfig(num_rounds=1), "start": "ball.ply"},
}
FIXERS: dict[str, dict[str, Any]] = {
    "rounds": {"offload": True, "precision": "bfloat16", "gate": "off"},
    "distillation": {},
    "from a splat": {},
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_ends_and_one_that_was_stopped_goes_on(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
    settings = RunSettings(
        scene=str(place / "scene"),
        fixer=ViewFixerConfig(model=str(place / "weights"), **FIXERS[kind]),
        split="every:4",
        max_steps=12,
        num_novel=2,
        stereo="off",
        device="cuda",
        **RUNS[kind],
    )
    if settings.start is not None:
        settings = replace(settings, start=str(place / settings.start))
    with FakeCuda():
        experiment = Experiment(settings, RunFolder(tmp_path))
        list(experiment.run(stop_at=9))
        assert not experiment.finished
        again = Experiment(settings, RunFolder(tmp_path), resume=True)
        list(again.run())
        assert again.finished
        assert again.plain.gaussians.means.is_cuda
        if isinstance(again.loop, ProgressiveTrainer):
            assert again.loop.main.novel is not None
            assert {view.fixed.device.type for view in again.loop.main.novel.views} == {"cpu"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["variants"]["loop"]["psnr"] > 5
    if kind == "rounds":
        assert metrics["validation"]["scores"]


def test_a_film_of_a_splat_is_rendered_fixed_and_steadied(place: Path, tmp_path: Path) -> None:
    flags = ["--scene", str(place / "scene"), "--out", str(tmp_path / "run"), "--split", "every:4", "--device", "cuda"]
    splat = ["--splat", str(tmp_path / "run"), "--device", "cuda"]
    shown = ["--shown", "rgb", "depth", "alpha"]
    splat_recon = pytest.importorskip("splat_recon_app.__main__", reason="the app is not installed").main
    with FakeCuda():
        assert splat_recon(["train", *flags, "--stereo", "off", "--max-steps", "6"]) == 0
        assert splat_recon(["eval", *splat]) == 0
        assert splat_recon(["render", *splat, "--out", str(tmp_path / "film.mp4"), "--frames", "2", *shown]) == 0
        assert splat_recon(["export", "--splat", str(tmp_path / "run"), "--to", str(tmp_path / "splat.ply")]) == 0
        config = EnhanceConfig(
            splat=tmp_path / "splat.ply",
            scene=place / "scene",
            fixer=FixerConfig(model=str(place / "weights"), gate="off"),
            out=tmp_path / "fixed.mp4",
            side_by_side=tmp_path / "both.mp4",
            path="given",
            device="cuda",
        )
        enhancement = Enhancement(config)
        list(enhancement.run())
        assert len(enhancement.verdicts) == 8
    assert len(list(read_frames(tmp_path / "film.mp4"))) == 2
    assert len(list(read_frames(tmp_path / "fixed.mp4"))) == len(list(read_frames(tmp_path / "both.mp4"))) == 8


def test_photos_stay_on_the_gpu_as_references(place: Path) -> None:
    view = read_scene(place / "scene").views[0]
    with FakeCuda() as gpu:
        kept = photo(view, device="cuda")
        gpu.traffic.clear()
        assert photo(view, device="cuda") is kept
        assert gpu.traffic.report() == "no traffic"
        assert torch.equal(kept.cpu(), photo(view))


def test_pairs_are_made_on_the_gpu(place: Path) -> None:
    scene, config, rng = read_scene(place / "scene"), PairsConfig(max_steps=10, device="cuda"), np.random.default_rng(0)
    names = list(scene.names)
    with FakeCuda():
        trainer = new_trainer(scene, scene.views[:5], config, rng)
        pairs = list(render_at_checkpoints(trainer, names[:5], names[5:], (0.5, 1.0), "x", config, rng))
        assert trainer.gaussians.means.is_cuda
    assert {pair.degraded_u8.dtype for pair in pairs} == {np.dtype(np.uint8)}
