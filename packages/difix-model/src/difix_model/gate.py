"""Do no harm: how much of a network's change to let through, as a pure function of image, change and settings.

The benefit of a change grows linearly with its strength, the harm of a wrong one quadratically, so that letting through
a part of it costs little and protects much. The settings travel in a checkpoint's metadata under "gate". `DEFAULT_GATE`
is for all other weights, and what `difix-fix` takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.errors import InputError
from difix_model.gate_evidence import EvidenceConfig, change_trust


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What the gate lets through."""

    strength: float = 1.0
    """Share of the change, in [0, 1]; 0 returns the render."""

    detail_strength: float = 1.0
    """Share of the change's fine part (what `blur_radius` smooths away), in [0, 1], on top of `strength`."""

    blur_radius: int = 4
    """Pixels over which a change is averaged to tell its coarse part from its fine part, at least 1."""

    max_change: float = 1.0
    """No channel of a pixel changes by more than about this; approached smoothly. In (0, 1]."""

    trusted_change: float = 0.0
    """Root mean square change of an image from which it is let through in full; below, in proportion, since a network
    that finds little to fix had a good image before it. 0 trusts every change."""

    dark_level: float = 0.0
    """Where the brightest channel, averaged over `blur_radius`, is below this, nothing is brightened, or in proportion
    from half of it on: black things look like holes. Holes that the opacity shows are filled all the same. In [0, 1];
    0 for no such care."""

    evidence: EvidenceConfig | None = None
    """Lets a change through only where there is something to say for it; None does so everywhere."""

    def __post_init__(self) -> None:
        for name in ("strength", "detail_strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.dark_level <= 1:
            raise ValueError(f"gate.dark_level must be in [0, 1], got {self.dark_level}")
        if self.blur_radius < 1:
            raise ValueError(f"gate.blur_radius must be at least 1, got {self.blur_radius}")
        if not 0 < self.max_change <= 1:
            raise ValueError(f"gate.max_change must be in (0, 1], got {self.max_change}")
        if self.trusted_change < 0:
            raise ValueError(f"gate.trusted_change must be at least 0, got {self.trusted_change}")


DEFAULT_GATE = GateConfig(evidence=EvidenceConfig())
"""For weights that bring no gate that looks at evidence."""

PIXELS_AT_ONCE = 2**20
"""Pixels of an image that are computed on at a time: a whole large one would be held several times over."""

OPAQUE = 0.5
"""Opacity from which a render is worth keeping: at thin places of a good splat it is well below 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gated:
    """What the gate lets through."""

    rgb: Float[Tensor, "b h w c=3"]
    """RGB in [0, 1]."""

    weight: Float[Tensor, "b h w"] | None
    """The share of the fix in it, in [0, 1]: 0 is the render, 1 the fix; 0 where the two agree. None if not asked
    for."""


def gate_from(settings: Mapping[str, Any] | None) -> GateConfig | None:
    """Read the settings that travel in a checkpoint's metadata.

    Raises:
        InputError: If they are unknown or out of range.
    """
    if settings is None:
        return None
    given = dict(settings)
    try:
        evidence = given.pop("evidence", None)
        return GateConfig(**given, evidence=None if evidence is None else EvidenceConfig(**evidence))
    except (TypeError, ValueError) as error:
        raise InputError(f"the gate of these weights cannot be used: {error}") from error


GateChoice = GateConfig | Literal["checkpoint", "auto", "off"]
"""A gate, or where to take one from: the weights' own, if they bring one; the default, unless theirs looks at evidence
as well; none."""


def chosen_gate(choice: GateChoice, own: GateConfig | None) -> GateConfig | None:
    """Return the gate that is meant.

    Args:
        choice: What the user wants.
        own: The gate that the weights bring, if any.

    Raises:
        InputError: If the choice is unknown.
    """
    if isinstance(choice, GateConfig):
        return choice
    careful = own if own is not None and own.evidence is not None else DEFAULT_GATE
    gates = {"checkpoint": own, "auto": careful, "off": None}
    if choice not in gates:
        raise InputError(f"gate must be a GateConfig or one of {', '.join(gates)}, got {choice!r}")
    return gates[choice]


def apply_gate(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: GateConfig,
    *,
    alpha: Float[Tensor, "b h w"] | None = None,
    references: Float[Tensor, "b h2 w2 c=3"] | None = None,
) -> Float[Tensor, "b h w c=3"]:
    """Return the render with as much of the fix as the settings allow; images do not influence each other.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        config: What to let through.
        alpha: Opacity of the render in [0, 1], if known. Where nothing was rendered the change is let through
            whatever the limits: there is nothing to harm. From `OPAQUE` on they apply in full.
        references: One per image, if there are any; only `evidence` looks at them.
    """
    return _limited(rendered, fixed, config, alpha=alpha, references=references, out=torch.empty_like(fixed))


def gated(
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
    """Combine everything that restricts a fix: the gate, a strength and a mask.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        config: The gate; None has none.
        strength: Share of what the gate lets through, in [0, 1].
        mask: Share of that by pixel, in [0, 1]: where it is 0, the render is returned bit by bit.
        alpha: Opacity of the render in [0, 1], for the gate.
        references: One per image, for the gate.
        with_weight: Whether to return the weight, too.
        in_place: Whether the result may be written over `fixed`, so that a large image is not held once more.
    """
    weight = torch.zeros_like(fixed[..., 0]) if with_weight else None
    if config is None and strength == 1.0 and mask is None and not with_weight:
        return Gated(rgb=fixed, weight=None)
    result = _limited(
        rendered,
        fixed,
        config,
        strength=strength,
        mask=mask,
        alpha=alpha,
        references=references,
        out=fixed if in_place else torch.empty_like(fixed),
        weight_out=weight,
    )
    return Gated(rgb=result, weight=weight)


def _limited(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: GateConfig | None,
    *,
    strength: float = 1.0,
    mask: Float[Tensor, "b h w"] | None = None,
    alpha: Float[Tensor, "b h w"] | None = None,
    references: Float[Tensor, "b h2 w2 c=3"] | None = None,
    out: Float[Tensor, "b h w c=3"],
    weight_out: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "b h w c=3"]:
    """Go over the image in bands of rows: what is computed between is far larger than the image."""
    allowed = fixed if config is None else _dark_kept(rendered, fixed, config)
    trust = None if config is None else _trust(rendered, allowed, config, references)
    around = config.blur_radius if config is not None and config.detail_strength < 1 else 0
    before: tuple[slice, Tensor] | None = None
    for rows in _bands(*rendered.shape[1:3], at_least=around):
        result, render, change = fixed[:, rows], rendered[:, rows], fixed[:, rows] - rendered[:, rows]
        if config is not None:
            wider = slice(max(rows.start - around, 0), rows.stop + around)
            believed = allowed[:, wider] - rendered[:, wider]
            believed = _fine_limited(believed if trust is None else believed * trust[:, wider], config)
            believed = believed[:, rows.start - wider.start :][:, : rows.stop - rows.start]
            if alpha is not None:
                believed = torch.lerp(change, believed, (alpha[:, rows, :, None] / OPAQUE).clamp(max=1.0))
            result = (render + believed).clamp_(0.0, 1.0)
        share = strength if mask is None else strength * mask[:, rows].to(fixed)[..., None]
        result = torch.lerp(render, result, share)
        if weight_out is not None:
            weight_out[:, rows] = _share(render, change, result)
        # The next band looks at the last rows of this one, as they were.
        if before is not None:
            out[:, before[0]] = before[1]
        before = (rows, result)
    if before is not None:
        out[:, before[0]] = before[1]
    return out


def _trust(
    rendered: Tensor, fixed: Tensor, config: GateConfig, references: Tensor | None
) -> Float[Tensor, "b h w 1"] | None:
    """The share of the change that is believed at every pixel; None if all of it is."""
    trust = None
    if config.evidence is not None:
        trust = change_trust(rendered, fixed, config.evidence, references=references)[..., None]
    if config.trusted_change > 0:
        share = (_change_size(rendered, fixed) / config.trusted_change).clamp(max=1.0)[:, None, None, None]
        trust = share.expand(*rendered.shape[:3], 1) if trust is None else trust.mul_(share)
    return trust


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
    share = (2 * level / config.dark_level - 1).clamp_(0.0, 1.0)
    return torch.minimum(fixed, torch.lerp(rendered, fixed, share))


def _change_size(rendered: Float[Tensor, "b h w c"], fixed: Float[Tensor, "b h w c"]) -> Float[Tensor, " b"]:
    """Root mean square of the change."""
    squares = [
        (fixed[:, rows] - rendered[:, rows]).square().sum(dim=(1, 2, 3)) for rows in _bands(*rendered.shape[1:3])
    ]
    return (torch.stack(squares).sum(dim=0) / fixed[0].numel()).sqrt()


def _bands(height: int, width: int, at_least: int = 1) -> list[slice]:
    step = max(PIXELS_AT_ONCE // width, at_least, 1)
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _share(render: Tensor, raw_change: Tensor, result: Tensor) -> Float[Tensor, "b h w"]:
    """The part of the change that is in the result, by projection: colours may be limited one by one."""
    size = raw_change.square().sum(dim=-1)
    share = ((result - render) * raw_change).sum(dim=-1) / size.clamp(min=1e-12)
    return torch.where(size > 1e-12, share, torch.zeros_like(share)).clamp(0.0, 1.0)


def _averaged(image: Float[Tensor, "b h w c"], radius: int) -> Float[Tensor, "b h w c"]:
    """Mean over a square window, which is smaller at the borders."""
    planes = image.movedim(-1, 1)
    kernel = 2 * radius + 1
    mean = torch.nn.functional.avg_pool2d(planes, kernel, stride=1, padding=radius, count_include_pad=False)
    return mean.movedim(1, -1)
