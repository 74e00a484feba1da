"""The command `difix-fix serve`: a page on this machine to try fixing in a browser, with before and after."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import DeviceFlags, run_command
from difix_model.errors import InputError
from difix_model.opening import FixerConfig

LOCAL_HOST = "127.0.0.1"

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
    _check_port(settings)
    with tempfile.TemporaryDirectory(prefix="difix-fix-") as folder:
        _keep_to_this_machine(Path(folder))
        try:
            import gradio
        except ImportError as error:
            raise InputError(MISSING_EXTRA) from error
        from commands.progress import console

        with console.status("Loading the network"):
            from difix_fix.page import LocalOnly, make_page, page_style
            from difix_model.opening import open_pipeline

            pipeline = open_pipeline(settings.fixer, device=settings.device)
        page = make_page(gradio, pipeline, Path(folder), model=settings.fixer.model)
        hosts = (LOCAL_HOST, "localhost") if settings.host == LOCAL_HOST else None
        page.queue(default_concurrency_limit=1, max_size=20, api_open=False)
        page.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=False,
            quiet=True,
            inbrowser=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            enable_monitoring=False,
            mcp_server=False,
            footer_links=[],
            max_file_size="200mb",
            # Starlette takes classes with their arguments.
            app_kwargs={"middleware": [(LocalOnly, (), {"hosts": hosts})]},
            **page_style(gradio),
        )
        try:
            print(f"Open http://{_shown(settings.host)}:{settings.port} in a browser. Ctrl-C ends it.", flush=True)
            _wait()
        finally:
            page.close(verbose=False)
    print("Stopped.", file=sys.stderr)


def _check_port(settings: ServeSettings) -> None:
    """Bind the port and let it go: the server's own message would name a range."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise InputError(f"there is no address {settings.host} on this machine") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"cannot listen on {settings.host}:{settings.port} ({reason}): choose another one with --port"
            ) from error


def _keep_to_this_machine(folder: Path) -> None:
    """Switch off what Gradio would send or fetch, and keep its files in a folder that goes away."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    # Gradio calls its own server once; a proxy must not get in between.
    own = f"{LOCAL_HOST},localhost"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(part for part in (os.environ.get(name), own) if part)


def _shown(host: str) -> str:
    return {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)


def _wait() -> None:
    """Return after Ctrl-C or SIGTERM."""
    stopped = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # In short steps, as a wait without an end is not interrupted on every system.
        while not stopped.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
