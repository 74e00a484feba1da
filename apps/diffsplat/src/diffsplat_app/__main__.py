"""Dispatch `diffsplat`: generate, download, train."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "generate": "diffsplat_app.generate",
    "download": "diffsplat_app.download",
    "train": "diffsplat_app.train",
}
"""Commands and the modules whose `main` runs them; only the one that is asked for is imported."""

USAGE = """usage: diffsplat COMMAND [options]

Text or one image to a 3D Gaussian splat.

  generate   write splats, turntables and contact sheets for prompts, images or control maps
  download   fetch published weights into the hub's cache, or say what would be fetched
  train      train gsrecon, gsvae or a denoiser on generated objects

Each answers --help.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run `diffsplat` and return its exit code: 0, 2 for bad input, or 128 and the signal's number if it was stopped.

    Args:
        arguments: The command line after the command's name; None takes it from the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if given else 2
    if given[0] not in COMMANDS:
        print(f"error: {given[0]!r} is no command: take one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(COMMANDS[given[0]]).main(given[1:])


if __name__ == "__main__":
    sys.exit(main())
