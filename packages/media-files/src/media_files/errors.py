"""The errors that say: what the user gave is wrong."""

from output_files import InputError as InputError


class TruncatedVideoError(InputError):
    """A video ends, or is damaged, before the time that it announces; raised after the last good frame."""
