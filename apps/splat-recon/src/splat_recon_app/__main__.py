"""Entry point of `splat-recon`: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Sequence

from splat_recon_app import cli, data_flags, signals

BAD_INPUT = 2
"""Exit code for what the user can put right."""


def parse(argv: Sequence[str] | None = None) -> cli.Command:
    """The command that the arguments ask for; exits with usage help on bad ones."""
    import tyro

    return tyro.extras.subcommand_cli_from_dict(
        {
            "train": cli.Train,
            "eval": cli.Eval,
            "render": cli.Render,
            "view": cli.View,
            "export": cli.Export,
            "sfm": data_flags.Sfm,
            "convert": data_flags.Convert,
        },
        prog="splat-recon",
        description="Photos to Gaussian splats.",
        args=argv,
    )


def run(command: cli.Command) -> int:
    """Run a command and return the exit code."""
    # Several OpenMP threads on small tensors cost more than they give; numba brings its own threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if isinstance(command, cli.Train):
        from splat_recon_app.train import train

        return train(command)
    if isinstance(command, data_flags.Sfm):
        from splat_recon_app.sfm import sfm

        return sfm(command)
    if isinstance(command, data_flags.Convert):
        from splat_recon_app.scenes import convert

        return convert(command)
    if isinstance(command, cli.Render):
        from splat_recon_app.render import render

        return render(command)
    if isinstance(command, cli.View):
        from splat_recon_app.view import view

        return view(command)
    if isinstance(command, cli.Eval):
        from splat_recon_app.evaluation import evaluate

        return evaluate(command)
    from splat_recon_app.export import export

    return export(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run; 0 on success, 2 on bad input, 128 and its number when stopped by a signal."""
    command = parse(argv)
    from splat_recon.errors import InputError

    # A crash in compiled code leaves its trace too, not an empty screen.
    if sys.stderr is sys.__stderr__:
        faulthandler.enable()
    try:
        with signals.raised():
            return run(command)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print("stopped", file=sys.stderr)
        return signals.exit_code(interrupt)


if __name__ == "__main__":
    sys.exit(main())
