"""Which pairs are worth keeping, with a count of those that are not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

import image_metrics as metrics
from difix3d.pairs.config import FilterConfig
from difix3d.pairs.generated import GeneratedPair
from difix_model.references.poses import pose_distances
from splat_recon.scene.scene import Scene

REASONS = {
    "low_coverage": "the render shows nothing: its mean opacity is below `min_coverage`",
    "below_min_psnr": "too far gone: PSNR of image against photo below `min_psnr`",
    "same_as_photo": "nothing to fix: PSNR of render against photo above `max_psnr`",
    "same_as_other": "a near-duplicate of an earlier pair of the scene: pose within `same_view_distance`, image within "
    "`same_image_psnr`",
}
"""Why a pair is left out, in the order in which it is looked at."""

COMPARED_SIZE = 128
"""Longer side in pixels at which images are compared with each other."""


def psnr_u8(
    image_u8: UInt8[np.ndarray, "h w 3"],
    photo_u8: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio of bytes in dB, over the pixels of the mask; at most `metrics.MAX_PSNR`."""
    rgb, photo = (torch.tensor(each).double() / 255 for each in (image_u8, photo_u8))
    return metrics.psnr(rgb, photo, None if mask is None else torch.tensor(mask))


class PairFilter:
    """Looks at the pairs of one scene, one after another."""

    def __init__(self, scene: Scene, config: FilterConfig) -> None:
        self.scene = scene
        self.config = config
        self.left_out: Counter[str] = Counter()
        self._kept: list[tuple[np.ndarray, Float32[np.ndarray, "h w 3"]]] = []
        self._extent = max(scene.extent, 1e-9)

    def reason(self, pair: GeneratedPair, psnr: float) -> str | None:
        """Why a pair is to be left out (a key of `REASONS`), or None; what is kept is remembered.

        Args:
            psnr: Of its image against its photo, in dB.
        """
        found = self._first_reason(pair, psnr)
        if found is not None:
            self.left_out[found] += 1
        return found

    def _first_reason(self, pair: GeneratedPair, psnr: float) -> str | None:
        if pair.coverage < self.config.min_coverage:
            return "low_coverage"
        if psnr < self.config.min_psnr:
            return "below_min_psnr"
        if psnr > self.config.max_psnr and pair.trained_on:
            return "same_as_photo"
        T_world_cam = self.scene.view(pair.target).camera.T_world_cam
        small = _reduced(pair.degraded_u8)
        if any(self._nearly_same(T_world_cam, small, *other) for other in self._kept):
            return "same_as_other"
        self._kept.append((T_world_cam, small))
        return None

    def _nearly_same(
        self,
        T_world_a: np.ndarray,
        small_a: Float32[np.ndarray, "h w 3"],
        T_world_b: np.ndarray,
        small_b: Float32[np.ndarray, "h2 w2 3"],
    ) -> bool:
        if small_a.shape != small_b.shape:
            return False
        distance = pose_distances(T_world_a[None], T_world_b[None], extent=self._extent)[0, 0]
        if distance > self.config.same_view_distance:
            return False
        error = float(((small_a - small_b) ** 2).mean(dtype=np.float64))
        return error <= 10 ** (-self.config.same_image_psnr / 10)


def _reduced(image_u8: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h2 w2 3"]:
    """The image in [0, 1] at `COMPARED_SIZE`, if it is larger."""
    image = Image.fromarray(image_u8)
    image.thumbnail((COMPARED_SIZE, COMPARED_SIZE), Image.Resampling.BOX)
    return np.asarray(image).astype(np.float32) / 255
