"""`splat-recon train`: from a scene folder to a run folder, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from commands import collected, ended, exit_code, goes_on
from commands.logs import logging_to
from commands.progress import console, progress_bar
from splat_recon import run_folder
from splat_recon.errors import DivergedError, InputError
from splat_recon.io.layouts import check_scene_folder
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli, presets
from splat_recon_app.evaluation import score
from splat_recon_app.observers import Observer, watching
from splat_recon_app.refined_cameras import write_refined_cameras
from splat_recon_app.scenes import read_training_scene, shown_views
from splat_recon_app.stereo import keep_stereo, stereo_start
from splat_recon_app.train_shared import is_shared, train_shared

if TYPE_CHECKING:
    from splat_recon.config import TrainConfig
    from splat_recon.scene.scene import Scene
    from splat_recon.scene.splits import Split
    from splat_recon.trainer import SplatTrainer

logger = logging.getLogger(__name__)

CHUNK = 10
"""Steps between two looks at the clock and at signals."""


def train(args: cli.Train) -> int:
    """Train, or go on training; returns the exit code."""
    check_scene_folder(args.scene)
    args = replace(args, resume=goes_on(args.out, resume=args.resume, traces=("config.json", "checkpoints")))
    if is_shared():
        return train_shared(args)
    run = run_folder.check_start(args.out, resume=args.resume, scene=args.scene)
    had_log = run.log.exists()
    with logging_to(run.log):
        try:
            return _train(args, run)
        except DivergedError as error:
            logger.info("error: %s", error)
            raise InputError(f"{error}, or with other photos") from error
        except InputError as error:
            logger.info("error: %s", error)
            if not args.resume and not run.config.exists() and not had_log:
                _remove_traces(run)
            raise
        except KeyboardInterrupt as interrupt:
            if run.config.exists():
                logger.info("ended by signal %d after the last checkpoint", exit_code(interrupt) - 128)
                console.print("ended after its last checkpoint: add --resume to the same command to go on")
            raise


def _remove_traces(run: RunFolder) -> None:
    """A run that never started leaves no log, and no folder that it made."""
    run.log.unlink(missing_ok=True)
    if not any(run.path.iterdir()):
        run.path.rmdir()


def _train(args: cli.Train, run: RunFolder) -> int:
    from splat_render.device import chosen_device

    where = chosen_device(args.device)
    scene, split = _read(args, presets.max_size(args, where))
    run_folder.check_outputs(run, scene)
    stereo = stereo_start(args, scene, split, run, presets.max_size(args, where))
    scene, config = presets.with_stereo(
        scene, presets.train_config(args, where, scene.select(split.train), scene.points), stereo
    )
    settings = presets.run_settings(args, config, where, stereo)
    if args.resume:
        run_folder.check_same(run, settings)
    trainer = _trainer(run, scene, split, config, where, resume=args.resume)
    if not args.resume:
        run.write_config(settings, distributions=run_folder.VERSIONED)
        cameras = {view.name: view.camera for view in scene.select(split.train)}
        run_folder.write_cameras(run, cameras, scene.T_scene_colmap)
        if stereo is not None:
            keep_stereo(run, stereo)
    logger.info("%d training and %d test views (%s) on %s", len(split.train), len(split.test), split.policy, where)
    stop_at = min(config.max_steps, args.stop_at or config.max_steps)
    with watching(args, run, trainer, split) as observers:
        received = _train_until(trainer, run, stop_at, args, observers)
    checkpoint = run.checkpoint(trainer.step)
    if received is not None:
        console.print(f"stopped at step {trainer.step}: add --resume to the same command to go on")
        print(checkpoint)
        return 128 + received
    _finish(trainer, run, split)
    ended(run.point_cloud, "splat-recon", "export", "--splat", run.path, "--to", run.path / "scene.html")
    return 0


def _read(args: cli.Train, max_size: int | None) -> tuple[Scene, Split]:
    with console.status("reading the scene"):
        return read_training_scene(args.scene, args.split, args.sparse, max_size, args)


def _trainer(
    run: RunFolder, scene: Scene, split: Split, config: TrainConfig, where: str, *, resume: bool
) -> SplatTrainer:
    from splat_recon.checkpoint import recovered_checkpoint
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet

    views = ViewSet.from_views(scene.select(split.train))
    newest = recovered_checkpoint(run.checkpoints) if resume else None
    if newest is not None:
        console.print(f"going on from {newest}")
        return SplatTrainer.load(newest, scene, views, device=where)
    if resume:
        logger.warning("%s holds no whole checkpoint: the run starts anew", run.checkpoints)
    return SplatTrainer(scene, views, config, device=where)


def _train_until(
    trainer: SplatTrainer, run: RunFolder, stop_at: int, args: cli.Train, observers: Sequence[Observer]
) -> int | None:
    """Train with a progress bar, saving on the way and at the end; returns the signal that ended it early, if any."""
    saved_step = trainer.step
    # How many steps are taken at once changes no result.
    chunk = 1 if any(observer.every_step for observer in observers) else CHUNK
    with collected() as received, progress_bar() as bar:
        task = bar.add_task("training", total=stop_at, completed=min(trainer.step, stop_at), note="compiling")
        for observer in observers:
            observer.observe(trainer)
        while trainer.step < stop_at and not received:
            to_checkpoint = args.checkpoint_every - trainer.step % args.checkpoint_every
            trainer.train_until(min(stop_at, trainer.step + min(chunk, to_checkpoint)))
            loss = f"loss {trainer.history[-1].loss:.4f}  " if trainer.history else ""
            bar.update(task, completed=trainer.step, note=f"{loss}{len(trainer.gaussians):,} Gaussians")
            for observer in observers:
                observer.observe(trainer)
            if trainer.step % args.checkpoint_every == 0 or trainer.step >= stop_at:
                saved_step = _save(trainer, run, args.keep_checkpoints)
        if saved_step != trainer.step or not run.checkpoint(trainer.step).exists():
            _save(trainer, run, args.keep_checkpoints)
        return received[0] if received else None


def _save(trainer: SplatTrainer, run: RunFolder, keep: int | None) -> int:
    from splat_recon.checkpoint import remove_older_checkpoints

    trainer.save(run.checkpoint(trainer.step))
    run_folder.write_history(run, [record.to_dict() for record in trainer.history])
    logger.info("step %d: %d Gaussians, checkpoint saved", trainer.step, len(trainer.gaussians))
    if keep is not None:
        remove_older_checkpoints(run.checkpoint(trainer.step), keep)
    return trainer.step


def _finish(trainer: SplatTrainer, run: RunFolder, split: Split) -> None:
    """Scores, images and the PLY file."""
    from splat_recon.export import export_splats
    from splat_recon.pages.report import write_report

    views, side = shown_views(trainer.scene, split)
    logger.info("step %d: scoring %d photos", trainer.step, len(views))
    score(
        lambda camera: trainer.render(camera).rgb,
        views,
        run,
        names=trainer.scene.names,
        device=trainer.device,
        step=trainer.step,
        num_gaussians=len(trainer.gaussians),
        split=side,
        color_corrected=trainer.config.appearance is not None,
    )
    write_refined_cameras(trainer, run, split.train)
    export_splats(
        run.point_cloud,
        trainer.gaussians,
        trainer.scene.T_scene_colmap,
        antialiased=trainer.config.antialiased,
        background=trainer.config.background,
        near_plane=trainer.config.render_near,
    )
    write_report(run)
    logger.info("done: %s", run.point_cloud)
