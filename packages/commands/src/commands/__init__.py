"""What command lines share, so that an app is its flags and ten lines. No torch; rich is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commands.ending import ended, next_line
    from commands.exits import BAD_INPUT, DONE, FAILED, outcome_of
    from commands.flags import Device, DeviceFlags, as_flag, as_flags
    from commands.help import parameters_of
    from commands.logs import logging_to, warnings_on
    from commands.parsing import Groups, parse, verb_of
    from commands.progress import console, progress_bar
    from commands.resuming import goes_on
    from commands.running import run_command
    from commands.signals import collected, exit_code, raised

_HOMES = {
    "ending": ("ended", "next_line"),
    "exits": ("BAD_INPUT", "DONE", "FAILED", "outcome_of"),
    "flags": ("Device", "DeviceFlags", "as_flag", "as_flags"),
    "help": ("parameters_of",),
    "logs": ("logging_to", "warnings_on"),
    "parsing": ("Groups", "parse", "verb_of"),
    "progress": ("console", "progress_bar"),
    "resuming": ("goes_on",),
    "running": ("run_command",),
    "signals": ("collected", "exit_code", "raised"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BAD_INPUT",
    "DONE",
    "FAILED",
    "Device",
    "DeviceFlags",
    "Groups",
    "as_flag",
    "as_flags",
    "collected",
    "console",
    "ended",
    "exit_code",
    "goes_on",
    "logging_to",
    "next_line",
    "outcome_of",
    "parameters_of",
    "parse",
    "progress_bar",
    "raised",
    "run_command",
    "verb_of",
    "warnings_on",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
