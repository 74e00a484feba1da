"""What settings that were left open come to: by device, by preset, by the training photos."""

from dataclasses import dataclass, replace
from typing import Literal

from difix3d.distillation_config import MIN_PHOTOS_TO_DISTILL
from difix3d.fixers.config import AUTO, DEFAULT, NO_FIXER
from difix3d.loop.config import VALIDATION_FRACTION
from difix3d.loop.presets import PAPER_STEPS, RELEASED_STEPS
from difix3d.run.settings import NUM_NOVEL, USUAL_TARGETS, Quality, RunSettings
from splat_recon.config import FEW_PHOTOS
from splat_render.files.background import BLACK

DEMO_STEPS = 1600
DEMO_SIZE = 256
DEMO_GAUSSIANS = 12_000
DEMO_SPARSE = 6
DEMO_SPLIT = "every:3"
"""The demo: a generated scene, few photos, minutes on two cores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """How long and how large a run is."""

    max_steps: int
    max_size: int
    max_gaussians: int


LENGTHS: dict[Quality, dict[str, Length]] = {
    "draft": {
        "cpu": Length(max_steps=500, max_size=256, max_gaussians=15_000),
        "cuda": Length(max_steps=7000, max_size=800, max_gaussians=300_000),
    },
    "good": {
        "cpu": Length(max_steps=3000, max_size=384, max_gaussians=30_000),
        "cuda": Length(max_steps=30_000, max_size=1600, max_gaussians=1_000_000),
    },
    "best": {
        "cpu": Length(max_steps=10_000, max_size=640, max_gaussians=100_000),
        "cuda": Length(max_steps=60_000, max_size=2400, max_gaussians=3_000_000),
    },
}
"""What a run of each quality comes to on each kind of device."""


def resolved(settings: RunSettings, device: Literal["cpu", "cuda"]) -> RunSettings:
    """The same settings with every None filled in for a device; `split` becomes a policy that can be named."""
    demo = settings.scene is None and settings.quality is None
    length = LENGTHS[settings.quality or "good"][device]
    of_others = settings.preset != "short"
    finished = settings.start is not None
    default_steps = {"short": length.max_steps, "released": RELEASED_STEPS, "paper": PAPER_STEPS}[settings.preset]
    max_steps = settings.max_steps or (DEMO_STEPS if demo and not of_others else default_steps)
    fraction = settings.validation.fraction
    asks_for_rounds = of_others or finished or settings.asks_for_rounds
    if fraction is None:
        fraction = 0.0 if of_others or finished else VALIDATION_FRACTION
    fixer = settings.fixer
    if of_others and fixer.gate == "auto":
        fixer = replace(fixer, gate="checkpoint")
    return replace(
        settings,
        device=device,
        max_steps=max_steps,
        max_size=settings.max_size or (DEMO_SIZE if demo else length.max_size),
        max_gaussians=settings.max_gaussians or (DEMO_GAUSSIANS if demo else length.max_gaussians),
        sparse=settings.sparse or (DEMO_SPARSE if settings.scene is None else None),
        split=settings.split or (DEMO_SPLIT if settings.scene is None else "auto"),
        targets=settings.targets or ("test" if of_others else None),
        loop="rounds" if settings.loop == "auto" and asks_for_rounds else settings.loop,
        validation=replace(settings.validation, fraction=0.0 if settings.loop == "distillation" else fraction),
        fixer=fixer,
        checkpoint_every=settings.checkpoint_every or max(1, max_steps // 4),
    )


def for_photos(
    settings: RunSettings,
    num_photos: int,
    *,
    background: tuple[float, float, float] = BLACK,
    start_background: tuple[float, float, float] = BLACK,
) -> RunSettings:
    """Resolved settings with what depends on the training photos filled in.

    Args:
        background: The color that they suggest, taken if they are few and regularized.
        start_background: The color that a finished splat stands before, taken otherwise.
    """
    loop = settings.loop
    if loop == "auto":
        loop = "distillation" if MIN_PHOTOS_TO_DISTILL <= num_photos <= FEW_PHOTOS else "rounds"
    own = settings.preset == "short" and settings.start is None
    regularized = own and num_photos <= FEW_PHOTOS if settings.regularized is None else settings.regularized
    if settings.background is not None:
        background = settings.background
    elif not (regularized and num_photos <= FEW_PHOTOS):
        background = start_background
    model = settings.fixer.model
    if model == AUTO:
        model = NO_FIXER if loop == "distillation" else DEFAULT
    return replace(
        settings,
        loop=loop,
        fixer=replace(settings.fixer, model=model),
        targets=settings.targets or USUAL_TARGETS[loop],
        num_novel=settings.num_novel or NUM_NOVEL[loop],
        regularized=regularized,
        background=background,
        validation=replace(settings.validation, fraction=0.0) if loop == "distillation" else settings.validation,
    )
