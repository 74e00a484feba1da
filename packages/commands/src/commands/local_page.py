"""What local pages share: they answer this machine only, fetch nothing from elsewhere, and keep nothing.

Gradio is imported by the caller, late.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from output_files import InputError

LOCAL_HOST = "127.0.0.1"

CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""Browsers fetch nothing from elsewhere, whatever a page asks for."""

Event = dict[str, Any]


def serve_local(prog: str, make: Callable[[Path], tuple[Any, dict[str, Any]]], *, host: str, port: int) -> int:
    """Serve a page of Gradio until Ctrl-C or SIGTERM, and return 0.

    Args:
        prog: The command, such as `difix-fix serve`, whose extra `serve` brings Gradio.
        make: Imports Gradio and builds the page, given a folder that goes away; returns it with what `launch` is to be
            told of its looks.
        host: Address to listen on.

    Raises:
        InputError: Nothing can listen there, or Gradio is not installed.
    """
    check_port(host, port)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{prog.split()[0]}-") as folder:
            keep_to_this_machine(Path(folder))
            try:
                page, looks = make(Path(folder))
            except ModuleNotFoundError as error:
                if error.name != "gradio":
                    raise
                raise InputError(f"the page needs Gradio: run it as uv run --extra serve {prog}") from error
            serve_page(page, host=host, port=port, **looks)
    except KeyboardInterrupt:
        # Before the page was open.
        print("Stopped.", file=sys.stderr)
    return 0


def check_port(host: str, port: int) -> None:
    """Bind a port and let it go: the server's own message would name a range.

    Args:
        host: Address or name of this machine.
        port: In [1, 65535].
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise InputError(f"there is no address {host} on this machine") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"cannot listen on {host}:{port} ({reason}): choose another one with --port") from error


def keep_to_this_machine(folder: Path) -> None:
    """Switch off what Gradio would send or fetch, and keep its files in a folder that goes away."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    # Gradio calls its own server once; a proxy must not get in between.
    own = f"{LOCAL_HOST},localhost"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(part for part in (os.environ.get(name), own) if part)


def serve_page(page: Any, *, host: str, port: int, **style: Any) -> None:
    """Serve a page of Gradio until Ctrl-C or SIGTERM.

    Args:
        page: A `gradio.Blocks`.
        host: Address to listen on.
        style: Further arguments of `launch`.
    """
    hosts = (LOCAL_HOST, "localhost") if host == LOCAL_HOST else None
    page.queue(default_concurrency_limit=1, max_size=20, api_open=False)
    page.launch(
        server_name=host,
        server_port=port,
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
        **style,
    )
    try:
        print(f"Open http://{_shown(host)}:{port} in a browser. Ctrl-C ends it.", flush=True)
        _wait()
    finally:
        page.close(verbose=False)
    print("Stopped.", file=sys.stderr)


def system_fonts(gradio: Any) -> Any:
    """A theme whose fonts are those of the system, so that none is fetched."""
    return gradio.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))


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


class LocalOnly:
    """Between browser and server: refuses requests under a foreign name, and lets pages fetch nothing from elsewhere.

    A page on the internet may give its own name the address of this machine and so reach a local server; the name in
    the request tells.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], *, hosts: Sequence[str] | None) -> None:
        """Wrap a server.

        Args:
            hosts: Names that are answered; None answers all.
        """
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Event, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer a request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if self.hosts is not None and given.rsplit(":", 1)[0] not in self.hosts:
            await _refuse(scope, send)
            return

        async def answer(message: Event) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", CONTENT_POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, answer)


async def _refuse(scope: Event, send: Callable[..., Any]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"This page answers the machine that it runs on only."})
