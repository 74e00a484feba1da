"""How pairs are made: which degradations, how many, at which size. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from output_files import check_range

Strategy = Literal["sparse", "cycle", "cross", "underfit", "few", "corrupted"]
STRATEGIES: tuple[Strategy, ...] = ("sparse", "cycle", "cross", "underfit", "few", "corrupted")

PROMPT = "remove degradation"
"""The prompt of every pair; the one of the released weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Which pairs are left out. All limits are in dB of PSNR, fractions, or distances in scene extents plus radians."""

    min_coverage: float = 0.3
    """Renders whose mean opacity is below this show nothing: left out (`empty`), in [0, 1]."""

    min_psnr: float = 8.0
    """Images further from the photo than this many dB are too far gone to be fixed: left out (`below_min_psnr`)."""

    max_psnr: float = 45.0
    """Renders closer to the photo than this many dB need no fix: left out (`same_as_photo`). Photos that `corrupted`
    leaves as they are stay in: they are few, and meant."""

    same_view_distance: float = 0.02
    """Two pairs of one scene are near-duplicates (`same_as_other`, the later one is left out) if their poses are not
    further apart than this, in scene extents plus radians ..."""

    same_image_psnr: float = 45.0
    """... and their degraded images are at least this close in dB, compared at 128 pixels."""

    def __post_init__(self) -> None:
        check_range(self, "in [0, 1]", "min_coverage")
        if not 0 <= self.min_psnr < self.max_psnr:
            raise ValueError(f"expected 0 <= min_psnr < max_psnr, got {self.min_psnr} and {self.max_psnr}")
        check_range(self, "at least 0", "same_view_distance", "same_image_psnr")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """How many pairs of which kind a scene gives."""

    strategies: tuple[Strategy, ...] = ("sparse", "cycle", "cross", "underfit")
    """`sparse`: Gaussians trained on few photos, rendered at the held-out ones. `cycle`: trained on renders of a
    shifted trajectory, rendered at the photos. `cross`: trained on one camera or side, rendered at another. `underfit`:
    trained on most photos but stopped early. `few`: several splats of few photos with all that suits few, half of
    them started from stereo; one's renders and their median. `corrupted`: photos with blur, fog, holes and floaters
    added; needs no training."""

    seed: int = 0
    """Seed of every choice; a scene's pairs depend on it and on the scene's name only."""

    max_size: int = 192
    """Longer side of the images in pixels; larger photos are reduced. Generated scenes have it as their width."""

    num_views: int = 24
    """Photos of a generated scene."""

    panoramas: str | None = None
    """Folder of equirectangular photos, as textures and surroundings of generated scenes."""

    varied: bool = True
    """Generated scenes differ in how they were photographed as well: the sensor's noise, the exposure from photo to
    photo, how many points there are, how exact they are and how many of them are wrong; half of them have dark
    surfaces. False: all have the noise, points and surfaces of the demo scene."""

    max_steps: int = 600
    """Length of the splat schedule in steps."""

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where splats are trained. cpu: the same seed gives the same pairs on every machine. auto: CUDA where it can."""

    sparse_every: int = 0
    """`sparse`: train on every Nth photo, from a drawn first one. 0 draws how many evenly spaced photos there are."""

    min_sparse_views: int = 3
    """`sparse`: the least number of photos to train on, where the number is drawn."""

    max_sparse_views: int = 9
    """`sparse`: the largest number of photos to train on, where the number is drawn."""

    sparse_at: tuple[float, ...] = (0.4, 0.7, 1.0)
    """`sparse`: where in the schedule to render pairs, in (0, 1]."""

    cycle_shift: tuple[float, float] = (0.1, 0.4)
    """`cycle`: how far the whole trajectory is shifted sideways, drawn between these, in scene extents. The released
    data: 1 to 6 meters, for cars."""

    cycle_at: tuple[float, ...] = (0.5, 1.0)
    """`cycle`: where in the second splat's schedule to render pairs, in (0, 1]. The first has the whole schedule."""

    cross_at: tuple[float, ...] = (0.5, 1.0)
    """`cross`: where in the schedule to render pairs, in (0, 1]."""

    cross_max_distance: float = 1.5
    """`cross`: photos of the other camera are rendered where a training photo's pose is within this distance, in scene
    extents plus radians: beyond it nothing of what they show was seen."""

    underfit_at: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """`underfit`: where in the schedule to render pairs, in (0, 1]. The released data: 25 % to 75 %; 1 gives good
    renders, from which a fixer learns to keep its hands off."""

    targets_per_render: int = 5
    """Photos that give a pair each time; drawn anew."""

    corruptions_per_view: int = 2
    """`corrupted`: pairs of each photo."""

    test_fraction: float = 0.06
    """Fraction of scenes whose pairs go into the split `test`, in [0, 1]: those whose name, hashed with the seed, falls
    below it. A scene is never in both."""

    test_scenes: tuple[str, ...] = ()
    """Names of the scenes that make up the split `test`, instead of `test_fraction`."""

    filters: FilterConfig = field(default_factory=FilterConfig)
    """Which pairs are left out."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise ValueError(f"strategies must be different ones of {', '.join(STRATEGIES)}, got {self.strategies}")
        for name, low in (("max_size", 32), ("num_views", 4), ("max_steps", 10), ("targets_per_render", 1)):
            check_range(self, f"at least {low}", name)
        if not 2 <= self.min_sparse_views <= self.max_sparse_views:
            raise ValueError(
                f"expected 2 <= min_sparse_views <= max_sparse_views, got {self.min_sparse_views} and "
                f"{self.max_sparse_views}"
            )
        if self.sparse_every != 0 and self.sparse_every < 2:
            raise ValueError(f"sparse_every must be 0 or at least 2, got {self.sparse_every}")
        for name in ("sparse_at", "cycle_at", "cross_at", "underfit_at"):
            fractions = getattr(self, name)
            if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
                raise ValueError(f"{name} must lie in (0, 1], got {fractions}")
        if not 0 < self.cycle_shift[0] <= self.cycle_shift[1]:
            raise ValueError(f"cycle_shift must be two numbers, 0 < low <= high, got {self.cycle_shift}")
        check_range(self, "positive", "cross_max_distance")
        if self.seed < 0 or self.corruptions_per_view < 1:
            raise ValueError(
                f"seed must be >= 0 and corruptions_per_view >= 1, got {self.seed}, {self.corruptions_per_view}"
            )
        check_range(self, "in [0, 1]", "test_fraction")
