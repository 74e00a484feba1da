"""What the user gave cannot be used: one sentence, exit code 2, no traceback of nerfstudio's."""

from nerfstudio.utils.rich_utils import CONSOLE


class InputError(SystemExit):
    """Ends an `ns-*` command with exit code 2 after one printed sentence that names the fix.

    nerfstudio's commands let exceptions through as tracebacks of many frames; only an exit is quiet.
    """

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message
        CONSOLE.print(f"error: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)

    def __str__(self) -> str:
        """The sentence."""
        return self.message
