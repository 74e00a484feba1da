"""What is written of a fitted field: renders, films, scores, the field, a splat and a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from media_files import write_video
from output_files import output_names, output_place, write_text_whole, written_whole
from report_pages import filled
from sparsefusion.cameras import Cameras, circle_cameras
from sparsefusion.checkpoints import save_field
from sparsefusion.data.colmap import WorldTransform
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.distill import Distillation
from sparsefusion.errors import InputError
from sparsefusion.splats import field_gaussians
from splat_render import write_ply

MIN_SSIM_SIZE = 16
"""Smaller images have no SSIM."""


@dataclass(frozen=True)
class Scores:
    """How close an image is to the truth, over the whole image."""

    psnr: float
    """Peak signal-to-noise ratio, in dB."""

    ssim: float | None
    """Structural similarity; None for images that are too small."""


def score(image: Float[Tensor, "1 3 h w"], truth: Float[Tensor, "1 3 h w"]) -> Scores:
    """PSNR and SSIM of an image in [0, 1], by torchmetrics."""
    psnr = float(peak_signal_noise_ratio(image, truth, data_range=1.0))
    if min(image.shape[-2:]) < MIN_SSIM_SIZE:
        return Scores(psnr, None)
    ssim = structural_similarity_index_measure(image, truth, data_range=1.0)
    assert isinstance(ssim, Tensor)  # A pair only where the full map is asked for.
    return Scores(psnr, float(ssim))


def nearest_input(cameras: Cameras, chosen: Sequence[int], at: int) -> int:
    """The input photo whose camera looks at the origin from the most similar side."""
    sides = torch.nn.functional.normalize(cameras.centers, dim=-1)
    similar = sides[list(chosen)] @ sides[at]
    return chosen[int(similar.argmax())]


def _mean(values: Iterable[Scores]) -> dict[str, float | None] | None:
    found = list(values)
    if not found:
        return None
    psnr = sum(one.psnr for one in found) / len(found)
    ssims = [one.ssim for one in found if one.ssim is not None]
    return {"psnr": psnr, "ssim": sum(ssims) / len(ssims) if ssims else None}


def save_image(path: Path, image: Float[Tensor, "1 c h w"]) -> None:
    """Write an image in [0, 1] as PNG."""
    values = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with written_whole(path) as partial:
        Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(partial, format="PNG")


class Results:
    """Writes the results of a distillation into a folder, part by part.

    Args:
        folder: Where to; parts appear when they are whole.
        sequence: All photos of the object.
        chosen: Indices of the input photos.
        distillation: The fitted field.
        transform: From the photos' own world to the object's, where they come from a COLMAP scene.

    Raises:
        InputError: A file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        sequence: ObjectSequence,
        chosen: Sequence[int],
        distillation: Distillation,
        transform: WorldTransform | None = None,
    ) -> None:
        self.folder, self.sequence, self.chosen = folder, sequence, list(chosen)
        self.distillation, self.transform = distillation, transform
        self.axes = sequence.cameras.relative_to(sequence.cameras[0], "axes")
        stems = [f"{at:03d}_{name}" for at, name in enumerate(sequence.names)]
        names = output_names(stems, ending=".png")
        self.names = [names[stem] for stem in stems]
        self.scores: dict[str, list[Scores]] = {}

    def write_view(self, at: int) -> None:
        """Render one photo's camera beside the photo, and score it."""
        device = self.distillation.inputs.rgb.device
        truth = self.sequence.rgb[at, None]
        rendered = self.distillation.render(self.axes[at].to(device))
        kind = "input" if at in self.chosen else "held_out"
        rgb = rendered.rgb.cpu().clamp(0, 1)
        shown = {"photo": truth, "field": rgb, "alpha": rendered.alpha.cpu()}
        self.scores.setdefault(f"{kind}/field", []).append(score(rgb, truth))
        if kind == "held_out":
            nearest = self.sequence.rgb[nearest_input(self.sequence.cameras, self.chosen, at), None]
            self.scores.setdefault("held_out/nearest_input", []).append(score(nearest, truth))
        cached = self.distillation.cached
        if cached is not None:
            shown["transformer"] = cached.rgb[at, None].cpu()
            self.scores.setdefault(f"{kind}/transformer", []).append(score(shown["transformer"], truth))
        for folder, image in shown.items():
            self._save(f"{folder}/{self.names[at]}", image)

    def _save(self, name: str, image: Tensor) -> None:
        path = output_place(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, image)

    def circle(self, count: int) -> Cameras:
        """Cameras around the object, for a film; those of the photos where they are too few for a circle."""
        cameras = self.sequence.cameras
        around = circle_cameras(cameras, count) if len(cameras) > 2 else cameras
        return around.relative_to(cameras[0], "axes")

    def render_frame(self, camera: Cameras) -> Float[Tensor, "h w 3"]:
        """One frame of the film."""
        image = self.distillation.render(camera.to(self.distillation.inputs.rgb.device)).rgb
        return image[0].permute(1, 2, 0).clamp(0, 1).cpu()

    def write_film(self, frames: Sequence[Float[Tensor, "h w 3"]], rate: float = 12.0) -> None:
        """Write frames as circle.mp4 and circle.gif."""
        bytes_ = [(frame * 255).round().to(torch.uint8).numpy() for frame in frames]
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

    def write_splat(self, resolution: int = 96) -> int:
        """Write splat.ply, in the photos' own world; returns its number of Gaussians, 0 where the field is empty."""
        R = self.sequence.cameras.R[0]
        try:
            gaussians = field_gaussians(self.distillation.field, R, transform=self.transform, resolution=resolution)
        except InputError:
            return 0
        write_ply(output_place(self.folder, "splat.ply"), gaussians, comments=["sampled from a neural field"])
        return len(gaussians)

    def metrics(self) -> dict[str, Any]:
        """Mean scores by kind of view and of image."""
        return {
            "sequence": self.sequence.name,
            "inputs": [self.sequence.names[at] for at in self.chosen],
            "iterations": self.distillation.step,
            "scores": {name: _mean(values) for name, values in sorted(self.scores.items())},
        }

    def write_summary(self) -> None:
        """Write metrics.json and report.html."""
        found = self.metrics()
        write_text_whole(output_place(self.folder, "metrics.json"), json.dumps(found, indent=2) + "\n")
        write_text_whole(output_place(self.folder, "report.html"), self._page(found))

    def _page(self, found: dict[str, Any]) -> str:
        folders = ["photo", "field", "alpha"] + (["transformer"] if self.distillation.cached is not None else [])
        return filled(
            Path(__file__).with_name("report.html"),
            title=self.sequence.name,
            num_inputs=len(self.chosen),
            iterations=found["iterations"],
            folders=folders,
            photos=[
                (name, self.names[at], "input" if at in self.chosen else "held out")
                for at, name in enumerate(self.sequence.names)
            ],
            scores=[
                (name, f"{values['psnr']:.2f}", "" if values["ssim"] is None else f"{values['ssim']:.4f}")
                for name, values in found["scores"].items()
            ],
        )
