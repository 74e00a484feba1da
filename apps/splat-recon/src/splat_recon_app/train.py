"""`splat-recon train`: from a scene folder to a run folder, resumable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from commands import collected, console, exit_code, goes_on, logging_to, progress_bar
from splat_recon import InputError, run_folder
from splat_recon.errors import DivergedError
from splat_recon.io.layouts import check_scene_folder
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.observers import Observer, watching
from splat_recon_app.train_shared import is_shared, train_shared
from splat_recon_app.train_steps import CHUNK, Inputs, finish, read_inputs, record, save

if TYPE_CHECKING:
    from splat_recon import SplatTrainer

logger = logging.getLogger(__name__)


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
    from splat_render import chosen_device

    where = chosen_device(args.device)
    inputs = read_inputs(args, run, where)
    split = inputs.split
    trainer = _trainer(run, inputs, where, resume=args.resume)
    if not args.resume:
        record(run, inputs)
    logger.info("%d training and %d test views (%s) on %s", len(split.train), len(split.test), split.policy, where)
    stop_at = min(trainer.config.max_steps, args.stop_at or trainer.config.max_steps)
    with watching(args, run, trainer, split) as observers:
        received = _train_until(trainer, run, stop_at, args, observers)
    checkpoint = run.checkpoint(trainer.step)
    if received is not None:
        console.print(f"stopped at step {trainer.step}: add --resume to the same command to go on")
        print(checkpoint)
        return 128 + received
    finish(trainer, run, split)
    return 0


def _trainer(run: RunFolder, inputs: Inputs, where: str, *, resume: bool) -> SplatTrainer:
    from splat_recon import SplatTrainer, ViewSet
    from splat_recon.checkpoint import recover

    views = ViewSet.from_views(inputs.scene.select(inputs.split.train))
    newest = recover(run.checkpoints) if resume else None
    if newest is not None:
        console.print(f"going on from {newest}")
        return SplatTrainer.load(newest, inputs.scene, views, device=where)
    if resume:
        logger.warning("%s holds no valid checkpoint: the run starts anew", run.checkpoints)
    return SplatTrainer(inputs.scene, views, inputs.config, device=where)


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
                saved_step = save(trainer, run, args.keep_checkpoints)
        if saved_step != trainer.step or not run.checkpoint(trainer.step).exists():
            save(trainer, run, args.keep_checkpoints)
        return received[0] if received else None
