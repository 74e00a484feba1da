"""How much a network improves test pairs, and whether it looks at the reference: right, wrong or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.config import RENDERED_VIEW
from difix_train.dataset import Draw, PairDataset
from difix_train.sampler import wrong_reference_index
from image_metrics import flip, psnr, ssim

REFERENCE_MODES = ("right", "wrong", "none")
"""The sample's own reference, another sample's, or none at all."""

Fix = Callable[[Float[Tensor, "1 v 3 h w"], str], Float[Tensor, "1 1 3 h w"]]
"""A network with its prompt embeddings: views in [-1, 1] and the prompt in, the fixed view out."""

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Mean quality of images against the clean ones."""

    psnr: float
    ssim: float
    flip: float
    """Lower is better, as for LPIPS."""
    lpips: float | None = None
    harmed: float | None = None
    """Fraction of images whose PSNR is lower than before; None for the input itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairEvaluation:
    """Quality before and after fixing, by what the network was shown as reference."""

    num_samples: int
    before: Scores
    after: dict[str, Scores]
    """By reference mode; modes that the pairs cannot show are absent."""

    per_sample: dict[str, dict[str, float]]
    """PSNR by sample: before and by reference mode."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def table(self) -> list[tuple[str, Scores]]:
        """Rows to show: the input, then every reference mode."""
        names = {"right": "right reference", "wrong": "wrong reference", "none": "no reference"}
        return [("input", self.before), *((names[mode], scores) for mode, scores in self.after.items())]

    @property
    def uses_reference(self) -> bool | None:
        """Whether the right reference beats both a wrong one and none in PSNR; None where a mode is absent."""
        if set(self.after) != set(REFERENCE_MODES):
            return None
        right, wrong, none = (self.after[mode].psnr for mode in REFERENCE_MODES)
        return right > wrong and right > none


def evaluate_pairs(
    fix: Fix,
    dataset: PairDataset,
    *,
    max_samples: int | None = None,
    modes: Sequence[str] = REFERENCE_MODES,
    lpips: PerceptualDistance | None = None,
    device: torch.device | str = "cpu",
) -> PairEvaluation:
    """Fix up to ``max_samples`` pairs, evenly spread over the dataset, and compare rendered views with clean ones.

    Args:
        dataset: Test pairs; augmentation is not applied.
        max_samples: Limit; None for all.
        lpips: Perceptual distance of images in [-1, 1], if it is available.
        device: Where ``fix`` computes.
    """
    scores: dict[str, list[tuple[float, ...]]] = {"before": []}
    per_sample: dict[str, dict[str, float]] = {}
    indices = spread(len(dataset), max_samples)
    for index in indices:
        record: dict[str, float] = {}
        for mode in modes:
            draw = _draw(dataset, index, mode)
            if draw is None:
                continue
            x, x_clean = (views[None].to(device) for views in dataset.whole_sample(draw))
            clean = x_clean[:, RENDERED_VIEW]
            if "before" not in record:
                scores["before"].append(_compared(x[:, RENDERED_VIEW], clean, lpips))
                record["before"] = scores["before"][-1][0]
            fixed = fix(x, dataset.pairs[index].prompt)[:, RENDERED_VIEW].float().clamp(-1, 1)
            compared = _compared(fixed, clean, lpips)
            harmed = float(compared[0] < record["before"])
            scores.setdefault(mode, []).append((*compared[:3], harmed, *compared[3:]))
            record[mode] = compared[0]
        per_sample[dataset.pairs[index].id] = record
    before = [(*row[:3], 0.0, *row[3:]) for row in scores.pop("before")]
    return PairEvaluation(
        num_samples=len(indices),
        before=_mean_scores(before, input_itself=True),
        after={mode: _mean_scores(scores[mode]) for mode in modes if mode in scores},
        per_sample=per_sample,
    )


def spread(count: int, limit: int | None) -> list[int]:
    """Up to ``limit`` indices below ``count``, evenly spread and the same every time."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def _draw(dataset: PairDataset, index: int, mode: str) -> Draw | None:
    if mode == "none":
        return Draw(index=index, reference_index=None)
    if not dataset.pairs[index].references:
        return None
    if mode == "right":
        return Draw(index=index, reference_index=index)
    # Half a dataset away: neighbors in the file are often neighbors in the scene.
    other = wrong_reference_index(dataset, index, ((index + len(dataset) // 2) % len(dataset)) / len(dataset))
    return None if other == index else Draw(index=index, reference_index=other)


def _compared(x: Tensor, x_clean: Tensor, lpips: PerceptualDistance | None) -> tuple[float, ...]:
    rgb, rgb_clean = ((each[0] * 0.5 + 0.5).permute(1, 2, 0) for each in (x, x_clean))
    values = [measure(rgb, rgb_clean) for measure in (psnr, ssim, flip)]
    if lpips is not None:
        values.append(float(lpips(x, x_clean)))
    return tuple(values)


def _mean_scores(rows: list[tuple[float, ...]], *, input_itself: bool = False) -> Scores:
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return Scores(
        psnr=means[0],
        ssim=means[1],
        flip=means[2],
        harmed=None if input_itself else means[3],
        lpips=means[4] if len(means) > 4 else None,
    )
