"""Entry point of `sparsefusion`: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import sys

from commands import run_command, verb_of
from sparsefusion_app.cli import GROUPS, ReconstructSettings

DISTRIBUTION = "sparsefusion-app"

VERBS = {"reconstruct": "Fit a field; write renders, films, scores, the field, a splat and a page."}


def main(arguments: list[str] | None = None) -> int:
    """Run `sparsefusion`; 0 on success, 2 on bad input, 128 and its number when stopped by a signal."""
    _, given = verb_of(
        VERBS,
        arguments,
        prog="sparsefusion",
        distribution=DISTRIBUTION,
        description="A neural field of an object from a few posed, masked photos.",
    )
    return run_command(
        ReconstructSettings,
        _reconstruct,
        given,
        prog="sparsefusion reconstruct",
        distribution=DISTRIBUTION,
        groups=GROUPS,
        stopped="stopped; the same command with --resume goes on",
    )


def _reconstruct(settings: ReconstructSettings) -> int:
    from sparsefusion_app.reconstruct import reconstruct

    return reconstruct(settings)


if __name__ == "__main__":
    sys.exit(main())
