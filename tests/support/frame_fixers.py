"""What fixes frames in tests of videos, in place of a pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from difix_model import FixedImage, FixVerdict


class FrameFixer(ABC):
    """Makes of frames what a subclass's `frames` says, and holds nothing back."""

    batch_size = 2
    uses_reference = True

    @abstractmethod
    def frames(self, images: list[np.ndarray], references: Any, strength: float) -> list[np.ndarray]:
        """The fixed frames."""

    def fix_images(
        self, images: list[np.ndarray], references: Any = None, *, strength: float = 1.0, with_weight: bool = True
    ) -> list[FixedImage]:
        """What a `Fixer` does."""
        passed = FixVerdict(proposed_change=1.0, applied_change=1.0)
        return [
            FixedImage(image=image, weight=None, verdict=passed) for image in self.frames(images, references, strength)
        ]
