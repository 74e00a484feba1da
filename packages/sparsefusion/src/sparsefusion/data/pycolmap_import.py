"""Imports pycolmap, and undoes what importing it does to the process.

It takes SIGTERM for a crash, so that a command could not be stopped and go on later; and where it is the first to load
zlib, pictures that are saved afterward can abort the process.
"""

import signal
import threading
import zlib  # noqa: F401  This import must stand before pycolmap's.

_handler_before = signal.getsignal(signal.SIGTERM)

import pycolmap  # noqa: E402

if threading.current_thread() is threading.main_thread() and _handler_before is not None:
    signal.signal(signal.SIGTERM, _handler_before)

__all__ = ["pycolmap"]
