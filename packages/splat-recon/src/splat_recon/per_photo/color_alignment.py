"""Colors of a render aligned to its photo, for scores that leave exposure out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import image_metrics as metrics
from splat_recon.evaluate import ViewScore
from splat_recon.scene.scene import View
from splat_render.cameras import Camera


def color_aligned(
    rendered: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> Float[Tensor, "h w 3"]:
    """The affine map of RGB that brings a render closest to its photo in the mean square, applied and clamped.

    A score after this looks at the photo first: it says how good the shapes are where exposures differ, and must be
    reported beside the plain score, never in its place.
    """
    known = torch.ones(rendered.shape[:2], dtype=torch.bool, device=rendered.device) if mask is None else mask
    pixels = torch.cat([rendered, torch.ones_like(rendered[..., :1])], dim=-1).double()
    # The ridge keeps a render of one color from having no answer.
    inside = pixels[known]
    normal = inside.T @ inside + 1e-6 * torch.eye(4, dtype=torch.float64, device=rendered.device)
    affine = torch.linalg.solve(normal, inside.T @ photo[known].double())
    return (pixels @ affine).clamp(0, 1).to(rendered)


def color_corrected_scores(
    render: Callable[[Camera], Float[Tensor, "h w 3"]], views: Sequence[View]
) -> dict[str, ViewScore]:
    """PSNR and SSIM of each view's render after `color_aligned`, by name; without LPIPS."""
    scores = {}
    for view in views:
        photo = torch.tensor(view.rgb_u8, dtype=torch.float32) / 255
        mask = None if view.mask is None else torch.tensor(view.mask)
        aligned = color_aligned(render(view.camera).cpu(), photo, mask)
        scores[view.name] = ViewScore(
            psnr=metrics.psnr(aligned, photo, mask),
            ssim=metrics.ssim(aligned, photo, mask, border="inside"),
            lpips=None,
        )
    return scores
