"""`splat-recon sfm`: photos or a video without cameras to a scene folder."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.status import Status

from commands import console, ended, exit_code, logging_to
from splat_recon import InputError, run_folder
from splat_recon_app.data_flags import Sfm


def sfm(args: Sfm) -> int:
    """Find cameras and points, undistort, write, report."""
    if not args.images.exists():
        raise InputError(f"there is no folder of photos or video {args.images}")
    reading = console.status("reading photos")
    with run_folder.writable(args.out), logging_to(None), reading as status, _steps_shown(status):
        from splat_recon import reconstruct
        from splat_recon.io.sfm.reconstruct import COLMAP_THREAD
        from splat_recon.io.sfm.report import summary

        try:
            found = reconstruct(args.images, args.out, args.config)
        except KeyboardInterrupt as interrupt:
            console.print("stopped: the same command goes on from here")
            return _left(exit_code(interrupt), COLMAP_THREAD)
    for line in summary(found):
        console.print(line, highlight=False)
    run = args.out.with_name(f"{args.out.resolve().name}-run")
    ended(args.out, "difix3d-train", "--scene", args.out, "--out", run)
    return 0


def _left(code: int, running: str) -> int:
    """The exit code; leaves the process at once where a step of COLMAP cannot be stopped, or it would abort."""
    if any(thread.name == running for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def _steps_shown(status: Status) -> Iterator[None]:
    """The library's messages about its steps as the text beside the spinner."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.WARNING:
                status.update(record.getMessage())

    handler, logger = Shown(level=logging.INFO), logging.getLogger("splat_recon.io.sfm")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
