"""How depth is matched between few photos, and which of it is believed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StereoConfig:
    """PatchMatch stereo and its filters. The values were chosen on two captured scenes with six photos."""

    sizes: tuple[int, ...] = (120, 240)
    """Longer side of the photos in pixels, level by level; smaller photos are matched as they are."""

    radius: int = 5
    """Half the side of a patch in pixels."""

    stride: int = 2
    """Every so many pixels of a patch are compared, along each axis."""

    color_sigma: float = 0.12
    """Difference of gray values, in [0, 1], at which a pixel of a patch counts exp(-1/2) of its center."""

    max_sources: int = 6
    """Most photos that one photo is compared with, the nearest in pose first."""

    best_sources: int = 2
    """A pixel's cost is the mean over so many of those in which its patch fits best."""

    kept_sources: int = 2
    """Beyond the coarsest level a pixel is compared only with so many of the photos that fit best so far."""

    max_angle_degrees: float = 80.0
    """Photos whose viewing directions differ by more are not compared."""

    num_sweeps: tuple[int, ...] = (5, 3)
    """Sweeps over a photo by its patches' looks alone, per level."""

    num_geometric_rounds: tuple[int, ...] = (1, 2)
    """Rounds per level in which a pixel also pays for disagreeing with the other photos' depths."""

    sweeps_per_round: int = 2
    """Sweeps of such a round."""

    geometric_weight: float = 0.15
    """Cost per pixel of error when a pixel is projected into another photo and back; at most three pixels count."""

    max_cost: float = 0.5
    """Pixels of a higher cost, 1 minus the correlation of patches, are not believed."""

    max_error_px: float = 1.5
    """Another photo agrees with a pixel up to this distance after projection there and back."""

    max_depth_error: float = 0.03
    """Another photo agrees with a pixel up to this relative difference of depth."""

    min_deviation: float = 0.012
    """Least standard deviation of the gray values around a believed pixel."""

    min_corner: float = 0.006
    """Least gradient along the weaker direction around a believed pixel, which leaves out stripes."""

    near_margin: float = 1.15
    """Believed pixels are at most this much nearer, in inverse depth, than the photo's nearest points."""

    front_margin: float = 0.06
    """A pixel that stands this much in front of what two photos agree on in another photo is not believed."""

    min_component: int = 80
    """Fewest connected believed pixels, at 240 pixels."""

    min_fraction: float = 0.05
    """A photo of which a smaller fraction is believed, of what its mask leaves, gives no points; where that holds in
    the mean over all photos, none does: what is believed of them is as often wrong. Where it is less than half of this
    after the coarsest level, the matching ends there."""

    num_points: int = 6000
    """Points to start from, drawn from the believed pixels at random."""

    grow_grad2d: float = 6e-4
    """Density control's threshold with this start: there is less to grow than from structure from motion alone."""

    seed: int = 0
    """Seed of the random trials and of the choice of points."""

    def __post_init__(self) -> None:
        levels = len(self.sizes)
        if not levels or len(self.num_sweeps) != levels or len(self.num_geometric_rounds) != levels:
            raise ValueError("sizes, num_sweeps and num_geometric_rounds must have one entry per level, at least one")
        if any(size < 2 * self.radius + 2 for size in self.sizes) or list(self.sizes) != sorted(self.sizes):
            raise ValueError(f"sizes must rise and be larger than a patch, got {self.sizes}")
        for name in ("radius", "stride", "max_sources", "best_sources", "kept_sources", "num_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.kept_sources < self.best_sources:
            raise ValueError(f"kept_sources must be at least best_sources, got {self.kept_sources}")
        for name in ("color_sigma", "max_error_px", "max_depth_error", "near_margin", "grow_grad2d"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.min_fraction <= 1:
            raise ValueError(f"min_fraction must be in [0, 1], got {self.min_fraction}")
