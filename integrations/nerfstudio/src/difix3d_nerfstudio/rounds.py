"""One round: render novel views, fix them, say what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE, get_progress
from PIL import Image

from difix3d_nerfstudio.config import FixerConfig, MixtureConfig
from difix3d_nerfstudio.errors import InputError
from difix3d_nerfstudio.novel import NovelView

if TYPE_CHECKING:
    from difix_model.gate.verdict import FixVerdict
    from difix_model.pipeline import DifixPipeline

Image3 = torch.Tensor
"""RGB in [0, 1], ``[h w 3]``, on the CPU."""


@dataclass(frozen=True)
class Rendered:
    """What the model shows at a novel pose."""

    rgb: Image3
    alpha: torch.Tensor
    """Opacity in [0, 1], ``[h w]``."""


class Fixer:
    """Difix, opened when it is first needed."""

    def __init__(self, config: FixerConfig, device: torch.device | str) -> None:
        self.config = config
        self.device = str(config.device or device)
        self._pipeline: DifixPipeline | None = None

    def _opened(self) -> DifixPipeline:
        if self._pipeline is None:
            from difix_model.errors import InputError as ModelInputError
            from difix_model.opening import FixerConfig as ModelFixerConfig
            from difix_model.opening import open_pipeline

            wanted = ModelFixerConfig(
                model=self.config.model,
                base=self.config.base,
                precision=self.config.precision,
                gate=self.config.gate,
                batch_size=self.config.batch_size,
            )
            try:
                self._pipeline = open_pipeline(wanted, device=self.device, offload=self.config.offload)
            except ModelInputError as error:
                raise InputError(f"--pipeline.fixer.model {self.config.model}: {error}") from error
        return self._pipeline

    def __call__(
        self, renders: Sequence[Rendered], references: Sequence[Sequence[Image3]]
    ) -> tuple[list[Image3], list[FixVerdict]]:
        """Fix renders, each with its own photos, nearest first, and say what became of each."""
        from difix_model.gate.verdict import NOT_ASKED

        if self.config.model == "none":
            return [render.rgb for render in renders], [NOT_ASKED] * len(renders)
        pipeline = self._opened()
        if self.config.offload:
            pipeline.to(self.device)
        fixed: list[Image3] = []
        verdicts: list[FixVerdict] = []
        try:
            with get_progress("Fixing novel views") as progress:
                task = progress.add_task("", total=len(renders))
                for batch in _batches([render.rgb.shape for render in renders], self.config.batch_size):
                    given = [list(references[index]) for index in batch] if pipeline.uses_reference else None
                    gated = pipeline.fix_with_verdicts(
                        torch.stack([renders[index].rgb for index in batch]).to(self.device),
                        given,
                        alpha=torch.stack([renders[index].alpha for index in batch]).to(self.device),
                    )
                    fixed += [image.clamp(0, 1).cpu() for image in gated.rgb]
                    verdicts += gated.verdicts
                    progress.advance(task, len(batch))
        finally:
            if self.config.offload:
                pipeline.to("cpu")
        return fixed, verdicts


def _batches(shapes: Sequence[torch.Size], size: int) -> list[list[int]]:
    """Indices of neighbors of one shape, at most so many at a time."""
    batches: list[list[int]] = []
    for index, shape in enumerate(shapes):
        if batches and len(batches[-1]) < size and shapes[batches[-1][0]] == shape:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def render_views(cameras: Cameras, render: Callable[[Cameras], dict[str, torch.Tensor]]) -> list[Rendered]:
    """What a model shows at each of the cameras.

    Args:
        render: The model's own `get_outputs_for_camera`.
    """
    rendered = []
    with torch.no_grad(), get_progress("Rendering novel views") as progress:
        for index in progress.track(range(len(cameras))):
            outputs = render(cameras[index : index + 1])
            alpha = outputs["accumulation"].float().clamp(0, 1).cpu()
            rendered.append(Rendered(outputs["rgb"].float().clamp(0, 1).cpu(), alpha.reshape(alpha.shape[:2])))
    return rendered


def novel_view(render: Rendered, fixed: Image3, reference: int, config: MixtureConfig) -> NovelView:
    """A fixed view for training: pixels count where the render was opaque."""
    weight = (render.alpha > config.alpha_threshold).to(torch.uint8) * 255
    return NovelView(_bytes(fixed), weight.numpy(), reference)


def _bytes(rgb: Image3) -> np.ndarray:
    return (255 * rgb + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def report_round(
    index: int,
    step: int,
    rendered: Sequence[Rendered],
    fixed: Sequence[Image3],
    references: Sequence[Image3],
    verdicts: Sequence[FixVerdict],
    folder: Path,
) -> None:
    """Say on the console, in TensorBoard and in pictures what a round did.

    Pictures go to `folder`: ``000_render.png``, ``000_fixed.png`` and ``000_reference.png`` per view.
    """
    from difix_model.gate.verdict import verdict_summary

    CONSOLE.log(f"Difix3D round {index} at step {step}: {verdict_summary(verdicts, 'novel view')}", markup=False)
    changed = sum(verdict.applied_change > 0 for verdict in verdicts)
    mean = sum(verdict.applied_change for verdict in verdicts) / max(1, len(verdicts))
    writer.put_scalar(name="Difix3D/novel views", scalar=len(verdicts), step=step)
    writer.put_scalar(name="Difix3D/changed views", scalar=changed, step=step)
    writer.put_scalar(name="Difix3D/mean change of 255", scalar=255 * mean, step=step)
    folder.mkdir(parents=True, exist_ok=True)
    for number, images in enumerate(zip(rendered, fixed, references, strict=True)):
        render, fix, reference = images[0].rgb, images[1], images[2]
        for name, image in (("render", render), ("fixed", fix), ("reference", reference)):
            Image.fromarray(_bytes(image)).save(folder / f"{number:03d}_{name}.png")
    if rendered:
        worst = max(range(len(verdicts)), key=lambda number: verdicts[number].applied_change)
        writer.put_image(
            name="Difix3D/render, fixed", image=torch.cat([rendered[worst].rgb, fixed[worst]], 1), step=step
        )
