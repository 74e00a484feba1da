"""Do no harm: how much of a network's change to let through, as a pure function of image, change and settings.

The benefit of a change grows linearly with its strength, the harm of a wrong one quadratically, so that letting through
a part of it costs little and protects much. The settings travel in a checkpoint's metadata under "gate".
`config.DEFAULT_GATE` is for all other weights. `evidence` measures, this file applies, and `verdict` says what became
of every image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.gate.config import GateConfig
from difix_model.gate.evidence import ChangeEvidence, change_evidence
from difix_model.gate.verdict import PASSED, FixVerdict, Reason

PIXELS_AT_ONCE = 2**20
"""Pixels of an image that are computed on at a time: a whole large one would be held several times over."""

OPAQUE = 0.5
"""Opacity from which a render is worth keeping: at thin places of a good splat it is well below 1."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Gated:
    """What the gate lets through."""

    rgb: Float[Tensor, "b h w c=3"]
    """RGB in [0, 1]."""

    verdicts: tuple[FixVerdict, ...]
    """What became of each image's fix."""

    weight: Float[Tensor, "b h w"] | None = None
    """The fraction of the fix in it, in [0, 1]: 0 is the render, 1 the fix; 0 where the two agree. None if not asked
    for."""


def apply_gate(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: GateConfig | None,
    *,
    strength: float = 1.0,
    mask: Float[Tensor, "b h w"] | None = None,
    alpha: Float[Tensor, "b h w"] | None = None,
    references: Float[Tensor, "b h2 w2 c=3"] | None = None,
    with_weight: bool = False,
    in_place: bool = False,
) -> Gated:
    """Return the render with as much of the fix as gate, strength and mask allow; images do not influence each other.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        config: The gate; None has none.
        strength: Fraction of what the gate lets through, in [0, 1].
        mask: Fraction of that by pixel, in [0, 1]: where it is 0, the render is returned bit by bit.
        alpha: Opacity of the render in [0, 1], if known. Where nothing was rendered the gate lets the change through
            whatever its limits: there is nothing to harm. From `OPAQUE` on they apply in full.
        references: One per image, if there are any; only `config.evidence` looks at them.
        with_weight: Whether to return the weight, too.
        in_place: Whether the result may be written over `fixed`, so that a large image is not held once more.
    """
    allowed = fixed if config is None else _dark_kept(rendered, fixed, config)
    evidence = None
    if config is not None and config.evidence is not None:
        evidence = change_evidence(rendered, allowed, config.evidence, references=references)
    size_confidence = None
    if config is not None and config.trusted_change > 0:
        size_confidence = (_change_size(rendered, allowed) / config.trusted_change).clamp(max=1.0)
    unrestricted = config is None and strength == 1.0 and mask is None
    out = fixed if in_place or unrestricted else torch.empty_like(fixed)
    weight = torch.zeros_like(fixed[..., 0]) if with_weight else None
    changes = torch.zeros(2, len(fixed), dtype=torch.float64, device=fixed.device)
    bands = _restricted(
        rendered,
        fixed,
        allowed,
        config,
        confidence=_confidence(evidence, size_confidence),
        strength=strength,
        mask=mask,
        alpha=alpha,
    )
    # A band looks at the last rows of the one before it, as they were: each is written once the next one is there.
    before: tuple[slice, Tensor] | None = None
    for rows, result in bands:
        render, change = rendered[:, rows], fixed[:, rows] - rendered[:, rows]
        for total, size in zip(changes, (change, result - render), strict=True):
            total += size.abs().sum(dim=(1, 2, 3), dtype=torch.float64)
        if weight is not None:
            weight[:, rows] = _weight(render, change, result)
        if before is not None and not unrestricted:
            out[:, before[0]] = before[1]
        before = (rows, result)
    if before is not None and not unrestricted:
        out[:, before[0]] = before[1]
    changes = changes / fixed[0].numel() if len(fixed) else changes
    return Gated(rgb=out, verdicts=_verdicts(changes, evidence, size_confidence), weight=weight)


def _restricted(
    rendered: Tensor,
    fixed: Tensor,
    allowed: Tensor,
    config: GateConfig | None,
    *,
    confidence: Float[Tensor, "b h2 w2 1"] | None,
    strength: float,
    mask: Tensor | None,
    alpha: Tensor | None,
) -> Iterator[tuple[slice, Float[Tensor, "b h3 w c"]]]:
    """The result in bands of rows: what is computed between is far larger than the image."""
    around = config.blur_radius if config is not None and config.detail_strength < 1 else 0
    for rows in _bands(*rendered.shape[1:3], at_least=around):
        result, render, change = fixed[:, rows], rendered[:, rows], fixed[:, rows] - rendered[:, rows]
        if config is not None:
            wider = slice(max(rows.start - around, 0), rows.stop + around)
            passed = allowed[:, wider] - rendered[:, wider]
            if confidence is not None:
                passed = passed * (confidence if confidence.shape[1] == 1 else confidence[:, wider])
            passed = _fine_limited(passed, config)
            passed = passed[:, rows.start - wider.start :][:, : rows.stop - rows.start]
            if alpha is not None:
                passed = torch.lerp(change, passed, (alpha[:, rows, :, None] / OPAQUE).clamp(max=1.0))
            result = (render + passed).clamp_(0.0, 1.0)
        fraction = strength if mask is None else strength * mask[:, rows].to(fixed)[..., None]
        yield rows, torch.lerp(render, result, fraction)


