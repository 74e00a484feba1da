"""What the transformer says about all cameras that a field is distilled from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparsefusion.cameras import Cameras, depth_range
from sparsefusion.config import EftMode
from sparsefusion.distill import CachedViews
from sparsefusion.eft import EpipolarTransformer


def cache_views(
    eft: EpipolarTransformer,
    images: Float[Tensor, "v 3 s s"],
    image_cameras: Cameras,
    scene_cameras: Cameras,
    cameras: Cameras,
    *,
    latent_size: int | None = None,
    mode: EftMode = "train",
    seed: int = 0,
) -> CachedViews:
    """Run the transformer for every camera.

    Args:
        eft: The transformer; its mode and running statistics are as before afterwards.
        images: Input photos in [0, 1], black outside of the object; their side must be a multiple of 8.
        image_cameras: Their cameras, in the scene's world.
        scene_cameras: All known cameras of the scene; they decide the range of depths.
        cameras: The cameras to run it for, in the scene's world; the first one's axes become the field's.
        latent_size: Side of the latents and number of rays per side; an eighth of the images' by default, as Stable
            Diffusion's autoencoder has it.
        mode: How the transformer runs; "train" drops features at random.

    Returns:
        The transformer's images and features, with the cameras in the field's axes.
    """
    size = images.shape[-1]
    was_training = eft.training
    statistics = {name: value.clone() for name, value in eft.named_buffers()}
    num = latent_size or size // 8
    depths = depth_range(scene_cameras, eft.config.depth_margin)
    rgb, features = [], []
    devices = [images.device] if images.device.type == "cuda" else []
    try:
        eft.train(mode == "train")
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            views = eft.encode(images, image_cameras)
            for at in range(len(cameras)):
                out = eft(views, cameras[at], depths, num, image_size=size)
                rgb.append(out.images(size))
                features.append(out.feature_maps(num))
    finally:
        eft.train(was_training)
        for name, value in eft.named_buffers():
            value.copy_(statistics[name])
    return CachedViews(torch.cat(rgb), torch.cat(features), cameras.relative_to(cameras[0], "axes"))
