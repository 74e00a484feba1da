"""Training of GSVAE: grids of Gaussians through latents and back, with GSRecon frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffsplat.gsrecon import GSRecon
from diffsplat.gsvae import GSVAE, kl_to_normal
from diffsplat.splat_grids import CHANNELS, SplatGrids
from diffsplat.training.config import GSVAETrainConfig
from diffsplat.training.losses import Perceptual, psnr_of_views, render_terms
from diffsplat.training.object_task import ObjectTask
from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import ParameterGroup

OPACITY = slice(sum(CHANNELS.values()) - 2, sum(CHANNELS.values()) - 1)
"""Where the opacity lies among the twelve channels."""

COLOR, ROTATION, DEPTH = slice(0, 3), slice(6, 10), slice(11, 12)
"""Where the others lie whose errors have weights of their own."""

ANCHOR_SCALE = 3.0
"""Numbers in [-1, 1] are stretched to about the spread of the other latents."""


class GSVAETask(ObjectTask):
    """What a training loop needs of GSVAE."""

    def __init__(
        self,
        config: GSVAETrainConfig,
        model: GSVAE,
        recon: GSRecon,
        objects: ViewsOfObjects,
        *,
        perceptual: Perceptual | None = None,
        kept_grids: dict[str, Tensor] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            model: What is trained.
            recon: Frozen.
            objects: Views to train on.
            perceptual: LPIPS for the renders.
            kept_grids: Grids of objects by their names, in half precision; those of others are added when they are
                first needed, which saves GSRecon from the second epoch on. None keeps nothing.
        """
        super().__init__(model, objects, batch_size=config.batch_size, seed=config.seed)
        self.config, self.model, self.perceptual = config, model, perceptual
        self.recon = recon.eval().requires_grad_(False)
        self._kept = kept_grids

    def begin_from_nothing(self, num_objects: int = 16) -> None:
        """Draw the network's weights anew, with the first objects as examples of grids."""
        first = self.objects.batch(list(range(min(num_objects, len(self.objects)))))
        self.model.begin_from_nothing(self.grids(first.to(next(self.model.parameters()).device)).flatten(0, 1))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The VAE, or the tiny decoder."""
        prefix = "tiny_decoder." if self.config.tiny_decoder else "vae."
        trained = {name: value for name, value in self.model.named_parameters() if name.startswith(prefix)}
        return [ParameterGroup(parameters=trained, config=self.config.optimizer)]

    @torch.no_grad()
    def grids(self, batch: ObjectViews) -> Float[Tensor, "b v c=12 h w"]:
        """What GSRecon makes of objects."""
        if self._kept is None:
            return self.recon(batch.images, *batch.input_cameras).channels()
        if not all(name in self._kept for name in batch.ids):
            found = self.recon(batch.images, *batch.input_cameras).channels()
            self._kept |= dict(zip(batch.ids, found.half(), strict=True))
        return torch.stack([self._kept[name] for name in batch.ids]).float()

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Errors of the grids and of their renders."""
        wanted = self.grids(batch)
        flat = wanted.flatten(0, 1)
        frozen = self.config.tiny_decoder
        with torch.autocast(flat.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                mean, logvar = (part.float() for part in self.model.posterior(flat))
            if self.config.tiny_decoder:
                found = self.model.decode_tiny(mean).float()
            else:
                noise = torch.randn(mean.shape, generator=generator)
                latents = mean + torch.exp(0.5 * logvar) * noise.to(mean)
                found = self.model.decode(latents, one_by_one=False).float()
        places = torch.where(flat[:, OPACITY] > 0, 1.0, self.config.empty_weight)
        errors = ((found - flat).square() * places).sum(dim=(0, 2, 3)) / places.sum().clamp(min=1)
        weights = torch.ones_like(errors)
        weights[COLOR], weights[ROTATION] = self.config.color_weight, self.config.rotation_weight
        weights[DEPTH] = self.config.depth_weight
        terms = {"grid": self.config.grid_weight * (weights * errors).mean()}
        if self.config.kl_weight and not frozen:
            terms["kl"] = self.config.kl_weight * kl_to_normal(mean, logvar) / mean[0].numel()
        if self.config.anchor_weight and not frozen:
            terms["anchor"] = self.config.anchor_weight * anchor_errors(mean, flat)
        if step % self.config.render_every == 0:
            grids = SplatGrids.from_channels(found.unflatten(0, wanted.shape[:2]))
            terms |= render_terms(batch.seen_in(grids), batch, self.config, self.perceptual)
        return terms


def anchor_errors(mean: Float[Tensor, "n l y x"], grids: Float[Tensor, "n c=12 h w"]) -> Float[Tensor, ""]:
    """Squared error of the first latents against the mean color, rotation and depth of what is opaque in their square.

    Those are what a small network learns last; they are stretched, and cut where there are fewer latents.
    """
    side = grids.shape[-1] // mean.shape[-1]
    opaque = (grids[:, OPACITY] > 0).to(grids)
    fraction = functional.avg_pool2d(opaque, side)
    anchors = torch.cat([grids[:, COLOR], grids[:, ROTATION], grids[:, DEPTH]], dim=1)[:, : mean.shape[1]]
    wanted = ANCHOR_SCALE * functional.avg_pool2d(anchors * opaque, side) / fraction.clamp(min=1e-3)
    errors = (mean[:, : wanted.shape[1]] - wanted).square() * fraction
    return errors.mean() / fraction.mean().clamp(min=1e-3)


@torch.no_grad()
def psnr_through_latents(model: GSVAE, recon: GSRecon, objects: ViewsOfObjects, indices: list[int]) -> dict[str, Any]:
    """Mean PSNR of all views, of GSRecon's grids and of the same through the VAE."""
    found: dict[str, list[float]] = {"psnr_gsrecon": [], "psnr_gsvae": []}
    for index in indices:
        batch = objects.batch([index])
        grids = recon(batch.images, *batch.input_cameras)
        coded = model.decode(model.encode(grids.channels().flatten(0, 1))).unflatten(0, (1, -1))
        for name, one in (("psnr_gsrecon", grids), ("psnr_gsvae", SplatGrids.from_channels(coded))):
            found[name] += psnr_of_views(batch.seen_in(one).rgb, batch.rgb)
    return {name: sum(values) / len(values) for name, values in found.items()}
