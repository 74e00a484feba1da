"""What the user sees while a command works. Standard output has only results; all of this goes to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)
"""Progress and messages."""


class _Note(ProgressColumn):
    """The field `note` of a task, where it has one."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("note", "")))


def progress_bar(*, percent: bool = False) -> Progress:
    """Bars with a description, how much is done, times, and the field `note` of a task.

    Args:
        percent: Show percents instead of counts, where pieces mean nothing to the user.
    """
    done = TextColumn("{task.percentage:>3.0f}%") if percent else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        done,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        _Note(),
        console=console,
    )
