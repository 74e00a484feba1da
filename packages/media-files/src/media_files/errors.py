"""The error that says: what the user gave is wrong."""


class InputError(ValueError):
    """What the user gave is wrong: one readable sentence that names the file and the fix."""


class TruncatedVideoError(InputError):
    """A video ends, or is damaged, before the time that it announces; raised after the last good frame."""
