"""What `sparsefusion` understands. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands import Device, Groups
from output_files import check_range

CPU_IMAGE_SIZE, CUDA_IMAGE_SIZE = 128, 256
"""Default side of the images, in pixels, where no networks are given; published networks take 256."""

CPU_MAX_STEPS, CUDA_MAX_STEPS = 600, 3000
"""Default number of iterations, but for small networks."""

CPU_SAMPLES = 24
"""Default samples per ray on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructSettings:
    """Fit a neural field to a few posed, masked photos of an object, and write renders, films, scores and a splat."""

    out: Path = Path("runs/sparsefusion")
    """Folder of the results. Nothing is written elsewhere."""

    scene: Path | None = None
    """One's own photos: a COLMAP folder with images/, sparse/0/ and masks/ (or alpha channels)."""

    dataset: Literal["generated", "co3d-toy", "co3d"] = "generated"
    """Where the object comes from without --scene: a generated one, the published toy files, or CO3Dv2."""

    root: Path | None = None
    """Folder of the dataset."""

    category: str = "hydrant"
    """Category of the dataset."""

    index: int = 0
    """Which sequence of the category, or which generated object."""

    views: int = 2
    """Input photos, from 2 to 6 in the published system; the others are held out."""

    inputs: tuple[int, ...] = ()
    """Indices of the input photos, instead of choosing --views of them."""

    eft: Path | None = None
    """Published weights of the transformer (ckpt_latest_eft.pt)."""

    vldm: Path | None = None
    """Published weights of the diffusion model (ckpt_latest.pt); needs --eft and --vae."""

    vae: Path | None = None
    """Stable Diffusion's autoencoder: a folder of diffusers, or a .ckpt."""

    model: str = "default"
    """All three networks: default (the small ones that come along), none (fit the photos alone), or a file of this
    project."""

    eft_mode: Literal["train", "eval"] | None = None
    """How the transformer runs: as published with dropout and batch statistics (train), or without (eval). Left out: as
    its weights say."""

    compare: Literal["auto", "yes", "no"] = "auto"
    """Also fit a field to the input photos alone, to compare with; auto does so with the networks that come along."""

    max_steps: int | None = None
    """Iterations. Left out: 3000, or on a CPU 600; 240 with small networks."""

    image_size: int | None = None
    """Side of the images, in pixels. Left out: what the networks take; without networks 256 on CUDA, 128 on a CPU."""

    render_size: int | None = None
    """Side of the renders that are learned from. Left out: half of the images'; a quarter on a CPU without networks."""

    samples: int | None = None
    """Samples per ray, evenly spaced, and as many again where there is density. Left out: 64; 24 on a CPU; 20 and 12
    with small networks."""

    sampling_steps: int | None = None
    """Largest number of steps of a sample of the diffusion model. Left out: 50; 12 with small networks."""

    circle_frames: int = 24
    """Frames of the film around the object."""

    splat_resolution: int = 64
    """Cells per side of the grid on which the field is sampled for the splat, which is then fitted to the film."""

    seed: int = 0
    """Seed of everything random."""

    device: Device = "auto"
    """Where to run; auto takes CUDA if it is there."""

    checkpoint_every: int = 50
    """Iterations between two checkpoints."""

    stop_at: int | None = None
    """Stop after this iteration; --resume goes on."""

    resume: bool = False
    """Go on with the run in --out from its checkpoint; repeat the flags that it was started with."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "max_steps", "samples", "stop_at", "checkpoint_every", prefix="--")
        check_range(self, "at least 1", "circle_frames", "views", "splat_resolution", "sampling_steps", prefix="--")
        for name in ("image_size", "render_size"):
            value = getattr(self, name)
            if value is not None and (value < 16 or value % 8):
                raise ValueError(f"--{name.replace('_', '-')} must be a multiple of 8, at least 16, got {value}")
        if self.index < 0 or self.seed < 0:
            raise ValueError("--index and --seed must not be negative")
        if self.scene is None and self.dataset != "generated" and self.root is None:
            raise ValueError(f"--dataset {self.dataset} needs --root, its folder")
        if self.vldm is not None and (self.eft is None or self.vae is None):
            raise ValueError("--vldm needs --eft and --vae: the three work together")
        if self.vae is not None and self.vldm is None:
            raise ValueError("--vae is for samples of the diffusion model: name --vldm too")
        if self.model != "default" and (self.eft or self.vldm or self.vae):
            raise ValueError("--model holds all networks: leave --eft, --vldm and --vae out")

    @property
    def networks(self) -> Literal["embedded", "none", "file", "published"]:
        """Where the networks come from."""
        if self.eft is not None:
            return "published"
        return {"default": "embedded", "none": "none"}.get(self.model, "file")  # type: ignore[return-value]


GROUPS: Groups = {
    "what matters": ("scene", "out", "views", "max_steps", "image_size", "resume"),
    "data sets": ("dataset", "root", "category", "index", "inputs"),
    "networks": ("model", "eft", "vldm", "vae", "eft_mode", "compare"),
    "results and hardware": (
        "render_size",
        "samples",
        "sampling_steps",
        "circle_frames",
        "splat_resolution",
        "seed",
        "device",
        "checkpoint_every",
        "stop_at",
    ),
}
"""What `--help` shows, and what `--help all` adds."""
