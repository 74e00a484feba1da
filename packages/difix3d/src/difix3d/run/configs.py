"""The constants of the method that resolved settings stand for."""

from dataclasses import replace

from difix3d.loop.config import ProgressiveConfig
from difix3d.loop.presets import RELEASED_LEARNING_RATES, paper_config, released_config, released_train_config
from difix3d.loop.target_config import FileTargets, HeldOutTargets, Targets
from difix3d.run.settings import NUM_NOVEL, TARGETS, USUAL_TARGETS, RunSettings
from splat_recon.config import FEW_PHOTOS, AdcConfig, TrainConfig, mcmc_config, regularized_for
from splat_render.files.background import BLACK

SHORT_RUN = 10_000
"""Runs of fewer steps never reset opacities: they would not recover (on a generated scene with 6 photos and some
hundred steps, resets cost plain training more than 1 dB)."""


def progressive_config(settings: RunSettings) -> ProgressiveConfig:
    """The method's constants for resolved settings.

    Raises:
        ValueError: The settings are not resolved.
    """
    if None in (settings.max_steps, settings.max_gaussians, settings.validation.fraction):
        raise ValueError("expected resolved settings, got some that are still None")
    train = _train_config(settings)
    if settings.preset != "short":
        config = released_config(train) if settings.preset == "released" else paper_config(train)
        return replace(config, targets=_targets(settings), validation=settings.validation, seed=settings.seed)
    return ProgressiveConfig(
        train=train,
        rounds=settings.rounds,
        targets=_targets(settings),
        stepping=settings.stepping,
        mixture=settings.mixture,
        num_references=settings.num_references,
        fix_batch_size=settings.fix_batch_size,
        validation=settings.validation,
        seed=settings.seed,
    )


def _train_config(settings: RunSettings) -> TrainConfig:
    max_steps = settings.max_steps or 1
    if settings.preset == "released":
        train = released_train_config(max_steps, AdcConfig(cap_max=settings.max_gaussians), seed=settings.seed)
    else:
        train = replace(_own_config(settings, max_steps), seed=settings.seed).scaled_to(max_steps)
    if settings.regularized:
        train = regularized_for(FEW_PHOTOS, train)
    train = replace(train, background=settings.background or BLACK)
    if settings.start is None:
        return train
    # A finished splat is not to be shaken: it has its view-dependent colors, and learns slowly from there.
    return replace(train, sh_degree_every=1, learning_rates=RELEASED_LEARNING_RATES)


def _targets(settings: RunSettings) -> Targets:
    name = settings.targets or USUAL_TARGETS["rounds"]
    kind = TARGETS.get(name)
    if kind is None:
        return FileTargets(path=name)
    if kind is HeldOutTargets:
        return HeldOutTargets()
    num_views = settings.num_novel or NUM_NOVEL["rounds"]
    return kind(num_views=num_views)


def _own_config(settings: RunSettings, max_steps: int) -> TrainConfig:
    """A training of gsplat's length, with the density control that was asked for."""
    if settings.strategy == "mcmc":
        return mcmc_config(settings.max_gaussians or 1)
    strategy = AdcConfig(cap_max=settings.max_gaussians)
    short = max_steps < SHORT_RUN and settings.preset == "short"
    return TrainConfig(strategy=replace(strategy, reset_every=0) if short else strategy)
