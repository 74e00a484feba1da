"""`splat-recon train` in several processes, one per GPU, as `torchrun` starts them.

Every process reads the scene and trains its share of the Gaussians; the first one writes, scores and exports.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from commands import collected, ended
from commands.logs import logging_to
from commands.progress import console
from splat_recon import run_folder
from splat_recon.errors import DivergedError, InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli, presets
from splat_recon_app.evaluation import score
from splat_recon_app.scenes import read_training_scene, shown_views
from splat_recon_app.stereo import keep_stereo, stereo_start

if TYPE_CHECKING:
    from splat_recon.distributed import World
    from splat_recon.scene.splits import Split
    from splat_recon.trainer import SplatTrainer


def is_shared() -> bool:
    """Whether `torchrun` started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def train_shared(args: cli.Train) -> int:
    """This process's part of a training on several GPUs; returns the exit code."""
    from splat_recon.distributed import World

    world = World.from_environment()
    return train_with(args, world, device=world.own_gpu(args.device), backend="nccl")


def train_with(args: cli.Train, world: World, *, device: str, backend: str) -> int:
    """Train in a world of processes that can talk over a backend; returns the exit code."""
    run = RunFolder(args.out)
    first = world.rank == 0
    if first:
        run_folder.check_start(args.out, resume=args.resume, scene=args.scene)
    with world.joined(backend), logging_to(run.log) if first else nullcontext():
        try:
            return _train(args, run, world, device)
        except DivergedError as error:
            raise InputError(f"{error}, or with other photos") from error


def _train(args: cli.Train, run: RunFolder, world: World, device: str) -> int:
    from splat_recon.checkpoint import newest_checkpoint, recovered_checkpoint
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet

    kind = device.split(":")[0]
    first = world.rank == 0
    scene, split = read_training_scene(args.scene, args.split, args.sparse, presets.max_size(args, kind), args)
    run_folder.check_outputs(run, scene)
    # Every process matches for itself, with the same result.
    stereo = stereo_start(args, scene, split, run, presets.max_size(args, kind))
    scene, config = presets.with_stereo(
        scene, presets.train_config(args, kind, scene.select(split.train), scene.points), stereo
    )
    settings = presets.run_settings(args, config, kind, stereo)
    if args.resume:
        run_folder.check_same(run, settings)
        if first:
            recovered_checkpoint(run.checkpoints)
    world.total(0)  # From here on all agree on what is in the folder.
    views = ViewSet.from_views(scene.select(split.train))
    newest = newest_checkpoint(run.checkpoints) if args.resume else None
    if newest is not None:
        trainer = SplatTrainer.load(newest, scene, views, device=device, world=world)
    else:
        trainer = SplatTrainer(scene, views, config, device=device, world=world)
    if first and not args.resume:
        run.write_config(settings, distributions=run_folder.VERSIONED)
        cameras = {view.name: view.camera for view in scene.select(split.train)}
        run_folder.write_cameras(run, cameras, scene.T_scene_colmap)
        if stereo is not None:
            keep_stereo(run, stereo)
    stop_at = min(config.max_steps, args.stop_at or config.max_steps)
    with collected() as received:
        stopped = _train_until(trainer, run, stop_at, args, received)
    if stopped:
        if first:
            console.print(f"stopped at step {trainer.step}: add --resume to the same command to go on")
            print(run.checkpoint(trainer.step))
        return 128 + stopped
    _finish(trainer, run, split)
    return 0


def _train_until(trainer: SplatTrainer, run: RunFolder, stop_at: int, args: cli.Train, received: list[int]) -> int:
    """Train and save on the way and at the end; returns the signal that ended it early, 0 where none did."""
    from splat_recon_app.train import CHUNK

    world, stopped = trainer.world, 0
    while trainer.step < stop_at and not stopped:
        to_checkpoint = args.checkpoint_every - trainer.step % args.checkpoint_every
        trainer.train_until(min(stop_at, trainer.step + min(CHUNK, to_checkpoint)))
        # A signal may reach one process before the others; all must stop at the same step.
        stopped = world.largest(received[0] if received else 0)
        if world.rank == 0 and trainer.history and trainer.step % trainer.config.log_every < CHUNK:
            record = trainer.history[-1]
            console.print(f"step {record.step} of {stop_at}: loss {record.loss:.4f}")
        if trainer.step % args.checkpoint_every == 0 and trainer.step < stop_at and not stopped:
            _save(trainer, run, args.keep_checkpoints)
    _save(trainer, run, args.keep_checkpoints)
    return stopped


def _save(trainer: SplatTrainer, run: RunFolder, keep: int | None) -> None:
    from splat_recon.checkpoint import remove_older_checkpoints

    trainer.save(run.checkpoint(trainer.step))
    if trainer.world.rank == 0:
        run_folder.write_history(run, [record.to_dict() for record in trainer.history])
        if keep is not None:
            remove_older_checkpoints(run.checkpoint(trainer.step), keep)


def _finish(trainer: SplatTrainer, run: RunFolder, split: Split) -> None:
    """Scores, images and the PLY file, from the Gaussians of all, by the first process."""
    from splat_recon.export import export_splats
    from splat_recon.pages.report import write_report
    from splat_recon.splat_model import SplatModel

    gaussians = trainer.all_gaussians()
    if trainer.world.rank > 0:
        return
    config, scene = trainer.config, trainer.scene
    splats = SplatModel.trained(gaussians, config, trainer.step, device=trainer.device)
    views, side = shown_views(scene, split)
    score(
        lambda camera: splats.render(camera).rgb,
        views,
        run,
        names=scene.names,
        device=trainer.device,
        step=trainer.step,
        num_gaussians=len(gaussians),
        split=side,
    )
    export_splats(
        run.point_cloud,
        gaussians,
        scene.T_scene_colmap,
        antialiased=config.antialiased,
        background=config.background,
        near_plane=config.render_near,
    )
    write_report(run)
    ended(run.point_cloud, "splat-recon", "export", "--splat", run.path, "--to", run.path / "scene.html")
