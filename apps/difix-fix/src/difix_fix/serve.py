"""The command `difix-fix serve`: a page on this machine to try fixing in a browser, with before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from commands import DeviceFlags, run_command
from commands.local_page import LOCAL_HOST, serve_local, system_fonts
from difix_model import FixerConfig


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
    return serve_local("difix-fix serve", partial(_page, settings), host=settings.host, port=settings.port)


def _page(settings: ServeSettings, folder: Path) -> tuple[Any, dict[str, Any]]:
    import gradio

    from commands import console

    with console.status("Loading the network"):
        from difix_fix.page import STYLE, make_page
        from difix_model import open_pipeline

        pipeline = open_pipeline(settings.fixer, device=settings.device)
    page = make_page(gradio, pipeline, folder, model=settings.fixer.model)
    return page, {"theme": system_fonts(gradio), "css": STYLE}
