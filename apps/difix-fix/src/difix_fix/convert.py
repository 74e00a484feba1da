"""The command `difix-fix convert`: weights of any form into any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands import ended, run_command


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertSettings:
    """Convert weights: our checkpoint folder, the layout of nvidia/difix, or a .pkl of the released trainer.

    What is written opens again and computes the same. Weights keep their license, which the model card names.
    """

    source: str
    """Weights to read: "default" (those that come with the project), a checkpoint folder, a folder in the published
    layout, a hub id such as nvidia/difix_ref, or a model_<step>.pkl of the released trainer."""

    to: Literal["safetensors", "diffusers", "pkl"]
    """Form to write: our checkpoint folder (safetensors), the published layout (diffusers), or the released trainer's
    file (pkl)."""

    out: Path
    """Folder to write, or for a .pkl the file; must not exist yet."""

    base: str | None = None
    """Folder or hub id of what a .pkl was trained from (stabilityai/sd-turbo for the released ones). To write the
    published layout from weights without a text encoder: where to take the text encoder from."""

    revision: str | None = None
    """Branch, tag or commit of a source on the hub."""

    prompt: str | None = None
    """Prompt to store with the weights; by default the source's own."""

    uses_reference: bool | None = None
    """Whether the weights know references; by default what the source says. A .pkl of the released trainer does not say
    and is taken to know them."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Floating-point type on disk; anything but float32 rounds."""


def main(arguments: list[str]) -> int:
    """Convert, and return the exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after `difix-fix convert`.
    """
    return run_command(ConvertSettings, _convert, arguments, prog="difix-fix convert", distribution="difix-fix-app")


def _convert(settings: ConvertSettings) -> int:
    from commands import console

    with console.status(f"Converting {settings.source}"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix_model import convert_checkpoint

        convert_checkpoint(
            settings.source,
            settings.out,
            to=settings.to,
            revision=settings.revision,
            base=settings.base,
            prompt=settings.prompt,
            uses_reference=settings.uses_reference,
            dtype=settings.dtype,
        )
    # A .pkl that is written here holds the whole network: it opens without a base.
    ended(settings.out, "difix-fix", "serve", "--model", settings.out, extra="serve")
    return 0
