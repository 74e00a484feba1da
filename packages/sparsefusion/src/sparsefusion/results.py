"""What is written of a fitted field: renders, films, scores, the field and a splat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from media_files import write_video
from output_files import output_names, output_place, write_text_whole, written_whole
from sparsefusion.cameras import Cameras
from sparsefusion.checkpoints import save_field
from sparsefusion.data.colmap import WorldTransform
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.distill import Diffusion, Distillation, sample_image
from sparsefusion.errors import InputError
from sparsefusion.field.render import FieldImage
from sparsefusion.losses import PerceptualDistance
from sparsefusion.page import report_page
from sparsefusion.scores import Scores, mean_scores, score
from sparsefusion.splats import field_gaussians, fit_gaussians, in_photos_world
from sparsefusion.vldm.diffusion import noise_like
from splat_render import write_ply

SAMPLE_TIME = 0.5
"""The field's renders are noised to this time before the diffusion model denoises them, for the page."""


def nearest_input(cameras: Cameras, chosen: Sequence[int], at: int) -> int:
    """The input photo whose camera looks at the origin from the most similar side."""
    sides = torch.nn.functional.normalize(cameras.centers, dim=-1)
    similar = sides[list(chosen)] @ sides[at]
    return chosen[int(similar.argmax())]


def save_image(path: Path, image: Float[Tensor, "1 c h w"]) -> None:
    """Write an image in [0, 1] as PNG."""
    values = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with written_whole(path) as partial:
        Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(partial, format="PNG")


NOT_SCORED = ("photo", "alpha")
"""Pictures that are shown only."""


