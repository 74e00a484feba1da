"""nerfacto and splatfacto as the method trains them.

Pixels may have weights, novel views move no poses, and LPIPS may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE

NOVEL = "novel"
"""Entry of a ray bundle's metadata that marks rays of novel views."""


class MissingLpips(torch.nn.Module):
    """Stands for LPIPS where its backbone cannot be had: the figure is NaN."""

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """NaN, whatever the images."""
        return torch.tensor(float("nan"))


@contextmanager
def lpips_may_be_missing() -> Iterator[None]:
    """Within the block nerfstudio's models get `MissingLpips` where LPIPS cannot be downloaded or found."""
    from torchmetrics.image import lpip

    original = lpip.LearnedPerceptualImagePatchSimilarity

    def made(*args: Any, **kwargs: Any) -> torch.nn.Module:
        try:
            return original(*args, **kwargs)
        except (OSError, ModuleNotFoundError) as error:
            CONSOLE.log(f"LPIPS is not measured, its network cannot be had ({error}); PSNR and SSIM are.", markup=False)
            return MissingLpips()

    lpip.LearnedPerceptualImagePatchSimilarity = made  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = original  # type: ignore[misc]


class PhotoCameraOptimizer(CameraOptimizer):
    """Pose correction of photos; rays of novel views are left where they are, and move no photo."""

    def apply_to_raybundle(self, raybundle: RayBundle) -> None:
        """Correct rays of photos."""
        if NOVEL not in raybundle.metadata:
            super().apply_to_raybundle(raybundle)


@dataclass
class PhotoCameraOptimizerConfig(CameraOptimizerConfig):
    """Pose correction of photos only."""

    _target: type = field(default_factory=lambda: PhotoCameraOptimizer)


@dataclass
class DifixNerfactoModelConfig(NerfactoModelConfig):
    """nerfacto, trained on photos and on fixed novel views."""

    _target: type = field(default_factory=lambda: DifixNerfactoModel)
    average_init_density: float = 0.01
    """Average initial density output from MLP, as in the method nerfacto."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=lambda: PhotoCameraOptimizerConfig(mode="SO3xR3"))
    """Pose correction of photos; novel views take no part in it."""


class DifixNerfactoModel(NerfactoModel):
    """nerfacto whose batches may weight their rays."""

    def populate_modules(self) -> None:
        """Nerfacto's parts, LPIPS where it can be had."""
        with lpips_may_be_missing():
            super().populate_modules()

    def get_loss_dict(self, outputs: Any, batch: Any, metrics_dict: Any = None) -> dict[str, torch.Tensor]:
        """Nerfacto's losses; the color loss is the weighted mean over rays where the batch has weights ``[n]``."""
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if "weight" in batch:
            predicted, wanted = self.renderer_rgb.blend_background_for_loss_computation(
                pred_image=outputs["rgb"],
                pred_accumulation=outputs["accumulation"],
                gt_image=batch["image"].to(self.device),
            )
            weight = batch["weight"].to(self.device)[:, None]
            losses["rgb_loss"] = (weight * (wanted - predicted) ** 2).sum() / (3 * weight.sum()).clamp_min(1e-6)
        return losses


@dataclass
class DifixSplatModelConfig(SplatfactoModelConfig):
    """splatfacto, trained on photos and on fixed novel views."""

    _target: type = field(default_factory=lambda: DifixSplatModel)


class DifixSplatModel(SplatfactoModel):
    """splatfacto; a novel view comes as a camera without index, so poses and bilateral grids leave it alone."""

    def populate_modules(self) -> None:
        """Splatfacto's parts, LPIPS where it can be had."""
        with lpips_may_be_missing():
            super().populate_modules()
