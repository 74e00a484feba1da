"""The one place that imports pycolmap, and undoes what importing it does to the process.

pycolmap 4.1 to 4.2 corrupts the heap when it is the first to load zlib: the next PNG that is saved aborts the process
or hangs it. Python's own zlib module loads the system's library, so it has to come first.

Its logging library also takes over SIGTERM, to print a stack trace and abort. A training that is told to end must be
able to save instead, so the handler of before is put back.
"""

import signal
import threading
import zlib  # noqa: F401  This import must stand before pycolmap's.

_handler_before = signal.getsignal(signal.SIGTERM)

import pycolmap  # noqa: E402

# Only the main thread may set handlers; imported elsewhere, the process keeps pycolmap's.
if threading.current_thread() is threading.main_thread() and _handler_before is not None:
    signal.signal(signal.SIGTERM, _handler_before)

# COLMAP tells standard error about every image it touches; what went wrong is enough.
pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value

__all__ = ["pycolmap"]