class Results:
    """Writes the results of a distillation into a folder, part by part.

    Args:
        folder: Where to; parts appear when they are whole.
        transform: From the photos' own world to the object's, where they come from a COLMAP scene.
        inputs_only: A field that was fitted to the input photos alone, to compare with.
        perceptual: LPIPS, where it is available.
    """

    def __init__(
        self,
        folder: Path,
        sequence: ObjectSequence,
        chosen: Sequence[int],
        distillation: Distillation,
        transform: WorldTransform | None = None,
        *,
        inputs_only: Distillation | None = None,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        self.folder, self.sequence, self.chosen = folder, sequence, list(chosen)
        self.distillation, self.transform, self.inputs_only = distillation, transform, inputs_only
        self.perceptual = perceptual
        self.axes = sequence.cameras.relative_to(sequence.cameras[0], "axes")
        stems = [f"{at:03d}_{name}" for at, name in enumerate(sequence.names)]
        names = output_names(stems, ending=".png")
        self.names = [names[stem] for stem in stems]
        self.scores: dict[str, list[Scores]] = {}
        self.kinds: list[str] = []
        """Folders of pictures, in the order in which a page shows them."""

    def write_view(self, at: int) -> None:
        """Render one photo's camera beside the photo and what else there is, and score it."""
        group = "input" if at in self.chosen else "held_out"
        truth = self.sequence.rgb[at, None]
        for kind, image in self._pictures(at).items():
            if kind not in self.kinds:
                self.kinds.append(kind)
            path = output_place(self.folder, f"{kind}/{self.names[at]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, image)
            if kind not in NOT_SCORED and not (kind == "nearest_input" and group == "input"):
                self.scores.setdefault(f"{group}/{kind}", []).append(score(image, truth, self.perceptual))

    def _pictures(self, at: int) -> dict[str, Float[Tensor, "1 _c s s"]]:
        """All pictures of one camera, by kind."""
        distillation = self.distillation
        camera = self.axes[at].to(distillation.inputs.rgb.device)
        nearest = at if at in self.chosen else nearest_input(self.sequence.cameras, self.chosen, at)
        rendered = distillation.render(camera)
        field = rendered.rgb.clamp(0, 1)
        found = {"photo": self.sequence.rgb[at, None], "nearest_input": self.sequence.rgb[nearest, None]}
        if self.inputs_only is not None:
            found["inputs_only"] = self.inputs_only.render(camera).rgb.clamp(0, 1)
        if distillation.cached is not None:
            found["transformer"] = distillation.cached.rgb[at, None]
            if distillation.diffusion is not None:
                found["diffusion"] = self._sample(distillation.diffusion, distillation.cached.features[at, None], field)
        found |= {"field": field, "alpha": rendered.alpha}
        return {kind: image.cpu() for kind, image in found.items()}

    def _sample(self, diffusion: Diffusion, features: Tensor, field: Tensor) -> Float[Tensor, "1 3 s s"]:
        """What the diffusion model makes of the field's own render."""
        generator = torch.Generator(features.device).manual_seed(0)
        steps = self.distillation.config.num_sampling_steps
        noise = noise_like(generator)
        return sample_image(diffusion, field, features, SAMPLE_TIME, max_steps=steps, noise=noise)[2]

    def circle(self, count: int) -> Cameras:
        """Cameras around the object, in its world, for a film; those of the photos where they are too few."""
        cameras = self.sequence.cameras
        return self.sequence.circle(count) if len(cameras) > 2 else cameras

    def render_frame(self, camera: Cameras) -> FieldImage:
        """One frame of the film, on the CPU."""
        turned = camera.relative_to(self.sequence.cameras[0], "axes")
        out = self.distillation.render(turned.to(self.distillation.inputs.rgb.device))
        return FieldImage(out.rgb.clamp(0, 1).cpu(), out.alpha.clamp(0, 1).cpu(), out.depth.cpu())

    def write_film(self, frames: Sequence[FieldImage], rate: float = 12.0) -> None:
        """Write frames as circle.mp4 and circle.gif."""
        bytes_ = [(frame.rgb[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for frame in frames]
        write_video(output_place(self.folder, "circle.mp4"), bytes_, rate=rate, even=True)
        pictures = [Image.fromarray(frame) for frame in bytes_]
        with written_whole(output_place(self.folder, "circle.gif")) as partial:
            pictures[0].save(
                partial, format="GIF", save_all=True, append_images=pictures[1:], duration=int(1000 / rate), loop=0
            )

    def write_field(self) -> None:
        """Write field.pt, in the published form."""
        with written_whole(output_place(self.folder, "field.pt")) as partial:
            save_field(self.distillation.field, partial)

    def write_splat(self, around: Cameras, frames: Sequence[FieldImage], *, resolution: int = 64) -> int:
        """Write splat.ply, fitted to frames of the film, in the photos' own world.

        Returns:
            Its number of Gaussians, 0 where the field is empty.
        """
        try:
            sampled = field_gaussians(self.distillation.field, self.sequence.cameras.R[0], resolution=resolution)
        except InputError:
            return 0
        rgb, alpha = torch.cat([frame.rgb for frame in frames]), torch.cat([frame.alpha for frame in frames])
        fitted = in_photos_world(fit_gaussians(sampled, around, rgb, alpha), self.transform)
        write_ply(output_place(self.folder, "splat.ply"), fitted, comments=["fitted to renders of a neural field"])
        return len(fitted)

    def metrics(self) -> dict[str, Any]:
        """Mean scores by kind of view and of image."""
        return {
            "sequence": self.sequence.name,
            "inputs": [self.sequence.names[at] for at in self.chosen],
            "iterations": self.distillation.step,
            "scores": {name: mean_scores(values) for name, values in sorted(self.scores.items())},
        }

    def write_summary(self) -> None:
        """Write metrics.json and report.html."""
        found = self.metrics()
        write_text_whole(output_place(self.folder, "metrics.json"), json.dumps(found, indent=2) + "\n")
        photos = [
            (name, self.names[at], "input" if at in self.chosen else "held_out")
            for at, name in enumerate(self.sequence.names)
        ]
        page = report_page(self.sequence.name, found, self.kinds, photos)
        write_text_whole(output_place(self.folder, "report.html"), page)
