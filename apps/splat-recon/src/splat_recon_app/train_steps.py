"""What a training does in one process and in several: read, begin a run, save, score and export."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commands import console, ended
from splat_recon import run_folder
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli, presets
from splat_recon_app.evaluation import score
from splat_recon_app.refined_cameras import write_refined_cameras
from splat_recon_app.scenes import read_training_scene, shown_views
from splat_recon_app.stereo import keep_stereo, stereo_start

if TYPE_CHECKING:
    from splat_recon import Scene, SplatTrainer, Split, StereoStart, TrainConfig

logger = logging.getLogger(__name__)

CHUNK = 10
"""Steps between two looks at the clock and at signals."""


@dataclass(frozen=True)
class Inputs:
    """What a training is made of."""

    scene: Scene
    split: Split
    config: TrainConfig
    settings: dict[str, Any]
    stereo: StereoStart | None


def read_inputs(args: cli.Train, run: RunFolder, kind: str) -> Inputs:
    """Read the scene and resolve the settings for a kind of device, "cpu" or "cuda"."""
    max_size = presets.max_size(args, kind)
    with console.status("reading the scene"):
        scene, split = read_training_scene(args.scene, args.split, args.sparse, max_size, args)
    run_folder.check_outputs(run, scene)
    stereo = stereo_start(args, scene, split, run, max_size)
    config = presets.train_config(args, kind, scene.select(split.train), scene.points)
    scene, config = presets.with_stereo(scene, config, stereo)
    settings = presets.run_settings(args, config, kind, stereo)
    if args.resume:
        run_folder.check_same(run, settings)
    return Inputs(scene, split, config, settings, stereo)


def record(run: RunFolder, inputs: Inputs) -> None:
    """Write what a run begins with: settings, cameras and stereo's depths."""
    run.write_config(inputs.settings, distributions=run_folder.VERSIONED)
    cameras = {view.name: view.camera for view in inputs.scene.select(inputs.split.train)}
    run_folder.write_cameras(run, cameras, inputs.scene.T_scene_colmap)
    if inputs.stereo is not None:
        keep_stereo(run, inputs.stereo)


def save(trainer: SplatTrainer, run: RunFolder, keep: int | None) -> int:
    """Write a checkpoint and the history, and remove older checkpoints but `keep`; returns the step."""
    from splat_recon.checkpoint import remove_older

    trainer.save(run.checkpoint(trainer.step))
    if trainer.world.rank > 0:
        return trainer.step
    run_folder.write_lines(run.metrics, [record.to_dict() for record in trainer.history])
    logger.info("step %d: %d Gaussians, checkpoint saved", trainer.step, len(trainer.gaussians))
    if keep is not None:
        remove_older(run.checkpoint(trainer.step), keep)
    return trainer.step


def finish(trainer: SplatTrainer, run: RunFolder, split: Split) -> None:
    """Scores, pictures, the PLY file and the report from the Gaussians of all processes, by the first one."""
    from splat_recon import SplatModel, export_splats, write_report

    gaussians = trainer.all_gaussians()
    if trainer.world.rank > 0:
        return
    scene, config = trainer.scene, trainer.config
    splats = SplatModel.trained(gaussians, config, trainer.step, device=trainer.device)
    views, side = shown_views(scene, split)
    logger.info("step %d: scoring %d photos", trainer.step, len(views))
    score(splats, views, run, names=scene.names, split=side)
    export_splats(
        run.point_cloud,
        gaussians,
        scene.T_scene_colmap,
        antialiased=config.antialiased,
        background=config.background,
        near_plane=config.render_near,
    )
    write_refined_cameras(trainer, run, split.train)
    write_report(run)
    logger.info("done: %s", run.point_cloud)
    ended(run.point_cloud, "splat-recon", "export", "--splat", run.path, "--to", run.path / "scene.html")
