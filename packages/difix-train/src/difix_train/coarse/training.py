"""Train only the UNet of a network that starts at the identity, on its latents alone.

Such a network's latent holds the image averaged over 8 x 8 pixels, how much detail there is, and a correction that is
added to the image (`difix_model.identity`). So what the UNet learns, how colours should change at that scale, can be
learned without encoding or decoding anything: a step costs a hundredth of one on whole images, and many thousand steps
fit into an hour of one CPU thread. The error that no coarse correction can undo is known for every pair and stands in
the loss, so that the loss is the logarithm of the mean squared error of the whole image: the best mean PSNR, with harm
counted more than good.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.config import RENDERED_VIEW
from difix_model.identity import COLOURS, CORRECTIONS, DETAIL
from difix_model.network import DifixNetwork
from difix_train.coarse.batches import CoarseBatch, coarse_batches
from difix_train.coarse.config import CoarseConfig
from difix_train.coarse.pairs import DETAIL_PLANE, RGB, CoarsePairs

FLOOR = 1e-3
"""Mean squared error that is added in the logarithm of the loss: above 30 dB, what is left counts less and less."""

SAVE_EVERY = 500
"""Steps between two states on disk."""

TINY = 1e-8
"""Keeps the logarithm of a measured error finite."""


def corrected(
    network: DifixNetwork, views: Float[Tensor, "b v c=4 h w"], *, text_embedding: Float[Tensor, "t d"]
) -> Float[Tensor, "b c2=3 h w"]:
    """What the network makes of coarse renders: RGB, about in [0, 1], not clamped.

    Args:
        network: What corrects.
        views: Planes as in `CoarsePairs`; view 0 is the render, the others are references.
        text_embedding: Embedding of the prompt.
    """
    z = views.new_zeros(*views.shape[:2], network.config.vae.latent_channels, *views.shape[-2:])
    z[:, :, list(COLOURS)] = 2 * views[:, :, RGB] - 1
    z[:, :, DETAIL] = views[:, :, DETAIL_PLANE]
    clean = network.denoise_latents(z, text_embedding=text_embedding)
    return views[:, RENDERED_VIEW, RGB] + clean[:, RENDERED_VIEW, list(CORRECTIONS)] / 2


def coarse_gain(
    network: DifixNetwork,
    pairs: CoarsePairs,
    *,
    text_embedding: Float[Tensor, "t d"],
    references: Literal["right", "wrong", "none"] = "right",
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """By how many dB each whole image comes closer to its photo, as far as the coarse scale tells.

    Args:
        network: What corrects.
        pairs: Not trained on.
        text_embedding: Embedding of the prompt.
        references: "right", "wrong" (those of pairs half the set away) or "none".
        batch_size: How many at a time.
    """
    used = pairs.reference.roll(len(pairs) // 2, dims=0) if references == "wrong" else pairs.reference
    errors = []
    with torch.no_grad():
        for start in range(0, len(pairs), batch_size):
            part = slice(start, start + batch_size)
            views = [pairs.rendered[part]] if references == "none" else [pairs.rendered[part], used[part]]
            fixed = corrected(network, torch.stack(views, dim=1), text_embedding=text_embedding).clamp(0, 1)
            errors.append((fixed - pairs.photo[part, RGB]).square().mean(dim=(1, 2, 3)))
    before = (pairs.rendered - pairs.photo)[:, RGB].square().mean(dim=(1, 2, 3))
    return -10 * torch.log10((torch.cat(errors) + pairs.fine_mse + TINY) / (before + pairs.fine_mse + TINY))


def train_coarse(
    network: DifixNetwork,
    pairs: Sequence[CoarsePairs],
    config: CoarseConfig,
    *,
    text_embedding: Float[Tensor, "t d"],
    device: str = "cpu",
    state: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train the network's UNet in place; its weights are the moving average at the end.

    Args:
        network: Started at the identity; its autoencoder is not touched.
        pairs: By the size of their images.
        config: How.
        text_embedding: Embedding of the prompt.
        device: Where to compute; the network stays there.
        state: File to go on from if it is there, written every `SAVE_EVERY` steps and removed at the end. On a CPU the
            result does not depend on whether a training was interrupted.
        on_step: Is told of every step and its loss.

    Raises:
        ValueError: The state is of a training with another config.
    """
    unet = network.to(device).unet
    text_embedding = text_embedding.to(device)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    average = {name: value.detach().clone() for name, value in unet.state_dict().items()}
    first_step = 0
    if state is not None and state.is_file():
        first_step = _read_state(state, unet, optimizer, average, config)
    for step, batch in enumerate(coarse_batches(pairs, config, first_step), start=first_step):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config)
        loss = _loss(network, batch, config, text_embedding=text_embedding, device=device)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), config.max_grad_norm)
        optimizer.step()
        decay = min(config.ema_decay, step / (step + 10))
        for name, value in unet.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        if state is not None and (step + 1) % SAVE_EVERY == 0:
            _write_state(state, step + 1, unet, optimizer, average, config)
        if on_step is not None:
            on_step(step + 1, float(loss.detach()))
    unet.load_state_dict(average)
    if state is not None:
        state.unlink(missing_ok=True)


def _write_state(
    path: Path,
    step: int,
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    config: CoarseConfig,
) -> None:
    content = {
        "step": step,
        "config": json.dumps(dataclasses.asdict(config)),
        "unet": unet.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
    }
    whole = path.with_name(path.name + ".part")
    torch.save(content, whole)
    whole.replace(path)


def _read_state(
    path: Path, unet: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], config: CoarseConfig
) -> int:
    """Put everything back; the number of steps done."""
    content = torch.load(path, weights_only=True, map_location="cpu")
    if content["config"] != json.dumps(dataclasses.asdict(config)):
        raise ValueError(f"{path} is of a training with other settings: remove it to start again")
    unet.load_state_dict(content["unet"])
    optimizer.load_state_dict(content["optimizer"])
    for name, value in content["average"].items():
        average[name].copy_(value)
    return content["step"]


def _loss(
    network: DifixNetwork, batch: CoarseBatch, config: CoarseConfig, *, text_embedding: Tensor, device: str
) -> Float[Tensor, ""]:
    views = [batch.rendered] if batch.references is None else [batch.rendered, batch.references]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        fixed = corrected(network, torch.stack(views, dim=1).to(device), text_embedding=text_embedding)
    photo, least = batch.photo.to(device)[:, RGB], batch.fine_mse.to(device) + FLOOR
    after = torch.log((fixed.float() - photo).square().mean(dim=(1, 2, 3)) + least)
    before = torch.log((batch.rendered.to(device)[:, RGB] - photo).square().mean(dim=(1, 2, 3)) + least)
    return (after + config.harm_weight * (after - before).clamp(min=0)).mean()


def _rate(step: int, config: CoarseConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.max_steps)))
