"""What is refused before a training begins, and what several processes get of it."""

from dataclasses import replace

from splat_recon.config import MIN_GAUSSIANS, AdcConfig, McmcConfig, TrainConfig
from splat_recon.distributed import World
from splat_recon.errors import InputError
from splat_recon.ssim_kernel import WINDOW
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet


def check_device(config: TrainConfig, device: str) -> None:
    """Refuse settings that a device has no use for."""
    asked = [name for name in ("packed", "sparse_grad", "visible_adam") if getattr(config, name)]
    if asked and not str(device).startswith("cuda"):
        raise InputError(f"{', '.join(asked)} is for gsplat on CUDA, this run is on {device}: leave it out")


def image_sizes(views: ViewSet | ViewMixture) -> list[tuple[int, int]]:
    """Width and height of every view."""
    sets = views.sets if isinstance(views, ViewMixture) else (views,)
    return [(view.camera.width, view.camera.height) for view_set in sets for view in view_set]


def check_sizes(views: ViewSet | ViewMixture) -> None:
    """Refuse views that SSIM has no window for."""
    small = [size for size in image_sizes(views) if min(size) < WINDOW]
    if small:
        raise InputError(
            f"training images must have at least {WINDOW}x{WINDOW} pixels, got {small[0][0]}x{small[0][1]}; "
            "use a larger maximal size"
        )


def shared_cap(strategy: AdcConfig | McmcConfig, world: World) -> AdcConfig | McmcConfig:
    """Density control of one process, which has its share of the cap."""
    if world.size == 1 or strategy.cap_max is None:
        return strategy
    return replace(strategy, cap_max=max(MIN_GAUSSIANS, strategy.cap_max // world.size))
