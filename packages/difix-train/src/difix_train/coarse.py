"""Train only the UNet of a network that starts at the identity, on its latents alone.

Such a network's latent holds the image averaged over 8 x 8 pixels, and a correction that is added to the image
(`difix_model.identity`). So what the UNet learns, how colours should change at that scale, can be learned without
encoding or decoding anything: a step costs a hundredth of one on whole images, and many thousand steps fit into an
hour of one CPU thread. The error that no coarse correction can undo is known for every pair and stands in the loss, so
that the loss is the logarithm of the mean squared error of the whole image: the best mean PSNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from difix_model.identity import COLOURS, CORRECTIONS
from difix_model.network import DifixNetwork
from difix_model.pairs import PairRecord

FLOOR = 1e-3
"""Mean squared error that is added in the logarithm of the loss: above 30 dB, what is left counts less and less."""

TINY = 1e-8
"""Keeps the logarithm of a measured error finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseConfig:
    """How the UNet is trained."""

    max_steps: int = 10_000
    """Optimizer steps."""

    batch_size: int = 16
    """Pairs per step."""

    cells: tuple[int, ...] = (8, 8, 6, 4)
    """Pixels along a cell of the latent, one drawn per batch; less than 8 shows the pairs as if enlarged."""

    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate, which falls to a hundredth of it along a cosine."""

    warmup_steps: int = 200
    """Steps over which it rises first."""

    weight_decay: float = 0.02
    """AdamW's decoupled weight decay."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this total norm."""

    ema_decay: float = 0.995
    """Decay of the moving average of the weights, which is what is kept."""

    drop_reference_prob: float = 0.15
    """Probability that a batch is shown without references."""

    wrong_reference_prob: float = 0.1
    """Probability that a batch is shown with references of other pairs."""

    tone: float = 0.8
    """Probability that the tones of a pair are changed, alike in all its images: colours exchanged, surfaces of one
    colour blackened, contrast raised, brightness bent. What is black is then no sign of a hole."""

    clean: float = 0.15
    """Probability that a pair's photo stands in the place of its render: there is nothing to correct then."""

    patch: float = 0.3
    """Probability that a window of render and photo shows another pair's, so that surroundings tell less."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of forward and backward; the weights stay float32."""

    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        if min(self.max_steps, self.batch_size, *self.cells) < 1:
            raise ValueError("max_steps, batch_size and cells must be at least 1")
        if not 0 <= self.drop_reference_prob + self.wrong_reference_prob <= 1:
            raise ValueError("drop_reference_prob + wrong_reference_prob must be in [0, 1]")


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarsePairs:
    """Pairs averaged over cells of one size, RGB in [0, 1]."""

    rendered: Float[Tensor, "n c=3 h w"]
    photo: Float[Tensor, "n c=3 h w"]
    reference: Float[Tensor, "n c=3 h w"]
    fine_mse: Float[Tensor, " n"]
    """Mean squared error of the render that lies within the cells."""

    def __len__(self) -> int:
        return len(self.rendered)


def coarse_pairs(records: Sequence[PairRecord], cells: Sequence[int]) -> dict[int, CoarsePairs]:
    """Read pairs of images of one size once, and average them over cells of several sizes.

    Args:
        records: The pairs, each with a reference.
        cells: Pixels along a cell.

    Returns:
        By the size of the cells.

    Raises:
        ValueError: There is no pair, one has no reference, or their sizes differ.
    """
    rows: dict[int, list[list[Tensor]]] = {size: [] for size in set(cells)}
    shape = None
    for record in records:
        if record.ref_image is None:
            raise ValueError(f"pair {record.id} has no reference: coarse training wants one for every pair")
        images = [_read(path) for path in (record.image, record.target_image, record.ref_image)]
        shape = shape or images[0].shape
        if any(image.shape != shape for image in images):
            raise ValueError(f"pair {record.id} is of another size: expected {shape}")
        error = float((images[0] - images[1]).square().mean())
        for size, kept in rows.items():
            averaged = [functional.avg_pool2d(image, size) for image in images]
            fine = max(error - float((averaged[0] - averaged[1]).square().mean()), 0.0)
            kept.append([*averaged, torch.tensor(fine)])
    if shape is None:
        raise ValueError("there is no pair to learn from")
    stacked = {size: [torch.stack(column) for column in zip(*kept, strict=True)] for size, kept in rows.items()}
    return {
        size: CoarsePairs(rendered=columns[0], photo=columns[1], reference=columns[2], fine_mse=columns[3])
        for size, columns in stacked.items()
    }


