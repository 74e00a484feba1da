"""A page that shows a run's training live."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splat_recon.pages.viewer import TrainingViewer
    from splat_recon.trainer import SplatTrainer


def training_viewer(trainer: SplatTrainer, *, host: str, port: int) -> TrainingViewer:
    """The page; it is closed at the end of a `with` block, and asked to `observe` between steps.

    Raises:
        InputError: The extra viewer is not installed, or the address cannot be listened on.
    """
    from splat_recon.pages.viewer import TrainingViewer

    return TrainingViewer(trainer, host=host, port=port)
