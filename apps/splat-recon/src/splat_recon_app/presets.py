"""From flags to a training configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat_recon import (
    BilateralGridConfig,
    DepthConfig,
    ExposureConfig,
    PoseConfig,
    TrainConfig,
    absgrad_config,
    antialiased_config,
    mcmc_config,
)
from splat_recon.few_photos import config_for_photos
from splat_recon_app import cli

if TYPE_CHECKING:
    from splat_recon import Points, Scene, StereoStart, View

SHORT_RUN = 7000
"""Shorter MCMC runs start from Gaussians that touch each other: ones of a tenth of that size, as in the released
preset, do not grow together in time (measured: 1.3 dB on test photos after 600 steps)."""

PRESETS = {"default": TrainConfig, "mcmc": mcmc_config, "antialiased": antialiased_config, "absgrad": absgrad_config}
"""Configuration of 30,000 steps by the name of a preset."""

APPEARANCES = {"none": None, "exposure": ExposureConfig(), "bilateral": BilateralGridConfig()}
"""What `--appearance` stands for."""


def train_config(args: cli.Train, device: str, photos: Sequence[View], points: Points) -> TrainConfig:
    """The configuration of a run: the preset, scaled to the number of steps that suits the device, and the flags.

    Args:
        device: Kind of the device, "cpu" or "cuda".
    """
    on_cpu = device == "cpu"
    max_steps = args.max_steps or (cli.CPU_MAX_STEPS if on_cpu else cli.CUDA_MAX_STEPS)
    cap_max = args.max_gaussians or (cli.CPU_MAX_GAUSSIANS if on_cpu else cli.CUDA_MAX_GAUSSIANS)
    config = PRESETS[args.preset]()
    if args.preset == "mcmc" and max_steps < SHORT_RUN:
        config = replace(config, init_opacity=TrainConfig().init_opacity, init_scale=TrainConfig().init_scale)
    config = replace(config, strategy=replace(config.strategy, cap_max=cap_max))
    config = config_for_photos(photos, config, points=points, background=args.background)
    return replace(with_flags(config, args).scaled_to(max_steps), seed=args.seed)


def with_flags(config: TrainConfig, args: cli.Train) -> TrainConfig:
    """A preset with what the flags add to it or put in its place."""
    return replace(
        config,
        sh_degree=args.sh_degree,
        antialiased=config.antialiased or args.antialiased,
        random_background=args.random_background,
        dropout=config.dropout if args.dropout is None else args.dropout,
        opacity_reg=config.opacity_reg if args.opacity_reg is None else args.opacity_reg,
        scale_reg=config.scale_reg if args.scale_reg is None else args.scale_reg,
        pose=PoseConfig() if args.refine_poses else None,
        appearance=APPEARANCES[args.appearance],
        depth=DepthConfig(weight=args.depth_weight) if args.depth_weight > 0 else None,
        batch_size=args.batch_size,
        packed=args.packed,
        sparse_grad=args.sparse_grad,
        visible_adam=args.visible_adam,
    )


def max_size(args: cli.Train, device: str) -> int | None:
    """The photos' size limit in pixels, None for none."""
    if args.max_size is not None:
        return args.max_size or None
    return cli.CPU_MAX_SIZE if device == "cpu" else None


def with_stereo(scene: Scene, config: TrainConfig, stereo: StereoStart | None) -> tuple[Scene, TrainConfig]:
    """Scene and configuration with the stereo start, where there is one."""
    if stereo is None:
        return scene, config
    return stereo.scene(scene), stereo.train_config(config)


def run_settings(args: cli.Train, config: TrainConfig, where: str, stereo: StereoStart | None = None) -> dict[str, Any]:
    """What `config.json` keeps, and what a resumed run must share."""
    # A list is found again from wherever the run is scored.
    split = str(Path(args.split).resolve()) if args.split.endswith((".txt", ".json")) else args.split
    return {
        "scene": str(args.scene.resolve()),
        "preset": args.preset,
        "split": split,
        "sparse": args.sparse,
        "max_size": max_size(args, where),
        "images": args.images,
        "sparse_model": args.sparse_model,
        "stereo": "none" if stereo is None else stereo.summary(),
        "train": config.to_dict(),
    }
