"""Fixing rendered views with the nearest captured photos, once more on what is shown (Difix3D+)."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from difix3d.fixers.batches import RenderedView, fixed_views
from difix3d.fixers.contract import FixedView, ViewFixer
from difix3d.fixers.references import nearest_views
from difix_model.gate.verdict import FixVerdict
from splat_recon.scene.scene import View
from splat_render.cameras import Camera
from splat_render.output import RenderOutput

Render = Callable[[Camera], RenderOutput]
"""What a splat shows to a camera."""


class EnhancedRenderer:
    """Renders and fixes in one call: Difix3D+, the fixer at render time.

    Args:
        render: From a camera to what the splat shows there, for example of a splat's trainer.
        extent: The scene's extent in world units.
    """

    def __init__(self, render: Render, fixer: ViewFixer, captured: Sequence[View], *, extent: float) -> None:
        self.render = render
        self.fixer = fixer
        self.captured = tuple(captured)
        self.extent = extent
        self.verdicts: list[FixVerdict] = []
        """What became of each call's fix, in order."""

    def fix(self, cameras: Sequence[Camera], *, batch_size: int = 1) -> list[FixedView]:
        """The fixed renders of cameras."""
        poses = np.stack([camera.T_world_cam for camera in cameras])
        references = nearest_views(self.captured, poses, extent=self.extent)
        rendered = [
            RenderedView.of(camera, self.render(camera), (nearest,))
            for camera, nearest in zip(cameras, references, strict=True)
        ]
        return list(fixed_views(self.fixer, rendered, batch_size=batch_size))

    def __call__(self, camera: Camera) -> Float[Tensor, "h w 3"]:
        """The fixed render of a camera, sRGB in [0, 1]."""
        (fixed,) = self.fix([camera])
        self.verdicts.append(fixed.verdict)
        return fixed.rgb
