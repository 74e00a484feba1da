"""Entry point of `sparsefusion`: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import sys
from functools import partial

from commands import outcome_of, parse, verb_of
from commands.help import parameters_of
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
    settings = parse(
        ReconstructSettings, given, prog="sparsefusion reconstruct", distribution=DISTRIBUTION, groups=GROUPS
    )
    from sparsefusion_app.reconstruct import reconstruct

    return outcome_of(
        partial(reconstruct, settings),
        stopped="stopped; the same command with --resume goes on",
        parameters=parameters_of(ReconstructSettings),
    )


if __name__ == "__main__":
    sys.exit(main())
