"""`diffsplat generate`: prompts, images or control maps to splats."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from commands import Device, Groups, ended, run_command
from diffsplat import GenerationConfig, InputError
from diffsplat.errors import first_problems
from diffsplat_app.prompts import read_prompts

if TYPE_CHECKING:
    import torch

    from diffsplat import DiffSplatPipeline

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateSettings:
    """Write splats, turntables and contact sheets for prompts, images or control maps."""

    out: Path
    """Folder of the results, one folder per object. Nothing is written elsewhere."""

    prompt: str | None = None
    """What to generate."""

    prompts: Path | None = None
    """A text file with one prompt per line; empty lines and lines that begin with # are left out."""

    image: Path | None = None
    """An image, or a folder of images, each of one object; takes a model that was trained with images."""

    remove_background: bool = False
    """Find the subject of each image by its alpha channel, or else by its even background, and center it."""

    control: Literal["depth", "normal", "canny"] | None = None
    """Follow a map of the first view, with sd15 and a prompt."""

    control_image: Path | None = None
    """The map, white where there is nothing, of the model's size (256x256)."""

    model: str = "default"
    """Weights: default for the small ones that come with the package, which know simple solids; sd15, pas or sd35m of
    the published repository (from the hub or its cache), a folder laid out like it, or a hub id."""

    backbone: Literal["sd15", "pas", "sd35m"] | None = None
    """For a folder or hub id: which of the three it holds, where it holds several."""

    base: str | None = None
    """Folder or hub id of the base model (text encoders, image VAE, scheduler), instead of the original's."""

    vae: str | None = None
    """Folder or hub id of the image VAE, where it is another than the base model's."""

    iteration: int | None = None
    """Which checkpoint of the denoiser; the latest by default."""

    estimate_elevation: bool = False
    """Estimate from which height each image was taken."""

    without_t5: bool = False
    """Leave T5 out of Stable Diffusion 3.5: less memory, less exact."""

    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    """How objects are generated."""

    formats: tuple[Literal["ply", "spz", "splat"], ...] = ("ply",)
    """Splat files to write."""

    min_opacity: float = 0.0
    """Gaussians that are not more opaque than this are left out of splat files."""

    turntable: Literal["mp4", "gif", "none"] = "mp4"
    """A film of a full turn."""

    num_frames: int = 180
    """Frames of the turntable."""

    size: int = 256
    """Side of frames and pictures in pixels."""

    batch_size: int = 1
    """Objects to generate at a time. Results depend on it by rounding only."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA if it is there."""

    precision: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the networks; float16 on CUDA and float32 on the CPU by default."""

    offload: bool = False
    """Keep each network in the CPU's memory except while it is used."""

    overwrite: bool = False
    """Make objects again that are there with the same settings; otherwise they are kept, so that a stopped run goes
    on."""

    seed_per_object: bool = True
    """Give each object the seed that follows the one before it; otherwise all have the same."""


