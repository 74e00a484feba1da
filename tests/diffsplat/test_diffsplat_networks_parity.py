"""Every network computes what the released code recorded, and full-size ones have its parameters."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffsplat import (
    GSVAE,
    ElevEst,
    ElevEstConfig,
    GSRecon,
    GSReconConfig,
    MultiViewControlNet,
    MultiViewDenoiser,
    SplatGrids,
    TextCondition,
    activated,
)
from diffsplat.cameras import (
    flipped_axes,
    in_frame_of_view_0,
    normals_in_frame_of_view_0,
    orbit_rig,
    pixel_rays,
    plucker_rays,
    unprojected,
)
from diffsplat.checkpoints import tiny_decoder_config
from diffsplat.elevest import normalized, resized
from diffsplat.gsrecon import Block
from diffsplat.gsvae import VAE_FAMILIES, kl_to_normal
from diffsplat.multiview_attention import MultiViewSelfAttention, ViewCount
from diffsplat.render import pixel_cameras, raw_gaussians
from diffsplat.splat_grids import CHANNELS

from .conftest import assert_close, read_reference, reference_files, reference_folder

pytestmark = pytest.mark.reference

MODELS = 1e-5


def test_cameras_rays_and_frames(reference):
    data = reference("geo.safetensors")
    elevation = math.degrees(float(data["elev_rad"][0]))
    azimuths = [math.degrees(value) for value in data["azim_rad"].tolist()]
    rig = orbit_rig(elevation, azimuths, float(data["radius"][0]))
    assert_close(rig, data["C2W_opencv"], MODELS, "OpenCV cameras")
    assert_close(flipped_axes(rig), data["C2W_opengl"], MODELS, "OpenGL cameras")
    cameras, intrinsics = data["C2W_batch"], data["fxfycxcy"]
    height, width = data["depth"].shape[-2:]
    assert_close(plucker_rays(height, width, cameras, intrinsics), data["plucker"], MODELS, "rays as released")
    through_centers = plucker_rays(height, width, cameras, intrinsics, as_released=False)
    assert_close(through_centers, data["plucker_nobug"], MODELS, "rays through pixel centers")
    origins, directions = pixel_rays(height, width, cameras, intrinsics)
    assert_close(origins, data["ray_o"], MODELS, "origins")
    assert_close(directions, data["ray_d"], MODELS, "directions")
    assert_close(unprojected(data["depth"], cameras, intrinsics), data["unprojected"], MODELS, "unprojected")
    assert_close(in_frame_of_view_0(data["normalize_C2W_in"]), data["normalize_C2W_out"], MODELS, "cameras of view 0")
    turned = normals_in_frame_of_view_0(data["normals"], cameras)
    assert_close(turned, data["normals_normalized"], MODELS, "normals of view 0")


def test_gsrecon_and_its_renderers_arguments(reference):
    data = reference("gsrecon_tiny.safetensors")
    network = GSRecon(GSReconConfig(**data.json("options"))).eval()
    network.load_state_dict(data.under("w."))
    views = (data["images"], data["C2W"], data["fxfycxcy"])
    assert_close(network.patches(*views), data["tokens_in"], MODELS, "patches")
    grids = network(*views)
    for name in CHANNELS:
        assert_close(getattr(grids, name), data[f"out_{name}"], MODELS, name)
    gaussians = activated(grids, *views[1:])
    assert_close(gaussians.xyz[0], data["raster0_means3D"], MODELS, "centers")
    assert_close(gaussians.rgb[0], data["raster0_colors_precomp"], MODELS, "colors")
    assert_close(gaussians.scales[0], data["raster0_scales"], MODELS, "scales")
    assert_close(gaussians.quats_wxyz[0], data["raster0_rotations"], MODELS, "rotations")
    assert_close(gaussians.opacities[0][:, None], data["raster0_opacities"], MODELS, "opacities")
    settings = data.json("raster_settings")
    height, width = settings["image_height"], settings["image_width"]
    camera = pixel_cameras(views[1][0], views[2][0], height, width)[0]
    # The released rasterizer's matrices act on rows.
    assert_close(torch.from_numpy(camera.T_cam_world).float().T, data["raster0_viewmatrix"], MODELS, "camera")
    assert math.isclose(width / (2 * camera.K[0, 0]), float(data["raster0_tanfovx"]), rel_tol=1e-5)
    raw = raw_gaussians(gaussians)
    assert_close(raw.means, data["raster0_means3D"], MODELS, "raw centers")
    assert_close(raw.scales, data["raster0_scales"], 2e-5, "raw scales")
    assert_close(raw.opacities[:, None], data["raster0_opacities"], MODELS, "raw opacities")


def test_gsrecon_block(reference):
    data = reference("gsrecon_block.safetensors")
    state = data.under("w.")
    dim = state["norm1.weight"].shape[0]
    found = {}
    for num_heads in (head for head in range(1, dim + 1) if dim % head == 0):
        block = Block(dim, num_heads)
        block.load_state_dict(state)
        found[num_heads] = float((block(data["x"]) - data["y"]).abs().max() / data["y"].abs().max())
    # The file does not say how many heads it was made with.
    num_heads = min(found, key=lambda key: found[key])
    assert found[num_heads] <= MODELS
    block = Block(dim, num_heads)
    block.load_state_dict(state)
    assert_close(block.attn(block.norm1(data["x"])), data["attn"], MODELS, "attention")
    assert_close(block.mlp(block.norm2(data["x"])), data["mlp"], MODELS, "feed-forward")


@pytest.mark.parametrize("name", reference_files("gsvae_tiny_*.safetensors"))
def test_gsvae(name: str):
    data = read_reference(name)
    state = data.under("w.")
    tiny = data.json("tae") if "tae" in data.metadata else tiny_decoder_config(state)
    network = GSVAE(data.json("vae_config"), tiny).eval()
    network.load_state_dict(state)
    wanted = {key: value for key, value in data.json("tae").items() if key != "upsampling_scaling_factor"}
    assert tiny_decoder_config(state) == {key: tuple(value) for key, value in wanted.items()}
    assert math.isclose(network.scaling_factor, float(data.metadata["scaling_factor"]))
    assert math.isclose(network.shift_factor, float(data.metadata["shift_factor"]))
    mean, logvar = network.posterior(data["gs"])
    assert_close(mean, data["latent_mean"], MODELS, "mean")
    assert_close(logvar, data["latent_logvar"], MODELS, "log variance")
    assert_close(network.encode(data["gs"]), data["z_mode"], MODELS, "mode")
    assert_close(kl_to_normal(mean, logvar)[None], data["kl"], MODELS, "divergence")
    assert_close(network.decode(data["z_mode"]), data["decoded"], MODELS, "decoded")
    assert_close(network.decode(data["z_mode"], one_by_one=False), data["decoded"], MODELS, "decoded together")
    assert_close(network.decode_tiny(data["z_mode"]), data["decoded_tiny"], MODELS, "decoded by the tiny decoder")
    recon_state = data.under("recon.")
    area = recon_state["out_depth.weight"].shape[0]
    config = GSReconConfig(
        input_res=data["images"].shape[-1],
        patch_size=math.isqrt(area),
        dim=recon_state["x_embedder.weight"].shape[0],
        num_blocks=1 + max(int(key.split(".")[2]) for key in recon_state if key.startswith("transformer.blocks.")),
        num_heads=4,
    )
    recon = GSRecon(config).eval()
    recon.load_state_dict(recon_state)
    grids = recon(data["images"], data["C2W"], data["fxfycxcy"]).channels().flatten(0, 1)
    assert_close(grids, data["gs_from_recon"], MODELS, "grids")
    latents = network.encode(grids)
    assert_close(latents, data["gslatents"], MODELS, "latents of grids")
    assert_close(network.scaled(latents), data["gslatents_scaled"], MODELS, "scaled latents")
    assert_close(network.unscaled(network.scaled(latents)), latents, MODELS, "scaled and back")
    assert_close(kl_to_normal(*network.posterior(grids))[None], data["gslatents_kl"], MODELS, "divergence of grids")
    num_views = data["decode_gslatents_rgb"].shape[1]
    parts = SplatGrids.from_channels(network.decode(data["z_mode"]).unflatten(0, (-1, num_views)))
    for channel in CHANNELS:
        assert_close(getattr(parts, channel), data[f"decode_gslatents_{channel}"], MODELS, channel)


def test_gsvae_starts_from_an_image_vae():
    config = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [8, 8],
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
    }
    from diffsplat.stock import AutoencoderKL

    image_vae = AutoencoderKL.from_config({**config, "in_channels": 3, "out_channels": 3}).eval()
    network = GSVAE(config).eval()
    network.load_image_vae(image_vae.state_dict())
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    # Four equal groups of channels add up to four times the image.
    hidden = network.vae.encoder.conv_in(images.repeat(1, 4, 1, 1) / 4)
    assert_close(hidden, image_vae.encoder.conv_in(images), MODELS, "first layer")
    latents = torch.randn(1, 4, 8, 8)
    assert_close(
        network.vae.decode(latents).sample, image_vae.decode(latents).sample.repeat(1, 4, 1, 1), MODELS, "decoded"
    )


@pytest.mark.parametrize("name", reference_files("mv_*.safetensors"))
def test_multi_view_networks(name: str):
    data = read_reference(name)
    if name == "mv_block.safetensors":
        _check_block(data)
        return
    config, num_views = data.json("config"), int(data.metadata["num_views"])
    if "cond" in data.tensors:
        _check_controlnet(data, config, num_views)
        return
    network = MultiViewDenoiser.from_config(config).eval()
    network.network.load_state_dict(data.under("w."))
    found = network(data["x"], data["t"], _text(data, num_views), num_views=num_views)
    assert_close(found, data["y"][:, : found.shape[1]], MODELS, name)
    alone = network(data["x"], data["t"].repeat_interleave(len(data["x"]) // len(data["t"])),
                    _text(data, num_views).repeated(num_views), num_views=1)  # fmt: skip
    assert float((alone - found).abs().max()) > 1e-3, "views do not see each other"


def _text(data, num_views: int) -> TextCondition:
    """One row per object; files hold one per object or one per view."""
    step = num_views if len(data["context"]) == len(data["x"]) else 1
    mask = data.tensors.get("mask")
    return TextCondition(
        embeds=data["context"][::step],
        mask=None if mask is None else mask[::step],
        pooled=data["pooled"][:: num_views if len(data["pooled"]) == len(data["x"]) else 1]
        if "pooled" in data.tensors
        else None,
    )


def _check_block(data) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    heads, head_dim, num_views = (int(data.metadata[key]) for key in ("heads", "head_dim", "num_views"))
    block = BasicTransformerBlock(heads * head_dim, heads, head_dim, cross_attention_dim=data["context"].shape[-1])
    block.eval().load_state_dict(data.under("w."))
    views = ViewCount()
    block.attn1.set_processor(MultiViewSelfAttention(views))  # type: ignore[arg-type]
    for views.num_views in (1, num_views):
        found = block(data["x"], encoder_hidden_states=data["context"])
        assert_close(found, data[f"y_v{views.num_views}"], MODELS, f"{views.num_views} views")


def _check_controlnet(data, config, num_views: int) -> None:
    unet = MultiViewDenoiser.from_config(config).eval()
    unet.network.load_state_dict(data.under("unet."))
    network = MultiViewControlNet.from_config(config).eval()
    network.network.load_state_dict(data.under("w."))
    text = _text(data, num_views)
    down, mid = network(data["x"], data["t"], text, data["cond"], num_views=num_views)
    # The file does not say its scale: it is one number for all connections.
    scale = float((data["mid"] * mid).sum() / mid.square().sum())
    down, mid = network(data["x"], data["t"], text, data["cond"], num_views=num_views, scale=scale)
    assert_close(mid, data["mid"], MODELS, "middle")
    for index, connection in enumerate(down):
        assert_close(connection, data[f"down{index}"], MODELS, f"connection {index}")
    found = unet(data["x"], data["t"], text, num_views=num_views, residuals=(down, mid))
    assert_close(found, data["unet_y"], MODELS, "UNet with connections")


def test_elevest(reference):
    data = reference("elevest_tiny.safetensors")
    meta = {key: float(value) for key, value in data.metadata.items()}
    config = ElevEstConfig(
        embed_dim=int(meta["embed_dim"]),
        depth=int(meta["depth"]),
        num_heads=int(meta["heads"]),
        interval_deg=meta["interval"],
    )
    network = ElevEst(config).eval()
    network.load_state_dict(data.under("w."))
    assert_close(resized(data["x"]), data["resized224"], MODELS, "resized")
    assert_close(network.backbone(normalized(resized(data["x"]))), data["cls"], MODELS, "class token")
    assert_close(network.elevations_deg(data["x"]), data["elev_deg"], MODELS, "elevations")
    images, wanted = data["x224"].flatten(0, 1), torch.rad2deg(data["cam_pose"][..., 0].flatten())
    losses = network.losses(images, wanted)
    assert_close(losses["bin"][None], data["loss_cls"], MODELS, "cross entropy")
    assert_close(losses["offset"][None], data["loss_offset"], MODELS, "offset")
    error = (network.elevations_deg(images) - wanted).abs().mean()[None]
    assert_close(error, data["err_degree"], MODELS, "error")


FULL_SIZE = {
    "gsrecon": lambda: GSRecon(GSReconConfig()),
    "elevest": lambda: ElevEst(ElevEstConfig()),
    **{f"gsvae_{family}": (lambda family=family: GSVAE.for_family(family)) for family in VAE_FAMILIES},
}


@pytest.mark.parametrize("name", reference_files("manifest_*_full.json"))
def test_full_size_networks_have_the_released_parameters(name: str):
    wanted = json.loads((reference_folder() / name).read_text())["keys"]
    kind = name.removeprefix("manifest_").removesuffix("_full.json")
    with torch.device("meta"):
        network = FULL_SIZE[kind]()
    assert all(value.is_meta for value in network.state_dict().values())
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ("kind", "with_image", "millions"),
    [("unet", False, 860), ("unet", True, 860), ("pixart", False, 611), ("sd3", True, 2243)],
)
def test_full_size_denoisers_on_the_meta_device(kind, with_image, millions):
    with torch.device("meta"):
        network = MultiViewDenoiser.full_size(kind, with_image=with_image)
    assert network.takes_image == with_image
    assert round(sum(value.numel() for value in network.parameters()) / 1e6) == millions
