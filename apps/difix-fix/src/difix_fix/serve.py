"""The command `difix-fix serve`: a page on this machine to try fixing in a browser, with before and after."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from commands import DeviceFlags, run_command
from commands.local_page import LOCAL_HOST, check_port, keep_to_this_machine, serve_page
from difix_model import FixerConfig, InputError

MISSING_EXTRA = "the page needs Gradio: run it as uv run --extra serve difix-fix serve"


@dataclass(frozen=True, kw_only=True)
class ServeSettings(DeviceFlags):
    """Open a local page: choose a render and photos, press a button, compare before and after, download.

    The page answers this machine only, fetches nothing from the internet, and keeps nothing when it ends.
    """

    fixer: FixerConfig = field(default_factory=FixerConfig)
    """Which weights fix, and how."""

    port: int = 7860
    """Port to listen on."""

    host: str = LOCAL_HOST
    """Address to listen on. Anyone who can reach an address other than the default can use the page."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be in [1, 65535], got {self.port}")


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C, and return the exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after `difix-fix serve`.
    """
    return run_command(
        ServeSettings, _served, arguments, prog="difix-fix serve", distribution="difix-fix-app", flat=True
    )


def _served(settings: ServeSettings) -> int:
    try:
        _serve(settings)
    except KeyboardInterrupt:
        # Before the page was open.
        print("Stopped.", file=sys.stderr)
    return 0


def _serve(settings: ServeSettings) -> None:
    check_port(settings.host, settings.port, problem=InputError)
    with tempfile.TemporaryDirectory(prefix="difix-fix-") as folder:
        keep_to_this_machine(Path(folder))
        try:
            import gradio
        except ImportError as error:
            raise InputError(MISSING_EXTRA) from error
        from commands import console

        with console.status("Loading the network"):
            from difix_fix.page import make_page, page_style
            from difix_model import open_pipeline

            pipeline = open_pipeline(settings.fixer, device=settings.device)
        page = make_page(gradio, pipeline, Path(folder), model=settings.fixer.model)
        serve_page(page, host=settings.host, port=settings.port, **page_style(gradio))