def _read(path: Path) -> Float[Tensor, "c=3 h w"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def corrected(
    network: DifixNetwork,
    rendered: Float[Tensor, "b c=3 h w"],
    references: Float[Tensor, "b c=3 h w"] | None,
    *,
    text_embedding: Float[Tensor, "t d"],
) -> Float[Tensor, "b c=3 h w"]:
    """What the network makes of coarse renders, not clamped; RGB in [0, 1] in and out."""
    views = [rendered] if references is None else [rendered, references]
    z = rendered.new_zeros(len(rendered), len(views), network.config.vae.latent_channels, *rendered.shape[-2:])
    z[:, :, list(COLOURS)] = 2 * torch.stack(views, dim=1) - 1
    clean = network.denoise_latents(z, text_embedding=text_embedding)
    return rendered + clean[:, 0, list(CORRECTIONS)] / 2


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
            given = None if references == "none" else used[part]
            fixed = corrected(network, pairs.rendered[part], given, text_embedding=text_embedding).clamp(0, 1)
            errors.append((fixed - pairs.photo[part]).square().mean(dim=(1, 2, 3)))
    before = (pairs.rendered - pairs.photo).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10((torch.cat(errors) + pairs.fine_mse + TINY) / (before + pairs.fine_mse + TINY))


def train_coarse(
    network: DifixNetwork,
    pairs: dict[int, CoarsePairs],
    config: CoarseConfig,
    *,
    text_embedding: Float[Tensor, "t d"],
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train the network's UNet in place; its weights are the moving average at the end.

    Args:
        network: Started at the identity; its autoencoder is not touched.
        pairs: By the size of the cells, all that the config draws from.
        config: How.
        text_embedding: Embedding of the prompt.
        device: Where to compute; the network stays there.
        on_step: Is told of every step and its loss.
    """
    unet = network.to(device).unet
    text_embedding = text_embedding.to(device)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    average = {name: value.detach().clone() for name, value in unet.state_dict().items()}
    for step, batch in enumerate(_batches(pairs, config)):
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
        if on_step is not None:
            on_step(step + 1, float(loss.detach()))
    unet.load_state_dict(average)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    rendered: Float[Tensor, "b c=3 h w"]
    photo: Float[Tensor, "b c=3 h w"]
    references: Float[Tensor, "b c=3 h w"] | None
    fine_mse: Float[Tensor, " b"]


def _loss(
    network: DifixNetwork, batch: _Batch, config: CoarseConfig, *, text_embedding: Tensor, device: str
) -> Float[Tensor, ""]:
    references = None if batch.references is None else batch.references.to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        fixed = corrected(network, batch.rendered.to(device), references, text_embedding=text_embedding)
    error = (fixed.float() - batch.photo.to(device)).square().mean(dim=(1, 2, 3))
    return torch.log(error + batch.fine_mse.to(device) + FLOOR).mean()


def _rate(step: int, config: CoarseConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.max_steps)))


def _batches(pairs: dict[int, CoarsePairs], config: CoarseConfig) -> Iterator[_Batch]:
    rng = np.random.default_rng(config.seed)
    for _ in range(config.max_steps):
        of_size = pairs[config.cells[rng.integers(len(config.cells))]]
        chosen = torch.from_numpy(rng.integers(len(of_size), size=config.batch_size))
        images = torch.stack([of_size.rendered[chosen], of_size.photo[chosen], of_size.reference[chosen]], dim=1)
        if rng.random() < 0.5:
            images = images.flip(-1)
        fine_mse = of_size.fine_mse[chosen]
        for index in range(len(images)):
            if rng.random() < config.patch:
                rows, columns = _span(images.shape[-2], rng), _span(images.shape[-1], rng)
                images[index, :2, :, rows, columns] = images[index - 1, :2, :, rows, columns]
            if rng.random() < config.clean:
                images[index, 0] = images[index, 1]
                fine_mse[index] = 0
        changed = torch.stack([_toned(one, rng) if rng.random() < config.tone else one for one in images])
        # The error within the cells is taken to change with the contrast as that between them does.
        ratio = _spread(changed) / _spread(images).clamp(min=1e-5)
        rendered, photo, references = changed.unbind(dim=1)
        draw = rng.random() - config.drop_reference_prob
        if draw < config.wrong_reference_prob:
            references = None if draw < 0 else references.roll(1, dims=0)
        yield _Batch(rendered=rendered, photo=photo, references=references, fine_mse=fine_mse * ratio)


def _span(side: int, rng: np.random.Generator) -> slice:
    """A quarter to three quarters of a side."""
    length = max(1, round(float(rng.uniform(0.25, 0.75)) * side))
    start = int(rng.integers(side - length + 1))
    return slice(start, start + length)


def _spread(images: Float[Tensor, "b v c h w"]) -> Float[Tensor, " b"]:
    """Mean squared error of the renders."""
    return (images[:, 0] - images[:, 1]).square().mean(dim=(1, 2, 3))


def _toned(images: Float[Tensor, "v c=3 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=3 h w"]:
    """Other tones, the same for all views: black stays black, and more becomes it."""
    images = images[:, torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        images = _blackened(images, rng)
    black = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    white = rng.uniform(0.7, 1.1)
    gamma = float(np.exp(rng.uniform(-0.5, 0.5)))
    return ((images - black) / (white - black)).clamp(0, 1) ** gamma


def _blackened(images: Float[Tensor, "v c=3 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=3 h w"]:
    """Surfaces of the colour of some place of the photo become black, in all views."""
    _, _, height, width = images.shape
    colour = images[1, :, rng.integers(height), rng.integers(width)]
    distance = (images - colour[:, None, None]).norm(dim=1, keepdim=True)
    return images * ((distance / rng.uniform(0.1, 0.3)) ** 2).clamp(0, 1)
