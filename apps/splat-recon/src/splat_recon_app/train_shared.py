"""`splat-recon train` in several processes, one per GPU, as `torchrun` starts them.

Every process reads the scene and trains its shard of the Gaussians; the first one writes, scores and exports.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from commands import collected, console, logging_to
from splat_recon import InputError, run_folder
from splat_recon.errors import DivergedError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.train_steps import CHUNK, finish, read_inputs, record, save

if TYPE_CHECKING:
    from splat_recon import SplatTrainer
    from splat_recon.distributed import World


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
    from splat_recon import SplatTrainer, ViewSet
    from splat_recon.checkpoint import latest_valid, recover

    first = world.rank == 0
    # Every process matches for itself, with the same result.
    inputs = read_inputs(args, run, device.split(":")[0])
    scene = inputs.scene
    if args.resume and first:
        recover(run.checkpoints)
    world.total(0)  # From here on all agree on what is in the folder.
    views = ViewSet.from_views(scene.select(inputs.split.train))
    newest = latest_valid(run.checkpoints) if args.resume else None
    if newest is not None:
        trainer = SplatTrainer.load(newest, scene, views, device=device, world=world)
    else:
        trainer = SplatTrainer(scene, views, inputs.config, device=device, world=world)
    if first and not args.resume:
        record(run, inputs)
    stop_at = min(trainer.config.max_steps, args.stop_at or trainer.config.max_steps)
    with collected() as received:
        stopped = _train_until(trainer, run, stop_at, args, received)
    if stopped:
        if first:
            console.print(f"stopped at step {trainer.step}: add --resume to the same command to go on")
            print(run.checkpoint(trainer.step))
        return 128 + stopped
    finish(trainer, run, inputs.split)
    return 0


def _train_until(trainer: SplatTrainer, run: RunFolder, stop_at: int, args: cli.Train, received: list[int]) -> int:
    """Train and save on the way and at the end; returns the signal that ended it early, 0 where none did."""
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
            save(trainer, run, args.keep_checkpoints)
    save(trainer, run, args.keep_checkpoints)
    return stopped
