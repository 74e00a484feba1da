"""The error that says: this must not be written."""


class OutputError(OSError):
    """Something would be written where it must not be; the text is one sentence that names the file and the fix.

    It is an `OSError`, as for all that cannot be written, so whoever reports those reports it.
    """
