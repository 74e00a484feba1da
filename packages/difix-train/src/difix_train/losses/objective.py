"""The weighted sum of loss terms that a training step minimizes."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from difix_train.config import LossConfig
from difix_train.errors import InputError
from difix_train.losses.gram import image_gram_loss, random_window
from difix_train.losses.lpips import Lpips
from difix_train.losses.vgg import VggFeatures, load_vgg16

logger = logging.getLogger(__name__)


class Objective(nn.Module):
    """All active loss terms of a :class:`LossConfig`; frozen.

    Args:
        vgg: Backbone of LPIPS and Gram; loaded from the configured file when it is needed and not given.
        lpips: Perceptual distance; built on ``vgg`` when it is needed and not given.

    Raises:
        InputError: VGG16's weights are needed, absent, and ``missing_backbone`` is `stop`, or no other term is left.
    """

    def __init__(self, config: LossConfig, *, vgg: VggFeatures | None = None, lpips: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.lpips_weight = config.lpips_weight
        self.gram_weight = config.gram_weight
        needs_vgg = config.gram_weight > 0 or (config.lpips_weight > 0 and lpips is None)
        if vgg is None and needs_vgg:
            vgg = self._loaded_backbone()
        self.vgg = vgg
        if lpips is None and vgg is not None and self.lpips_weight > 0:
            lpips = Lpips.from_heads_file(vgg)
        self.lpips = lpips
        self.requires_grad_(False)

    def _loaded_backbone(self) -> VggFeatures | None:
        try:
            return load_vgg16(self.config.vgg16)
        except InputError as error:
            if self.config.missing_backbone == "stop":
                raise
            if not (self.config.l2_weight or self.config.l1_weight):
                raise InputError(f"without LPIPS and Gram no loss term is left: {error}") from error
            logger.warning("Training without LPIPS and Gram: %s", error)
            self.lpips_weight = self.gram_weight = 0.0
            return None

    def forward(
        self,
        x_pred: Float[Tensor, "b v c=3 h w"],
        x_clean: Float[Tensor, "b v c=3 h w"],
        *,
        step: int,
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """The active loss terms of an output, in float32, each times its weight; their sum is the loss.

        Args:
            x_pred: The views that count, in [-1, 1] or a little outside.
            step: Optimizer steps already made; decides whether Gram has begun.
            generator: CPU generator of the Gram window.
        """
        config = self.config
        pred, clean = x_pred.float().flatten(0, 1), x_clean.float().flatten(0, 1)
        if config.clamp_before_loss:
            pred = pred.clamp(-1, 1)
        terms: dict[str, Tensor] = {}
        if config.l2_weight > 0:
            terms["l2"] = config.l2_weight * functional.mse_loss(pred, clean)
        if config.l1_weight > 0:
            terms["l1"] = config.l1_weight * functional.l1_loss(pred, clean)
        if self.lpips_weight > 0 and self.lpips is not None:
            terms["lpips"] = self.lpips_weight * self.lpips(pred, clean).mean()
        if self.gram_weight > 0 and self.vgg is not None and step > config.gram_warmup_steps:
            window = random_window(pred.shape[-2], pred.shape[-1], config.gram_crop, generator)
            gram = image_gram_loss(self.vgg, pred, clean, window, across_batch=config.gram_across_batch)
            terms["gram"] = self.gram_weight * gram
        return terms
