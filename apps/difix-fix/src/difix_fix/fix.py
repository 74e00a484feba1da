"""The command `difix-fix` without a name after it: fix, show progress, and print what was written."""

from __future__ import annotations

import sys

import tyro

from difix_fix.cli import FixSettings
from difix_fix.images import fix_images, refuse_options_for_images
from difix_fix.sequence import fix_sequence, treats_as_sequence
from difix_model.errors import InputError

DESCRIPTION = """Fix a render, a folder of renders, or a video.

Other commands: "difix-fix convert" turns weights into another format, "difix-fix serve" opens a local page to try
fixing in a browser; each answers --help."""


def main(arguments: list[str]) -> int:
    """Fix, and return the exit code: 0, 2 for bad input, or 128 and the signal's number if it was stopped.

    Args:
        arguments: The command line after `difix-fix` or `difix-fix fix`.
    """
    try:
        settings = tyro.cli(
            FixSettings,
            args=arguments,
            prog="difix-fix",
            description=DESCRIPTION,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        if treats_as_sequence(settings):
            refuse_options_for_images(settings)
            return fix_sequence(settings)
        return fix_images(settings)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
