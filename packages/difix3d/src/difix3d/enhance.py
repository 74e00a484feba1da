"""Fixing rendered views with the nearest captured photos: in the loop, and once more on what is shown (Difix3D+)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from difix3d.fixers import ViewFixer
from difix3d.references import nearest_poses
from splat_recon.scene.scene import View
from splat_render.cameras import Camera


def nearest_views(
    captured: Sequence[View],
    T_world_cam: Float64[np.ndarray, "n 4 4"],
    *,
    extent: float,
    rotation_weight: float = 1.0,
) -> tuple[View, ...]:
    """For every pose the captured view that is nearest to it."""
    T_world_captured = np.stack([view.camera.T_world_cam for view in captured])
    nearest: Int64[np.ndarray, " n"] = nearest_poses(
        T_world_cam, T_world_captured, extent=extent, rotation_weight=rotation_weight
    )
    return tuple(captured[index] for index in nearest)


def photo(view: View, *, device: str | torch.device = "cpu") -> Float[Tensor, "h w 3"]:
    """A captured photo as float sRGB in [0, 1]."""
    return torch.tensor(view.rgb_u8, device=device).float() / 255


def fixed_renders(
    fixer: ViewFixer,
    rendered: Sequence[Float[Tensor, "_h _w 3"]],
    references: Sequence[View],
    *,
    batch_size: int,
) -> Iterator[Float[Tensor, "_h _w 3"]]:
    """Fix rendered views one batch at a time, in order; views of different sizes never share a batch.

    Args:
        fixer: What fixes.
        rendered: Rendered views, sRGB in [0, 1].
        references: The captured view that each is fixed with.
        batch_size: Most views that the fixer gets at a time.

    Raises:
        ValueError: There is not one reference per rendered view.
    """
    if len(rendered) != len(references):
        raise ValueError(f"expected one reference per rendered view, got {len(references)} for {len(rendered)}")
    for batch in _batches(rendered, references, batch_size):
        fixed = fixer(
            torch.stack([rendered[index] for index in batch]),
            torch.stack([photo(references[index], device=rendered[index].device) for index in batch]),
        )
        yield from fixed.to(rendered[batch[0]].dtype).unbind()


def _batches(rendered: Sequence[Tensor], references: Sequence[View], batch_size: int) -> Iterator[list[int]]:
    """Runs of neighbours that have the same sizes, of rendered view and reference both."""
    batch: list[int] = []
    sizes = [(tuple(one.shape), other.rgb_u8.shape) for one, other in zip(rendered, references, strict=True)]
    for index in range(len(rendered)):
        if batch and (len(batch) == batch_size or sizes[index] != sizes[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class EnhancedRenderer:
    """Renders and fixes in one call: Difix3D+, the fixer at render time.

    Args:
        render: From a camera to RGB, for example of a splat's trainer.
        fixer: What fixes.
        captured: The views that references are taken from.
        extent: The scene's extent in world units.
    """

    def __init__(
        self,
        render: Callable[[Camera], Float[Tensor, "h w 3"]],
        fixer: ViewFixer,
        captured: Sequence[View],
        *,
        extent: float,
    ) -> None:
        self.render = render
        self.fixer = fixer
        self.captured = tuple(captured)
        self.extent = extent

    def __call__(self, camera: Camera) -> Float[Tensor, "h w 3"]:
        """The fixed render of a camera, sRGB in [0, 1]."""
        references = nearest_views(self.captured, camera.T_world_cam[None], extent=self.extent)
        rendered = self.render(camera).clamp(0, 1)
        return next(fixed_renders(self.fixer, [rendered], references, batch_size=1))
