"""What the flags about references mean, for images and for frames."""

from __future__ import annotations

import sys
from pathlib import Path

from difix_fix.cli import FixSettings
from difix_model import ReferenceConfig
from difix_model.references.choice import ReferenceChoice


def reference_config(settings: FixSettings) -> ReferenceConfig:
    """Return how references are chosen from a folder."""
    return ReferenceConfig(
        by=settings.reference_by,
        num_references=settings.num_references,
        cameras=settings.cameras,
        reference_cameras=settings.reference_cameras,
    )


def say_what_was_chosen(choice: ReferenceChoice | None, output: Path | None) -> None:
    """Tell the user how references were chosen, and where the choice stands."""
    if choice is None or choice.method == "given":
        return
    where = f", see {output}" if output is not None else ""
    how = f"as {choice.source} says" if choice.method == "file" else f"by {choice.method}"
    print(f"References are chosen {how}{where}.", file=sys.stderr)
