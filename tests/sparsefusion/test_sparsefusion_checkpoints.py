from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparsefusion import (
    Denoiser,
    EftConfig,
    EpipolarTransformer,
    Field,
    FieldConfig,
    InputError,
    ModelConfig,
    UNetConfig,
    VaeConfig,
    build_model,
    load_denoiser,
    load_eft,
    load_field,
    load_model,
    load_vae,
    save_field,
    save_model,
)
from sparsefusion.checkpoints import convert_compvis_vae, stable_diffusion_autoencoder
from sparsefusion.vae import ImageVae
from support.sparsefusion_cases import ReferenceData, worst

EFT = EftConfig(encoder_width=8, encoder_tail=False, hidden=16, num_layers=1, num_depths=5)
UNET = UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=16, num_heads=2, head_dim=8)
TINY = ModelConfig(eft=EFT, unet=UNET, vae=VaeConfig(block_channels=(8, 8, 8, 8), norm_groups=4))


@pytest.mark.reference
def test_the_autoencoder_agrees_with_the_recording(recordings: ReferenceData):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    data = recordings.open("ldm_vae_tiny")
    sizes: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in data.metadata["diffusers_config"].items()
    }
    model: Any = AutoencoderKL(**sizes)
    model = model.eval().requires_grad_(False)
    weights = convert_compvis_vae(data.under("ldm."), len(sizes["block_out_channels"]))
    model.load_state_dict(weights)
    vae = ImageVae(model, scale=1.0)
    assert worst(vae.encode(data["x"]), data["mean"]) < 1e-5
    assert worst(model.encode(data["x"]).latent_dist.logvar, data["logvar"]) < 1e-5
    assert worst(vae.decode(data["z"]), data["y"]) < 1e-4


def test_every_name_of_stable_diffusions_autoencoder_is_converted():
    with torch.device("meta"):
        model = stable_diffusion_autoencoder()
    own = model.state_dict()
    # Back to the first format's names, by hand for the parts that differ.
    old = {}
    for name, value in own.items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        new = new.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
        new = new.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
        new = new.replace("mid_block.attentions.0.to_", "mid.attn_1.")
        new = new.replace("down_blocks", "down").replace("resnets", "block")
        new = new.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
        for level in range(4):
            new = new.replace(f"up_blocks.{level}.", f"up.{3 - level}.")
        old[new] = value
    assert convert_compvis_vae(old, 4).keys() == own.keys()


def test_published_pairs_are_loaded_strictly(tmp_path: Path):
    torch.manual_seed(0)
    eft, denoiser = EpipolarTransformer(EFT), Denoiser(UNET)
    eft_path, denoiser_path = tmp_path / "ckpt_latest_eft.pt", tmp_path / "ckpt_latest.pt"
    torch.save({"step": 7, "model_state_dict": eft.state_dict()}, eft_path)
    published = {f"unets.0.{name}": value for name, value in denoiser.state_dict().items()}
    published["unets.0.null_conditional_embed"] = torch.zeros(1, 256, 8)
    torch.save({"model_state_dict": published}, denoiser_path)
    for module, other in ((eft, load_eft(eft_path, EFT)), (denoiser, load_denoiser(denoiser_path, UNET))):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
    del published["unets.0.final_conv.bias"]
    published["unets.0.extra"] = torch.zeros(1)
    torch.save({"model_state_dict": published}, denoiser_path)
    with pytest.raises(InputError, match=r"final_conv\.bias is missing; extra is unknown"):
        load_denoiser(denoiser_path, UNET)
    with pytest.raises(InputError, match="holds no denoiser"):
        load_denoiser(eft_path, UNET)
    with pytest.raises(InputError, match="instead of"):
        load_eft(eft_path, EftConfig(encoder_width=8, encoder_tail=False, hidden=32, num_layers=1, num_depths=5))
    with pytest.raises(InputError, match="holds no autoencoder"):
        load_vae(eft_path)
    with pytest.raises(InputError, match="is missing"):
        load_eft(tmp_path / "none.pt")


def test_our_own_file_comes_back(tmp_path: Path):
    torch.manual_seed(0)
    model = build_model(TINY)
    path = tmp_path / "model.safetensors"
    save_model(model, path, half=False)
    other = load_model(path)
    assert other.config == TINY
    for part in ("eft", "denoiser", "vae"):
        ours, theirs = getattr(model, part).state_dict(), getattr(other, part).state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_model(path)


def test_fields_come_back(tmp_path: Path):
    field = Field(FieldConfig(num_levels=3, finest_per_bound=8, log2_table_size=8))
    save_field(field, tmp_path / "field.pt")
    other = load_field(tmp_path / "field.pt")
    assert other.config == field.config
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in field.state_dict().items())
