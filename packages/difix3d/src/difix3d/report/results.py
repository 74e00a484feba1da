"""The comparison: which of plain training, the loop, and a last fix comes closest to the test photos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.enhance.renderer import EnhancedRenderer
from difix3d.report.variants import VARIANTS
from difix_model.gate.verdict import FixVerdict
from image_metrics import LpipsMetric
from splat_recon.evaluate import Evaluation, evaluate
from splat_recon.io.images import to_u8
from splat_recon.scene.scene import View
from splat_recon.trainer import SplatTrainer
from splat_render.cameras import Camera

CLEAR_DB = 0.05
"""Differences of PSNR below this many dB are called none: another seed moves more."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class VariantResult:
    """One variant's renders of the test views, and how close they are to the photos."""

    name: str
    """A key of `VARIANTS`."""

    evaluation: Evaluation
    """Its scores."""

    num_gaussians: int
    """Size of the splat."""

    renders_u8: dict[str, UInt8[np.ndarray, "_h _w 3"]]
    """Its renders, by name of the view."""

    verdicts: dict[str, FixVerdict] = field(default_factory=dict)
    """What became of each render's fix, by name of the view; empty without a final fix."""


def rgb_renderer(trainer: SplatTrainer) -> Callable[[Camera], Float[Tensor, "h w 3"]]:
    """A function from cameras to the RGB that a trainer's splat shows."""
    return lambda camera: trainer.render(camera).rgb


def evaluate_variant(
    name: str,
    render: Callable[[Camera], Float[Tensor, "h w 3"]],
    held_out: Sequence[View],
    *,
    num_gaussians: int,
    lpips: LpipsMetric | None,
) -> VariantResult:
    """Render all test views and compare them with their photos."""
    renders_u8 = {}

    def keep(view: View, rendered: Tensor) -> None:
        renders_u8[view.name] = to_u8(rendered)

    evaluation = evaluate(render, held_out, lpips=lpips, on_view=keep)
    verdicts = render.verdicts if isinstance(render, EnhancedRenderer) else []
    return VariantResult(
        name=name,
        evaluation=evaluation,
        num_gaussians=num_gaussians,
        renders_u8=renders_u8,
        verdicts=dict(zip(renders_u8, verdicts, strict=bool(verdicts))),
    )


def best_variant(results: Sequence[VariantResult]) -> VariantResult:
    """The variant of the highest PSNR; the simpler one of equals."""
    return max(results, key=lambda result: result.evaluation.psnr)


def verdict(results: Sequence[VariantResult], *, fixed: bool, distilled: bool = False, held_out: bool = True) -> str:
    """What the comparison says, in a sentence or two that do not flatter.

    Args:
        results: All variants, plain training among them.
        fixed: Whether a fixer was at work.
        distilled: Whether the loop was distillation, which needs no fixer; rounds without one are the control.
        held_out: Whether the photos were held out. On photos that were trained on, nothing is better or worse.
    """
    # Without a fixer the final fix changes nothing: two variants are left.
    results = [result for result in results if fixed or not result.name.endswith("_fixed")]
    by_name = {result.name: result.evaluation for result in results}
    plain, best = by_name["plain"], best_variant(results)
    if not held_out:
        return (
            f"No photo was held out: plain training shows {len(plain.per_view)} of its own with {plain.psnr:.2f} dB, "
            f"the loop with {by_name['loop'].psnr:.2f} dB, which says nothing about other places."
        )
    photos = f"{len(plain.per_view)} test photo" + "s" * (len(plain.per_view) > 1)
    gain = best.evaluation.psnr - plain.psnr
    if gain < CLEAR_DB:
        sentence = (
            f"On the {photos} nothing is clearly better than plain training "
            f"({plain.psnr:.2f} dB, SSIM {plain.ssim:.3f}): {_others(by_name)}."
        )
    else:
        wins = sum(score.psnr > plain.per_view[name].psnr for name, score in best.evaluation.per_view.items())
        sentence = (
            f"On the {photos} the {VARIANTS[best.name]} is best: {best.evaluation.psnr:.2f} dB, {gain:+.2f} dB over "
            f"plain training, SSIM {best.evaluation.ssim:.3f} ({best.evaluation.ssim - plain.ssim:+.3f}); "
            f"it is closer to the photo in {wins} of {len(plain.per_view)} views."
        )
    most_alike = max(by_name, key=lambda name: by_name[name].ssim)
    if most_alike != best.name and by_name[most_alike].ssim - best.evaluation.ssim >= 0.001:
        sentence += f" By SSIM the {VARIANTS[most_alike]} is ahead ({by_name[most_alike].ssim:.3f})."
    if not fixed and distilled:
        sentence += " No fixer was at work: several splats taught one."
    elif not fixed:
        sentence += (
            " The fixer was off: this is the control; it learns from unfixed renders with --learn-unchanged only."
        )
    elif final_fix_changes_nothing(results):
        sentence += " The final fix changed no pixel: the fixer's gate found nothing that speaks for its changes" + (
            ", so what is gained is not the fixer's doing." if gain >= CLEAR_DB else "; --gate off shows them."
        )
    return sentence


def final_fix_changes_nothing(results: Sequence[VariantResult]) -> bool:
    """Whether the renders of every splat are the same, byte for byte, with the final fix and without."""
    renders = {result.name: result.renders_u8 for result in results}
    pairs = [(renders[name], renders[f"{name}_fixed"]) for name in renders if f"{name}_fixed" in renders]
    return bool(pairs) and all(
        bool(before) and all(np.array_equal(image, after[view]) for view, image in before.items())
        for before, after in pairs
    )


def _others(by_name: dict[str, Evaluation]) -> str:
    plain = by_name["plain"]
    return ", ".join(
        f"the {VARIANTS[name]} gives {evaluation.psnr - plain.psnr:+.2f} dB (SSIM {evaluation.ssim - plain.ssim:+.3f})"
        for name, evaluation in by_name.items()
        if name != "plain"
    )