GROUPS: Groups = {
    "what matters": ("out", "prompt", "image", "model", "formats", "turntable", "seed", "overwrite"),
    "what is generated": (
        "prompts",
        "remove_background",
        "control",
        "control_image",
        "estimate_elevation",
        "batch_size",
        "seed_per_object",
    ),
    "weights": ("backbone", "base", "vae", "iteration", "without_t5"),
    "files": ("min_opacity", "num_frames", "size"),
    "hardware": ("device", "precision", "offload"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One object to make."""

    index: int
    prompt: str
    image: Path | None
    seed: int


def main(arguments: list[str]) -> int:
    """Generate, show progress and print what was written."""
    return run_command(
        GenerateSettings,
        generate,
        arguments,
        prog="diffsplat generate",
        distribution="diffsplat-app",
        groups=GROUPS,
        stopped="stopped; the same command goes on with the objects that are missing",
    )


def jobs_of(settings: GenerateSettings) -> list[Job]:
    """What is to be made, checked completely before anything is loaded."""
    if settings.prompt is not None and settings.prompts is not None:
        raise InputError("--prompt and --prompts exclude each other: put the prompt into the file")
    if (settings.control is None) != (settings.control_image is None):
        raise InputError("--control and --control-image go together: give both")
    if settings.remove_background and settings.image is None:
        raise InputError("--remove-background is for images: give --image")
    if settings.estimate_elevation and settings.image is None:
        raise InputError("--estimate-elevation is for images: give --image")
    if settings.batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {settings.batch_size}")
    prompts: list[str] = []
    if settings.prompts is not None:
        prompts = read_prompts(settings.prompts)
    elif settings.prompt is not None:
        prompts = [settings.prompt]
    images: list[Path] = []
    if settings.image is not None:
        images = _images_of(settings.image)
        if len(prompts) > 1:
            raise InputError("with --image give one --prompt for all images, or none")
        prompts = (prompts or [""]) * len(images)
    elif not prompts or not all(prompt.strip() for prompt in prompts):
        raise InputError("there is no prompt: give --prompt TEXT, --prompts FILE or --image FILE")
    step = 1 if settings.seed_per_object else 0
    return [
        Job(index, prompt, images[index] if images else None, settings.generation.seed + step * index)
        for index, prompt in enumerate(prompts)
    ]


def _images_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no image or folder {path}")
    found = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise InputError(f"{path} holds no images ({', '.join(IMAGE_ENDINGS)})")
    return found


def generate(settings: GenerateSettings) -> int:
    """Make every object that is not there yet."""
    jobs = jobs_of(settings)
    from diffsplat.images import as_condition, opened_image
    from diffsplat.outputs import OutputConfig, folder_name, is_whole, write_object

    output = OutputConfig(
        formats=settings.formats, min_opacity=settings.min_opacity, turntable=settings.turntable,
        num_frames=settings.num_frames, size=settings.size,
    )  # fmt: skip
    problems = []
    for job in jobs:
        if job.image is not None:
            try:
                as_condition(
                    opened_image(job.image), 32, remove_background=settings.remove_background, name=str(job.image)
                )
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError(first_problems(problems))
    control = None if settings.control_image is None else opened_image(settings.control_image)

    def parameters(job: Job) -> dict[str, Any]:
        made = {
            "model": settings.model, "backbone": settings.backbone, "base": settings.base, "vae": settings.vae,
            "iteration": settings.iteration, "without_t5": settings.without_t5, "control": settings.control,
            "control_image": None if settings.control_image is None else str(settings.control_image),
            "image": None if job.image is None else str(job.image), "remove_background": settings.remove_background,
            "estimate_elevation": settings.estimate_elevation, "precision": settings.precision,
            "generation": dataclasses.asdict(settings.generation) | {"seed": job.seed},
            "output": dataclasses.asdict(output),
        }  # fmt: skip
        return made

    def folder(job: Job) -> Path:
        return settings.out / folder_name(job.index, job.prompt or (job.image.stem if job.image else ""))

    wanted = [job for job in jobs if settings.overwrite or not is_whole(folder(job), parameters(job))]
    if len(wanted) < len(jobs):
        print(f"{len(jobs) - len(wanted)} of {len(jobs)} objects are there already", file=sys.stderr)
    if not wanted:
        print(settings.out)
        return 0
    pipe = _pipeline(settings)
    _say_unknown_words(pipe, [job.prompt for job in wanted])
    size = pipe.parts.input_res
    maps = None
    if control is not None:
        from diffsplat.images import as_control

        maps = as_control(control, size, name=str(settings.control_image))
    import torch

    from commands import progress_bar

    with progress_bar() as progress:
        bar = progress.add_task("Generating", total=len(wanted), note="")
        for start in range(0, len(wanted), settings.batch_size):
            batch = wanted[start : start + settings.batch_size]
            images = None
            if settings.image is not None:
                images = torch.cat(
                    [
                        as_condition(
                            opened_image(job.image), size, remove_background=settings.remove_background,
                            name=str(job.image),
                        )
                        for job in batch
                        if job.image is not None
                    ]
                )  # fmt: skip
            splats = _made(pipe, settings, batch, images, maps)
            for job, splat in zip(batch, splats, strict=True):
                write_object(folder(job), splat, output, parameters(job))
                progress.advance(bar)
    made = folder(wanted[0])
    splat = next(iter(sorted(path for path in made.iterdir() if path.suffix in (".ply", ".spz", ".splat"))), None)
    following = () if splat is None else ("splat-recon", "export", "--splat", splat, "--to", made / "scene.html")
    ended(made if len(jobs) == 1 else settings.out, *following)
    return 0


def _say_unknown_words(pipe: DiffSplatPipeline, prompts: list[str]) -> None:
    """A small text encoder has a list of words; what is not on it cannot be asked for."""
    from diffsplat.words import WordEncoder

    encoder = pipe.parts.text_encoder
    if not isinstance(encoder, WordEncoder):
        return
    unknown = sorted({word for prompt in prompts for word in encoder.unknown_words(prompt)})
    if unknown:
        print(
            f"these weights do not know {first_problems(unknown)}; they know {', '.join(encoder.words)}",
            file=sys.stderr,
        )


def _pipeline(settings: GenerateSettings) -> DiffSplatPipeline:
    import torch

    from diffsplat import DiffSplatPipeline
    from diffsplat.memory import SIZES, check_room
    from splat_render import chosen_device

    device = chosen_device(settings.device)
    precision = settings.precision or ("float16" if device == "cuda" else "float32")
    if settings.model in SIZES:
        check_room(
            settings.model, device, getattr(torch, precision),  # type: ignore[arg-type]
            without_t5=settings.without_t5, offload=settings.offload,
        )  # fmt: skip
    return DiffSplatPipeline.from_pretrained(
        settings.model, image=settings.image is not None, control=settings.control,
        elevest=settings.estimate_elevation, model=settings.backbone, base=settings.base, vae=settings.vae,
        iteration=settings.iteration, without_t5=settings.without_t5, device=device,
        dtype=getattr(torch, precision), offload=settings.offload,
    )  # fmt: skip


def _made(
    pipe: DiffSplatPipeline,
    settings: GenerateSettings,
    batch: list[Job],
    images: torch.Tensor | None,
    maps: torch.Tensor | None,
) -> list[Any]:
    """Generate a batch; too little memory is said in a sentence."""
    import torch

    control = None if maps is None else maps.expand(len(batch), -1, -1, -1)
    try:
        return pipe(
            [job.prompt for job in batch], settings.generation, seeds=[job.seed for job in batch], images=images,
            control=control,
        )  # fmt: skip
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"the GPU has too little memory for {len(batch)} objects at a time: take --batch-size 1, --offload or "
            "--precision float16"
        ) from error
