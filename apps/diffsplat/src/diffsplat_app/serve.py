"""`diffsplat serve`: a page on this machine to generate splats in a browser, with a 3D view and downloads."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import Device, run_command
from commands.local_page import LOCAL_HOST, serve_local, system_fonts
from diffsplat import InputError
from diffsplat_app.opening import opened_pipeline

if TYPE_CHECKING:
    from diffsplat import DiffSplatPipeline

TITLE = "DiffSplat"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """Open a local page: write a prompt or choose an image, press a button, look at the splat and download it.

    The page answers this machine only, fetches nothing from the internet, and keeps nothing when it ends.
    """

    model: str = "default"
    """Weights, as in `diffsplat generate`."""

    image: bool = True
    """Load the model that also takes an image; of the published ones it takes no prompt alone."""

    base: str | None = None
    """Folder or hub id of the base model, instead of the original's."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA if it is there."""

    port: int = 7861
    """Port to listen on."""

    host: str = LOCAL_HOST
    """Address to listen on. Anyone who can reach an address other than the default can use the page."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be in [1, 65535], got {self.port}")


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C, and return the exit code: 0, or 2 for bad input."""
    return run_command(ServeSettings, _served, arguments, prog="diffsplat serve", distribution="diffsplat-app")


def _served(settings: ServeSettings) -> int:
    return serve_local("diffsplat serve", partial(_page, settings), host=settings.host, port=settings.port)


def _page(settings: ServeSettings, folder: Path) -> tuple[Any, dict[str, Any]]:
    import gradio

    from commands import console

    with console.status("Loading the network"):
        pipe = opened_pipeline(settings.model, settings.device, image=settings.image, base=settings.base)
    return make_page(gradio, pipe, folder, model=settings.model), {"theme": system_fonts(gradio)}


def make_page(gradio: Any, pipe: DiffSplatPipeline, folder: Path, *, model: str) -> Any:
    """Build the page.

    Args:
        gradio: The module, which is imported late.
        pipe: What generates.
        folder: Where results are kept for download.
        model: Name of the weights, to show.
    """

    def make(prompt: str, image: str | None, seed: float, steps: float, guidance: float) -> tuple[Any, ...]:
        try:
            made, said = generated_files(
                pipe, folder / secrets.token_hex(8), prompt, image, seed=int(seed), num_steps=int(steps),
                guidance=float(guidance),
            )  # fmt: skip
        except InputError as error:
            raise gradio.Error(f"{error}", title="This cannot be made", print_exception=False) from error
        # The page's viewer refuses a PLY with colors as bytes.
        download = gradio.update(value=str(made / "splat.ply"), interactive=True)
        return str(made / "splat.splat"), str(made / "turntable.mp4"), download, said

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"## {TITLE}\nA prompt or an image becomes a 3D Gaussian splat. Weights: `{model}`.")
        with gradio.Row():
            with gradio.Column(scale=1):
                prompt = gradio.Textbox(label="Prompt", value="a green ball", elem_id="prompt")
                image = gradio.Image(
                    label="Image (optional)", type="filepath", image_mode=None, sources=["upload", "clipboard"],
                    height=220, elem_id="image", visible=pipe.parts.denoiser.takes_image,
                )  # fmt: skip
                seed = gradio.Number(label="Seed", value=0, precision=0, minimum=0, elem_id="seed")
                steps = gradio.Slider(1, 50, value=pipe.parts.default_steps, step=1, label="Steps", elem_id="steps")
                guidance = gradio.Slider(
                    1, 15, value=pipe.parts.default_guidance, step=0.5, label="Guidance", elem_id="guidance"
                )
                button = gradio.Button("Generate", variant="primary", elem_id="generate")
            with gradio.Column(scale=2):
                viewer = gradio.Model3D(label="Splat", interactive=False, height=420, elem_id="viewer")
                film = gradio.Video(label="Turntable", interactive=False, autoplay=True, loop=True, elem_id="film")
                said = gradio.Markdown(elem_id="said")
                download = gradio.DownloadButton("Download", interactive=False, elem_id="download")
        button.click(
            make, [prompt, image, seed, steps, guidance], [viewer, film, download, said], api_name=False,
            concurrency_limit=1,
        )  # fmt: skip
    return page


def generated_files(
    pipe: DiffSplatPipeline,
    folder: Path,
    prompt: str,
    image: str | Path | None,
    *,
    seed: int,
    num_steps: int,
    guidance: float,
    num_frames: int = 60,
    size: int = 256,
) -> tuple[Path, str]:
    """Make one object's files.

    Args:
        pipe: What generates.
        folder: Where they go.
        prompt: What to make; may be empty with an image.
        image: A file; its subject is cut out.
        seed: Of the noise.
        num_steps: Of the scheduler.
        guidance: At least 1.
        num_frames: Of the turntable.
        size: Side of the turntable's frames.

    Returns:
        The folder, and a sentence on what was done.
    """
    from diffsplat import GenerationConfig
    from diffsplat.images import as_condition, opened_image
    from diffsplat.outputs import OutputConfig, write_object

    if not prompt.strip() and image is None:
        raise InputError("Write a prompt or choose an image first.")
    images = None
    if image is not None:
        images = as_condition(opened_image(image), pipe.parts.input_res, remove_background=True, name="the image")
    config = GenerationConfig(num_steps=num_steps, guidance=guidance, seed=seed)
    start = time.perf_counter()
    (splat,) = pipe([prompt], config, images=images)
    seconds = time.perf_counter() - start
    write_object(
        folder, splat, OutputConfig(num_frames=num_frames, size=size, formats=("ply", "splat")), {"model": "page"}
    )
    return folder, f"{len(splat.raw())} Gaussians in {seconds:.1f} s."
