"""Training curves and pictures as TensorBoard event files (extra `tensorboard`)."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from splat_recon.errors import InputError
from splat_recon.evaluate import Evaluation

MISSING = (
    "TensorBoard is not installed: run `uv run --extra tensorboard splat-recon ...`, "
    "or install splat-recon[tensorboard]"
)
"""What to do where the extra is absent."""


class TensorBoardLog:
    """Event files in a folder; `tensorboard --logdir FOLDER` shows them.

    Args:
        folder: Where to write; made if it is not there.
        step: Where the run goes on: TensorBoard leaves out what an earlier part of the run wrote beyond this step.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError(MISSING) from None
        try:
            self._writer = SummaryWriter(str(folder), purge_step=step if step > 0 else None)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error}") from None

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()

    def add_training(self, step: int, *, loss: float, num_gaussians: int, rates: Mapping[str, float]) -> None:
        """One record of the training: loss, number of Gaussians, learning rates by name."""
        self._writer.add_scalar("train/loss", loss, step)
        self._writer.add_scalar("train/num_gaussians", num_gaussians, step)
        for name, rate in rates.items():
            self._writer.add_scalar(f"learning_rate/{name}", rate, step)

    def add_scores(
        self, step: int, scores: Evaluation, pictures_u8: Mapping[str, UInt8[np.ndarray, "_h _w 3"]]
    ) -> None:
        """Scores on test views, and pictures by name."""
        self._writer.add_scalar("test/psnr", scores.psnr, step)
        self._writer.add_scalar("test/ssim", scores.ssim, step)
        if scores.flip is not None:
            self._writer.add_scalar("test/flip", scores.flip, step)
        if scores.lpips is not None:
            self._writer.add_scalar("test/lpips", scores.lpips, step)
        for name, picture_u8 in pictures_u8.items():
            self._writer.add_image(f"test/{name}", picture_u8, step, dataformats="HWC")
        self._writer.flush()
