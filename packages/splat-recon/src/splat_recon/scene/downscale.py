"""Smaller photos, in memory: no sibling folders of resized copies."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from splat_recon.scene.photo_store import Pixels, StoredView
from splat_recon.scene.scene import Scene, View


def downscaled(scene: Scene, max_size: int) -> Scene:
    """The scene with every photo's longer side at most `max_size` pixels; smaller photos stay as they are.

    Photos are filtered (Lanczos with antialiasing), and each axis of K is scaled by the actual ratio of sizes, which
    rounding makes slightly different for width and height.

    Raises:
        ValueError: `max_size` is less than 1.
    """
    return replace(scene, views=tuple(downscaled_view(view, max_size) for view in scene.views))


def downscaled_view(view: View, max_size: int) -> View:
    """One view of `downscaled`."""
    width, height = limited_size(view.camera.width, view.camera.height, max_size)
    if (width, height) == (view.camera.width, view.camera.height):
        return view
    if isinstance(view, StoredView):
        photo = view.photo.changed(lambda pixels: downscaled_pixels(pixels, width, height))
        return StoredView(name=view.name, camera=view.camera.resized(width, height), photo=photo)
    return View(
        name=view.name,
        camera=view.camera.resized(width, height),
        rgb_u8=resized_rgb_u8(view.rgb_u8, width, height),
        mask=None if view.mask is None else resized_mask(view.mask, width, height),
    )


def downscaled_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    """A decoded photo at another size, its mask with it."""
    if pixels.rgb_u8.shape[:2] == (height, width):
        return pixels
    mask = None if pixels.mask is None else resized_mask(pixels.mask, width, height)
    return Pixels(rgb_u8=resized_rgb_u8(pixels.rgb_u8, width, height), mask=mask)


def limited_size(width: int, height: int, max_size: int) -> tuple[int, int]:
    """The largest size of nearly this shape whose longer side is at most `max_size`, never larger than given.

    Raises:
        ValueError: `max_size` is less than 1.
    """
    if max_size < 1:
        raise ValueError(f"max_size must be at least 1 pixel, got {max_size}")
    longer = max(width, height)
    if longer <= max_size:
        return width, height
    return max(1, round(width * max_size / longer)), max(1, round(height * max_size / longer))


def resized_rgb_u8(rgb_u8: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image at another size, Lanczos-filtered against aliasing."""
    return np.array(Image.fromarray(rgb_u8).resize((width, height), Image.Resampling.LANCZOS))


def resized_mask(mask: Bool[np.ndarray, "h w"], width: int, height: int) -> Bool[np.ndarray, "h2 w2"]:
    """A mask at another size: a pixel is valid where everything under it is."""
    covered = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.array(covered) == 255
