"""How far the pixels of fixed views are believed, by what captured views know of the places that they show.

Both questions are answered with the splat's own depth, so they are as good as its geometry.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from difix3d.fixers.batches import photo
from difix3d.loop.config import MixtureConfig
from difix3d.loop.surface_points import DepthView, Places, Projected, Render
from splat_recon.scene.scene import View
from splat_render.cameras import Camera
from splat_render.output import RenderOutput

COUNT_SIZE = 128
"""Longer side, in pixels, of the renders by which it is found which captured views see a place."""

NUM_REPROJECTED = 3
"""A fixed view is compared with so many captured photos, the nearest ones."""


class TrustJudge:
    """Judges the fixed views of one round, while the splat stays as it is.

    Args:
        captured: What is known.
        render: What the splat shows.
        config: Which questions are asked, and how much the answers count.
    """

    def __init__(self, captured: Sequence[View], render: Render, config: MixtureConfig) -> None:
        self.captured = tuple(captured)
        self.config = config
        self._render = render
        self._small: list[DepthView] = []
        self._full: dict[int, DepthView] = {}

    def trust(
        self, camera: Camera, output: RenderOutput, fixed: Float[Tensor, "h w 3"], nearest: Sequence[int]
    ) -> Float[Tensor, "h w"] | None:
        """How far each pixel of a fixed view is believed, in [0, 1]; None where nothing is asked.

        Args:
            camera: Where the view is.
            output: What the splat shows there.
            fixed: What the fixer made of it.
            nearest: Indices of the captured views to compare it with.
        """
        maps = []
        if self.config.unseen_weight < 1:
            maps.append(self.seen_weight(camera))
        if self.config.reference_agreement is not None:
            maps.append(self.agreement(camera, output, fixed, nearest, half=self.config.reference_agreement))
        return torch.stack(maps).prod(dim=0).to(fixed) if maps else None

    def seen_weight(self, camera: Camera) -> Float64[Tensor, "h w"]:
        """1 where a captured view sees what a pixel shows, the config's weight where none does, between in doubt.

        One view is enough: a place that is seen more often is no better a place for guessing, and no worse.
        """
        shown = DepthView.rendered(camera, self._render, max_size=COUNT_SIZE)
        places = Places.shown_by(shown)
        if not self._small:
            self._small = [DepthView.rendered(view.camera, self._render, max_size=COUNT_SIZE) for view in self.captured]
        count = torch.zeros_like(places.p_world[:, 0])
        for view in self._small:
            count += Projected.into(view, places.p_world).seen_share
        unseen = self.config.unseen_weight
        weight = torch.full_like(shown.depth, unseen)
        weight[places.rows_idx, places.columns_idx] = unseen + (1 - unseen) * count.clamp_max(1)
        size = (camera.height, camera.width)
        return interpolate(weight[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]

    def agreement(
        self,
        camera: Camera,
        output: RenderOutput,
        fixed: Float[Tensor, "h w 3"],
        nearest: Sequence[int],
        *,
        half: float,
    ) -> Float64[Tensor, "h w"]:
        """1 where a fixed view has the colors that photos have of the same places, less where it has others.

        It falls with the square of the difference; `half` is the difference at which it is one half. Several photos
        count by their mean difference. Where none of them sees what a pixel shows, it is 1.
        """
        shown = DepthView.of(camera, output)
        places = Places.shown_by(shown)
        rgb = fixed[places.rows_idx, places.columns_idx].double()
        seen, difference = torch.zeros_like(rgb[:, 0]), torch.zeros_like(rgb[:, 0])
        for index in nearest:
            share, photographed = self._reprojected(index, places)
            seen += share
            difference += share * (rgb - photographed).abs().mean(dim=1)
        difference /= seen.clamp_min(1e-9)
        agreed = 1 / (1 + (difference / half) ** 2)
        trust = torch.ones_like(shown.depth)
        trust[places.rows_idx, places.columns_idx] = 1 - seen.clamp_max(1) * (1 - agreed)
        return trust

    def _reprojected(self, index: int, places: Places) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n 3"]]:
        """How surely a photo shows places, in [0, 1], and the colors that it has there."""
        view = self.captured[index]
        if index not in self._full:
            self._full[index] = DepthView.of(view.camera, self._render(view.camera))
        return photographed(view, self._full[index], places)


def photographed(view: View, depth: DepthView, places: Places) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n 3"]]:
    """How surely a photo shows places, in [0, 1], and the colors that it has there.

    Args:
        view: The photo.
        depth: How far it sees.
        places: Where to look.
    """
    found = Projected.into(depth, places.p_world)
    size = found.xy.new_tensor([view.camera.width, view.camera.height])
    # Pixel centers are at +0.5, as they are here for align_corners=False.
    where = (2 * found.xy / size - 1)[None, None]
    image = photo(view, device=found.xy.device).double().permute(2, 0, 1)[None]
    rgb = grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T
    share = found.seen_share
    if view.mask is not None:
        share = share * _looked_up(torch.from_numpy(view.mask.copy()).to(share.device), found)
    return share, rgb


def _looked_up(mask: Bool[Tensor, "h w"], found: Projected) -> Bool[Tensor, " n"]:
    """What a mask says of the places that are inside; False for the others."""
    looked_up = torch.zeros_like(found.inside)
    columns, rows = found.xy[found.inside].floor().long().unbind(dim=1)
    looked_up[found.inside] = mask[rows, columns]
    return looked_up
