"""A page that shows a run's training live."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from difix3d.errors import InputError

if TYPE_CHECKING:
    from splat_recon.pages.viewer import TrainingViewer
    from splat_recon.trainer import SplatTrainer


def check_viewer() -> None:
    """Refuse, before anything heavy, to serve a page without viser."""
    if find_spec("viser") is None:
        raise InputError("--viewer needs viser: run it as uv run --extra viewer difix3d-train --viewer ...")


def training_viewer(trainer: SplatTrainer, *, host: str, port: int) -> TrainingViewer:
    """The page; it is closed at the end of a `with` block, and asked to `observe` between steps."""
    from splat_recon.pages.viewer import TrainingViewer

    return TrainingViewer(trainer, host=host, port=port)