def _confidence(
    evidence: ChangeEvidence | None, size_confidence: Float[Tensor, " b"] | None
) -> Float[Tensor, "b h2 w2 1"] | None:
    """How far the change is let through at every pixel (or everywhere: 1x1); None if all of it is."""
    confidence = None if evidence is None else evidence.confidence[..., None]
    if size_confidence is None:
        return confidence
    by_size = size_confidence[:, None, None, None]
    return by_size if confidence is None else confidence * by_size


def _verdicts(
    changes: Float[Tensor, "2 b"], evidence: ChangeEvidence | None, size_confidence: Float[Tensor, " b"] | None
) -> tuple[FixVerdict, ...]:
    proposed, applied = changes.tolist()
    coverage = None if evidence is None else evidence.coverage.tolist()
    drift = None if evidence is None or evidence.palette_drift is None else evidence.palette_drift.tolist()
    factors: dict[Reason, list[float]] = {}
    if evidence is not None:
        factors["low_coverage"] = evidence.coverage_confidence.tolist()
        factors["palette_drift"] = evidence.palette_confidence.tolist()
    if size_confidence is not None:
        factors["small_change"] = size_confidence.tolist()
    if evidence is not None:
        local = evidence.confidence.mean(dim=(1, 2)) / (
            evidence.coverage_confidence * evidence.palette_confidence
        ).clamp(min=1e-6)
        factors["local"] = local.tolist()
    return tuple(
        FixVerdict(
            proposed_change=proposed[index],
            applied_change=applied[index],
            reason=_reason(proposed[index], applied[index], {name: of[index] for name, of in factors.items()}),
            coverage=None if coverage is None else coverage[index],
            palette_drift=None if drift is None else drift[index],
        )
        for index in range(len(proposed))
    )


def _reason(proposed: float, applied: float, factors: dict[Reason, float]) -> Reason:
    """The factor that took most, if any took something."""
    if proposed == 0:
        return "no_change"
    if applied >= PASSED * proposed:
        return "passed"
    smallest = min(factors, key=lambda name: factors[name], default=None)
    return smallest if smallest is not None and factors[smallest] < PASSED else "limited"


def _fine_limited(change: Float[Tensor, "b h w c"], config: GateConfig) -> Float[Tensor, "b h w c"]:
    if config.detail_strength < 1:
        coarse = _averaged(change, config.blur_radius)
        change = coarse + config.detail_strength * (change - coarse)
    if config.max_change < 1:
        change = config.max_change * torch.tanh(change / config.max_change)
    return config.strength * change


def _dark_kept(
    rendered: Float[Tensor, "b h w c"], fixed: Float[Tensor, "b h w c"], config: GateConfig
) -> Float[Tensor, "b h w c"]:
    """The fix without what brightens dark places: that is no evidence either."""
    if config.dark_level == 0:
        return fixed
    level = _averaged(rendered.amax(dim=-1, keepdim=True), config.blur_radius)
    fraction = (2 * level / config.dark_level - 1).clamp_(0.0, 1.0)
    return torch.minimum(fixed, torch.lerp(rendered, fixed, fraction))


def _change_size(rendered: Float[Tensor, "b h w c"], fixed: Float[Tensor, "b h w c"]) -> Float[Tensor, " b"]:
    """Root mean square of the change."""
    squares = [
        (fixed[:, rows] - rendered[:, rows]).square().sum(dim=(1, 2, 3)) for rows in _bands(*rendered.shape[1:3])
    ]
    return (torch.stack(squares).sum(dim=0) / fixed[0].numel()).sqrt()


def _bands(height: int, width: int, at_least: int = 1) -> list[slice]:
    step = max(PIXELS_AT_ONCE // width, at_least, 1)
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _weight(render: Tensor, raw_change: Tensor, result: Tensor) -> Float[Tensor, "b h w"]:
    """The part of the change that is in the result, by projection: colors may be limited one by one."""
    size = raw_change.square().sum(dim=-1)
    fraction = ((result - render) * raw_change).sum(dim=-1) / size.clamp(min=1e-12)
    return torch.where(size > 1e-12, fraction, torch.zeros_like(fraction)).clamp(0.0, 1.0)


def _averaged(image: Float[Tensor, "b h w c"], radius: int) -> Float[Tensor, "b h w c"]:
    """Mean over a square window, which is smaller at the borders."""
    planes = image.movedim(-1, 1)
    kernel = 2 * radius + 1
    mean = torch.nn.functional.avg_pool2d(planes, kernel, stride=1, padding=radius, count_include_pad=False)
    return mean.movedim(1, -1)
