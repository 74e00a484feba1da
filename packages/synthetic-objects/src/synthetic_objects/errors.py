"""The error that says: what the user gave is wrong."""


class InputError(ValueError):
    """What the user gave is wrong: one readable sentence that says what to give instead."""
