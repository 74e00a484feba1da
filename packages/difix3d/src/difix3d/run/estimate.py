"""How long a run takes on this machine: a short measurement of it, times what the run does.

All costs are in units of one training step of the reference: 256x256 pixels and 10 000 Gaussians. How a step grows with
pixels and Gaussians is from the table of growth in docs/benchmarks.md; the others were measured beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from difix3d.fixers.config import NO_FIXER
from difix3d.run.defaults import for_photos, resolved
from splat_recon.config import TrainConfig
from splat_recon.scene.splits import DEFAULT_TEST_EVERY

if TYPE_CHECKING:
    from difix3d.run.settings import RunSettings

REFERENCE_SIZE, REFERENCE_GAUSSIANS = 256, 10_000

PER_KILOPIXEL, PER_THOUSAND_GAUSSIANS = 0.008, 0.048
"""Of a training step."""

MEAN_GAUSSIANS = 0.75
"""Gaussians in the mean over a training, of those that it may have."""

BESIDE_TRAINING = 1.2
"""Measuring on test photos and saving, by what training takes."""

RENDER = 0.35
"""A render, of a training step of its size."""

FIX_PER_KILOPIXEL = 0.12
"""A picture's way through the fixer that comes with the project."""

PHOTO_FEATURES, PAIR_MATCHED, PHOTO_MAPPED = 45.0, 1.5, 20.0
"""Structure from motion: features of a photo, a pair compared, a photo placed."""

STEREO_PER_KILOPIXEL = 2.0
"""Matching one photo with its neighbors."""

FILM_FRAMES, VARIANTS = 72, 4
"""What the end of a run renders."""

ASPECT = 0.75
"""Height of a photo, of its width."""

WARM_STEPS, MEASURED_STEPS = 3, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEstimate:
    """Seconds that the phases of a run are likely to take, in their order."""

    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        """Of the whole run."""
        return sum(self.seconds.values())

    def before(self, phase: str) -> float:
        """Seconds of all phases that come before one."""
        names = list(self.seconds)
        return sum(self.seconds[name] for name in names[: names.index(phase)])


def device_of(settings: RunSettings) -> Literal["cpu", "cuda"]:
    """Where a run would compute here."""
    from splat_render.device import chosen_device

    return chosen_device(settings.device)


def seconds_per_reference_step(device: Literal["cpu", "cuda"]) -> float:
    """Measure this machine, as busy as it is now: seconds of a training step of the reference. Takes some seconds."""
    from splat_recon.config import TrainConfig
    from splat_recon.scene.normalize import normalized
    from splat_recon.scene.synthetic import DEMO_SEED, SyntheticConfig, generate_scene
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet

    size = REFERENCE_SIZE
    scene = SyntheticConfig(num_views=3, width=size, height=size, num_points=REFERENCE_GAUSSIANS, samples_per_axis=1)
    generated = normalized(generate_scene(DEMO_SEED, scene))
    trainer = SplatTrainer(generated, ViewSet.from_views(generated.views), TrainConfig(), device=device)
    trainer.train_until(WARM_STEPS)
    begun = time.monotonic()
    trainer.train_until(WARM_STEPS + MEASURED_STEPS)
    return (time.monotonic() - begun) / MEASURED_STEPS


def estimate(
    settings: RunSettings, device: Literal["cpu", "cuda"], *, num_photos: int, from_photos: bool, step_seconds: float
) -> RunEstimate:
    """What a run takes, roughly: within a factor of two.

    Args:
        from_photos: Whether their cameras are to be found first.
        step_seconds: From `seconds_per_reference_step`.
    """
    filled = resolved(settings, device)
    num_train, num_shown = _split(filled.split or "auto", num_photos)
    num_train = min(num_train, filled.sparse or num_train)
    run = for_photos(filled, num_train)
    kilopixels = (run.max_size or REFERENCE_SIZE) ** 2 * ASPECT / 1000
    gaussians = MEAN_GAUSSIANS * (run.max_gaussians or REFERENCE_GAUSSIANS) / 1000
    step = PER_KILOPIXEL * kilopixels + PER_THOUSAND_GAUSSIANS * gaussians
    fix = FIX_PER_KILOPIXEL * kilopixels if run.fixer.model != NO_FIXER else 0.0
    distills, steps = run.loop == "distillation", run.max_steps or 1
    few = run.stereo == "on" or (run.stereo == "auto" and bool(run.regularized))
    num_novel = run.num_novel or 0
    if distills:
        # In the demo's photos, which stand far apart, stereo finds nothing.
        helps = few and (settings.scene is not None or from_photos)
        trained = steps + sum(run.distillation.num_steps(TrainConfig(max_steps=steps), stereo=helps))
        rounds = num_novel * (3 * RENDER * step + fix)
    else:
        validates = run.validation.num_views(num_train) > 0
        trained = (3 if validates else 2) * steps
        rounds = (2 if validates else 1) * run.rounds.num_rounds * num_novel * (RENDER * step + fix)
    units = {
        "cameras": _structure_from_motion(num_photos) if from_photos else 0.0,
        "prepare": 0.0,
        "stereo": STEREO_PER_KILOPIXEL * kilopixels * num_train if few else 0.0,
        "train": BESIDE_TRAINING * (trained * step + rounds),
        "compare": num_shown * VARIANTS * (RENDER * step + fix / 2),
        "film": FILM_FRAMES * (2 * RENDER * step + fix),
        "report": 0.0,
    }
    return RunEstimate(seconds={phase: cost * step_seconds for phase, cost in units.items()})


def _split(policy: str, num_photos: int) -> tuple[int, int]:
    """Photos that are trained on, and those that results are shown on; splits that only files tell count as every:8."""
    if policy == "none":
        return num_photos, min(num_photos, DEFAULT_TEST_EVERY)
    number = policy.removeprefix("every:")
    every = int(number) if number.isdigit() and int(number) > 1 else DEFAULT_TEST_EVERY
    num_test = -(-num_photos // every)
    return max(1, num_photos - num_test), num_test


def _structure_from_motion(num_photos: int) -> float:
    pairs = min(num_photos * (num_photos - 1) / 2, 30 * num_photos)
    return num_photos * (PHOTO_FEATURES + PHOTO_MAPPED) + pairs * PAIR_MATCHED


def in_words(seconds: float) -> str:
    """A length of time, roughly."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
