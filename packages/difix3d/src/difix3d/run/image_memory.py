"""How much memory the images of a run take: decoded photos, and the novel views that are learned from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from difix3d.errors import InputError

if TYPE_CHECKING:
    from difix3d.loop.config import ProgressiveConfig
    from splat_recon.scene.scene import View

NOVEL_BYTES = 36
"""Bytes that a pixel of a novel view takes, in float32: render and fix in three colors, opacity,
confidence, and its weight in training."""

MAKING_BYTES = 48
"""Bytes that a pixel takes while its round is made, beside those of the round before: all of that, and the depth
and the colors as the rasterizer gave them."""

BATCH_BYTES = 32
"""Bytes that a pixel of the views takes which are being fixed: render, opacity, fix and its confidence, without the
network's own."""

REFERENCE_BYTES = 12
"""And with each of its references."""

COMPARED_BYTES = 12
"""Bytes that a pixel of a test photo takes at the end: its renders in four variants."""

logger = logging.getLogger(__name__)


def photo_bytes(image_memory: float) -> int:
    """The share of decoded photos, in bytes: half of the memory for images, given in GiB."""
    return int(image_memory * 2**30 / 2)


def picture_bytes(config: ProgressiveConfig, captured: Sequence[View], *, num_targets: int, num_held_out: int) -> int:
    """Most bytes of novel views, and of the renders of the comparison, that a run holds at once.

    Args:
        captured: Training photos; novel views are as large as these, and the largest is taken for all.
    """
    pixels = max(view.camera.width * view.camera.height for view in captured)
    num_splats = 2 if config.validation.num_views(len(captured)) else 1
    novel = NOVEL_BYTES * num_splats * num_targets
    batch = (BATCH_BYTES + REFERENCE_BYTES * config.num_references) * min(num_targets, config.fix_batch_size)
    round_ = MAKING_BYTES * num_targets + batch
    return pixels * (novel + max(round_, COMPARED_BYTES * num_held_out))


def fitting_views(
    config: ProgressiveConfig, captured: Sequence[View], *, num_held_out: int, image_memory: float, most: int
) -> int:
    """How many novel views fit into the other half of the memory for images, at most so many and at least one."""
    room = photo_bytes(image_memory)
    for number in range(most, 1, -1):
        if picture_bytes(config, captured, num_targets=number, num_held_out=num_held_out) <= room:
            return number
    return 1


def check_image_memory(needed: int, image_memory: float) -> None:
    """Refuse what does not fit into the other half of the memory for images."""
    room = photo_bytes(image_memory)
    logger.info("novel views and renders take up to %.2f GiB, photos up to %.2f GiB", needed / 2**30, room / 2**30)
    if needed > room:
        raise InputError(
            f"novel views and renders need {needed / 2**30:.2f} GiB, half of the memory for images is "
            f"{room / 2**30:.2f} GiB: raise image_memory to {2 * needed / 2**30:.1f} or lower "
            "num_novel or max_size"
        )
