"""The errors that tell a user what happened: bad input, and a training that diverged."""

from output_files import InputError as InputError


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number; the last optimizer step before it stands."""
