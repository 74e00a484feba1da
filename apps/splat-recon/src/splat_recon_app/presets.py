"""From flags to a training configuration."""

from __future__ import annotations

from dataclasses import replace

from splat_recon.config import TrainConfig, mcmc_config
from splat_recon_app import cli


def train_config(args: cli.Train, device: str) -> TrainConfig:
    """The configuration of a run: the preset, scaled to the number of steps that suits the device."""
    on_cpu = device == "cpu"
    max_steps = args.max_steps or (cli.CPU_MAX_STEPS if on_cpu else cli.CUDA_MAX_STEPS)
    cap_max = args.max_gaussians or (cli.CPU_MAX_GAUSSIANS if on_cpu else cli.CUDA_MAX_GAUSSIANS)
    config = mcmc_config() if args.preset == "mcmc" else TrainConfig()
    config = replace(config, strategy=replace(config.strategy, cap_max=cap_max))
    return replace(config.scaled_to(max_steps), seed=args.seed, random_background=args.random_background)


def max_size(args: cli.Train, device: str) -> int | None:
    """The photos' size limit in pixels, None for none."""
    if args.max_size is not None:
        return args.max_size or None
    return cli.CPU_MAX_SIZE if device == "cpu" else None
