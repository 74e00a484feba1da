"""The facts of a run that its report, decision and metrics speak of, gathered when its trainings are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from difix3d.distillation import Distillation
from difix3d.report.facts import RunFacts
from difix3d.report.results import VariantResult, rgb_renderer
from difix3d.report.what_helped import FROM_POINTS, TAUGHT, WITH_STEREO
from difix_model.references.poses import pose_distances
from splat_recon.evaluate import evaluate

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.enhance.renderer import Render
    from difix3d.loop.progressive import ProgressiveTrainer
    from difix3d.run.inputs import RunInputs
    from splat_recon.scene.scene import View

BACKDROP_TOLERANCE = 8
"""Pixels of a photo that are this near to the background, in bytes per color, show the background."""

MIN_PARALLAX = 0.005
"""Photos that are apart by less than this fraction of the distance of half of the points stand at one place."""

SAME_POSE = 0.01
"""Distance of poses, in extents and radians, up to which a target is that of a test photo."""


def run_facts(inputs: RunInputs, loop: ProgressiveTrainer | Distillation, results: Sequence[VariantResult]) -> RunFacts:
    """What the report says about the run."""
    rounds = None if isinstance(loop, Distillation) else loop
    transparency, missing = transparency_and_missing(
        loop.trainer.render, inputs.held_out, loop.trainer.config.background
    )
    splat_step = loop.trainer.step if rounds is not None else inputs.max_steps
    return RunFacts(
        scene_name=inputs.scene.name,
        settings=inputs.settings,
        config=inputs.config,
        split=inputs.split,
        points=inputs.points if inputs.settings.start is None else None,
        num_rounds=loop.num_rounds_done,
        num_rounds_learned=loop.num_rounds_done if rounds is None else rounds.main.num_rounds_learned,
        policy=rounds.policy if rounds is not None and rounds.validation is not None else None,
        held_back=tuple(view.name for view in rounds.held_back) if rounds is not None else (),
        file_has_test_poses=_targets_are_test_poses(inputs),
        progress=1.0 if rounds is None else rounds.main.progress,
        splat_step=splat_step,
        novel=loop.novel if isinstance(loop, Distillation) else loop.main.novel,
        fixed=inputs.has_fixer,
        stereo=None if inputs.stereo is None else inputs.stereo.summary(),
        parts=_parts(inputs, loop, results) if isinstance(loop, Distillation) else {},
        one_place=taken_from_one_place(inputs.captured, inputs.scene.points.p_world),
        transparency=transparency,
        missing=missing,
        num_floaters=loop.num_floaters if isinstance(loop, Distillation) else 0,
        step=inputs.max_steps,
    )


def _parts(inputs: RunInputs, loop: Distillation, results: Sequence[VariantResult]) -> dict[str, float]:
    """PSNR on test photos of what distillation is made of, in its order."""
    by_name = {result.name: result.evaluation.psnr for result in results}
    parts = {FROM_POINTS: by_name["plain"]}
    if inputs.stereo_helps:
        parts[WITH_STEREO] = evaluate(rgb_renderer(loop.trained[0]), inputs.held_out).psnr
    together = evaluate(lambda camera: loop.together(camera).rgb, inputs.held_out).psnr
    return parts | {f"{len(loop.members)} splats together": together, TAUGHT: by_name["loop"]}


def taken_from_one_place(views: Sequence[View], p_world: Float64[np.ndarray, "n 3"]) -> bool:
    """Whether photos stand so close together, for the distance of what they show, that depth cannot be told."""
    centers = np.stack([view.camera.center_world for view in views])
    apart = float(np.linalg.norm(np.ptp(centers, axis=0)))
    if not len(p_world):
        return len(views) > 1 and apart == 0
    return len(views) > 1 and apart < MIN_PARALLAX * float(
        np.median(np.linalg.norm(p_world - centers.mean(axis=0), axis=1))
    )


def transparency_and_missing(
    render: Render, views: Sequence[View], background: tuple[float, float, float]
) -> tuple[float, float]:
    """How much of the light in views comes from the background, and how much of it where photos show something else.

    Args:
        background: sRGB in [0, 1].

    Returns:
        Means over the pixels that masks leave, in [0, 1].
    """
    color_u8 = np.round(255 * np.array(background))
    through, missing = [], []
    for view in views:
        light = 1 - render(view.camera).alpha[..., 0].cpu().numpy()
        other = np.abs(view.rgb_u8 - color_u8).max(axis=-1) > BACKDROP_TOLERANCE
        kept = np.ones_like(other) if view.mask is None else view.mask
        through.append(light[kept].mean())
        missing.append((light * other)[kept].mean())
    return float(np.mean(through)), float(np.mean(missing))


def _targets_are_test_poses(inputs: RunInputs) -> bool:
    if not inputs.split.test:
        return False
    T_world_held_out = np.stack([view.camera.T_world_cam for view in inputs.held_out])
    distances = pose_distances(inputs.T_world_target, T_world_held_out, extent=inputs.extent)
    return bool((distances < SAME_POSE).any())
