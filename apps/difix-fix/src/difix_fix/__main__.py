"""Dispatch `difix-fix`: the fixing command unless another one is named first."""

from __future__ import annotations

import sys
from importlib import import_module

from commands import verb_of

COMMANDS = {"fix": "difix_fix.fix", "convert": "difix_fix.convert", "serve": "difix_fix.serve"}
"""Commands and the modules whose `main` runs them; only the one that is asked for is imported."""

DISTRIBUTION = "difix-fix-app"


def main(arguments: list[str] | None = None) -> int:
    """Run `difix-fix` and return its exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after the command's name; None takes it from the process.
    """
    name, given = verb_of(
        COMMANDS, arguments, prog="difix-fix", distribution=DISTRIBUTION, description="", default="fix"
    )
    return import_module(COMMANDS[name]).main(given)


if __name__ == "__main__":
    sys.exit(main())
