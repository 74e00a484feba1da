"""The command `difix-fix` without a name after it: fix, show progress, and print what was written."""

from __future__ import annotations

from commands import Groups, run_command
from difix_fix.cli import FixSettings

DESCRIPTION = """Fix a render, a folder of renders, or a video.

Other commands: "difix-fix convert" turns weights into another format, "difix-fix serve" opens a local page to try
fixing in a browser; each answers --help."""

GROUPS: Groups = {
    "what matters": ("input", "out", "reference", "model", "gate", "strength", "resume"),
    "references": ("reference_by", "num_references", "cameras", "reference_cameras"),
    "where images may be changed": ("mask", "alpha", "write_mask"),
    "videos and consecutive frames": ("steady", "fps"),
    "weights and hardware": ("base", "device", "batch_size", "skip_broken"),
}


def main(arguments: list[str]) -> int:
    """Fix, and return the exit code: 0, 2 for bad input, or 128 and the signal's number if it was stopped.

    Args:
        arguments: The command line after `difix-fix` or `difix-fix fix`.
    """
    return run_command(
        FixSettings,
        _fix,
        arguments,
        prog="difix-fix",
        distribution="difix-fix-app",
        groups=GROUPS,
        description=DESCRIPTION,
        flat=True,
        stopped="Stopped before an image was finished.",
    )


def _fix(settings: FixSettings) -> int:
    from difix_fix.images import fix_images, refuse_options_for_images
    from difix_fix.sequence import fix_sequence, treats_as_sequence

    if treats_as_sequence(settings):
        refuse_options_for_images(settings)
        return fix_sequence(settings)
    return fix_images(settings)
