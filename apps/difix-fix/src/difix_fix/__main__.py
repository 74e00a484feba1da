"""Dispatch `difix-fix`: the fixing command unless another one is named first."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {"fix": "difix_fix.fix", "convert": "difix_fix.convert", "serve": "difix_fix.serve"}
"""Commands and the modules whose `main` runs them; only the one that is asked for is imported."""

DEFAULT_COMMAND = "fix"


def main(arguments: list[str] | None = None) -> int:
    """Run `difix-fix` and return its exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after the command's name; None takes it from the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in COMMANDS else DEFAULT_COMMAND
    return import_module(COMMANDS[name]).main(given)


if __name__ == "__main__":
    sys.exit(main())
