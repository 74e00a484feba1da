"""What the local page shows and does."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difix_model import InputError
from difix_model.gate.config import GATES
from difix_model.gate.verdict import what_to_try
from difix_model.jobs.files import open_image

TITLE = "Difix"

STYLE = """
.gradio-container {width: 100% !important; max-width: 1200px !important; margin: 0 auto !important}
.gradio-container main {width: 100%}
#fixed .image-container, #fixed img {background: none}
"""

Pipeline = Any


def make_page(gradio: Any, pipeline: Pipeline, folder: Path, *, model: str) -> Any:
    """Build the page.

    Args:
        pipeline: A `DifixPipeline`.
    """

    def fix(render: str | None, references: Sequence[Any] | None, strength: float, gate: str) -> tuple[Any, Any, str]:
        try:
            photos = [path for path, _ in references or []]
            before, after, said = fixed_image(pipeline, render, photos, strength, gate=gate)
        except InputError as error:
            raise gradio.Error(f"{error}", title="This cannot be fixed", print_exception=False) from error
        path = folder / secrets.token_hex(8) / f"{Path(render or 'render').stem}_fixed.png"
        path.parent.mkdir()
        after.save(path)
        return (before, after), gradio.update(value=str(path), interactive=True), said

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(
            f"## {TITLE}\nRemoves the artifacts of rendered views of 3D reconstructions. Weights: `{model}`."
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                render = gradio.Image(
                    label="Render", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260,
                    elem_id="render",
                )  # fmt: skip
                references = gradio.Gallery(
                    label="Photos from nearby (optional)", type="filepath", file_types=["image"],
                    columns=3, height=180, interactive=True, elem_id="references", visible=pipeline.uses_reference,
                )  # fmt: skip
                strength = gradio.Slider(
                    0.0, 1.0, value=1.0, step=0.05, label="Strength", info="0 keeps the render", elem_id="strength"
                )
                gate = gradio.Radio(
                    list(GATES), value=pipeline.gate if pipeline.gate in GATES else "auto", label="Gate",
                    info="auto keeps good renders; checkpoint takes the weights' own gate; off lets everything through",
                    elem_id="gate",
                )  # fmt: skip
                button = gradio.Button("Fix", variant="primary", elem_id="fix")
            with gradio.Column(scale=2):
                slider = gradio.ImageSlider(
                    label="Before | after", type="pil", format="png", interactive=False, slider_position=50,
                    buttons=["fullscreen"], max_height=640, elem_id="fixed",
                )  # fmt: skip
                said = gradio.Markdown(elem_id="said")
                download = gradio.DownloadButton("Download", interactive=False, elem_id="download")
        button.click(
            fix, [render, references, strength, gate], [slider, download, said], api_name=False, concurrency_limit=1
        )
    return page


def fixed_image(
    pipeline: Pipeline,
    render: str | Path | None,
    references: Sequence[str | Path],
    strength: float,
    *,
    gate: str = "auto",
) -> tuple[Any, Any, str]:
    """Fix one image file.

    Args:
        pipeline: A `DifixPipeline`.
        render: The file; None if nothing was chosen.
        strength: Share of the fix, in [0, 1].
        gate: How much of a fix is let through: auto, checkpoint or off.

    Returns:
        The image, the fixed image, and a sentence on what was done.
    """
    if render is None:
        raise InputError("Choose a render first.")
    before = open_image(Path(render))
    views = [open_image(Path(path)) for path in references]
    start = time.perf_counter()
    (found,) = pipeline.fix_images(before, views or None, strength=strength, gate=gate, with_weight=False)
    seconds = time.perf_counter() - start
    photos = {0: "without a photo", 1: "with 1 photo"}.get(len(views), f"with {len(views)} photos")
    sentence = found.verdict.sentence()
    said = f"{before.width} x {before.height} pixels, {photos}, in {seconds:.1f} s. "
    said += f"{sentence[0].upper()}{sentence[1:]}."
    advice = what_to_try([found.verdict])
    return before, found.image, f"{said} {advice}" if advice else said
