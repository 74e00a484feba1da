"""The errors that tell a user what happened: bad input (splat_render's own class), and a training that diverged."""

from splat_render.errors import InputError as InputError

__all__ = ["DivergedError", "InputError"]


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number; the last optimizer step before it stands."""
