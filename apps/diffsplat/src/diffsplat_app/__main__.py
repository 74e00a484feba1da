"""Dispatch `diffsplat`: generate, download, train."""

from __future__ import annotations

import sys
from importlib import import_module

from commands import verb_of

DISTRIBUTION = "diffsplat-app"

VERBS = {
    "generate": "Write splats, turntables and contact sheets for prompts, images or control maps.",
    "eval": "Score generated objects against true views, or against their prompts.",
    "serve": "Open a local page to generate in a browser.",
    "download": "Fetch published weights into the hub's cache, or say what would be fetched.",
    "train": "Train gsrecon, gsvae, a denoiser, a controlnet or elevest.",
}
"""What each verb does; the module of its name, whose `main` runs it, is imported when it is asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Run `diffsplat` and return its exit code: 0, 2 for bad input, or 128 and the signal's number if it was stopped.

    Args:
        arguments: The command line after the command's name; None takes it from the process.
    """
    verb, given = verb_of(
        VERBS,
        arguments,
        prog="diffsplat",
        distribution=DISTRIBUTION,
        description="Text or one image to a 3D Gaussian splat.",
    )
    return import_module(f"diffsplat_app.{verb}").main(given)


if __name__ == "__main__":
    sys.exit(main())
