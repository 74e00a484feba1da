"""From arguments to a dataclass: tyro's parsing, with a version, one-sentence errors and a help that is short first."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from importlib.metadata import version
from typing import Any, TypeVar

import tyro

from commands.exits import BAD_INPUT, leave
from commands.flags import as_flags
from commands.help import Groups, help_text, parameters_of, verbs_text

__all__ = ["Groups", "parse", "verb_of"]

T = TypeVar("T")

BORDERS = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]+|-{5,}|^[|+]|[|+]$", re.MULTILINE)
"""What tyro draws around its messages, also where it has only ASCII."""


def parse(
    kind: type[T],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    distribution: str,
    groups: Groups | None = None,
    description: str | None = None,
    flat: bool = False,
    default: T | None = None,
) -> T:
    """The command that the arguments ask for; exits with 0 after help or version, and with 2 on bad arguments.

    Args:
        arguments: The command line after the command's name; None takes the process's.
        distribution: The package whose version `--version` tells.
        groups: For commands with many flags: titles, and the names of the fields under each. The first group is what
            `--help` shows; `--help all` shows all of them.
        description: What the command does; None takes the docstring.
        flat: Flags of nested dataclasses go without the outer field's name.
        default: What flags that are not given come to; None: what the dataclass says.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        leave(f"{prog} {version(distribution)}")
    if "--help" in given or "-h" in given:
        everything = groups is None or given[-1] == "all"
        leave(help_text(kind, prog, groups, everything=everything, description=description, flat=flat))
    markers = (tyro.conf.FlagCreatePairsOff, *((tyro.conf.OmitArgPrefixes,) if flat else ()))
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=given, prog=prog, config=markers)
            return tyro.cli(kind, args=given, prog=prog, config=markers, default=default)
    except SystemExit as stop:
        print(_plain(said.getvalue(), kind, flat=flat) if stop.code else said.getvalue(), file=sys.stderr)
        raise
    except ValueError as error:
        # Of a nested dataclass without a name, which tyro leaves to its caller.
        print(f"error: {as_flags(str(error), parameters_of(kind, flat=flat))}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error


def verb_of(
    verbs: Mapping[str, Any],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    distribution: str,
    description: str,
    default: str | None = None,
) -> tuple[str, list[str]]:
    """The verb that comes first, and what follows it; exits with 0 after help or version, with 2 where there is none.

    Args:
        verbs: By name a dataclass of flags, or a sentence on what it does.
        arguments: The command line after the command's name; None takes the process's.
        distribution: The package whose version `--version` tells.
        default: The verb where the first argument is none; None refuses that.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in verbs:
        return given[0], given[1:]
    if default is not None:
        return default, given
    if given[:1] == ["--version"]:
        leave(f"{prog} {version(distribution)}")
    text = verbs_text(verbs, prog, description)
    if given[:1] in (["--help"], ["-h"]):
        leave(text)
    if given:
        print(f"error: {given[0]!r} is no verb of {prog}: take one of {', '.join(verbs)}", file=sys.stderr)
    else:
        print(text, file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def _plain(text: str, kind: Any, *, flat: bool) -> str:
    """Tyro's message; for a value out of range one sentence, with parameters as flags."""
    lines = [line for each in BORDERS.sub(" ", text).splitlines() if (line := each.strip())]
    if not lines or not lines[0].startswith("Value error"):
        return text.rstrip()
    end = next((index for index, line in enumerate(lines) if line.startswith("For full helptext")), len(lines))
    sentence = re.sub(r"^Error parsing [\w.]+: ", "", " ".join(lines[1:end]))
    return f"error: {as_flags(sentence, parameters_of(kind, flat=flat))}"
