from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsefusion import (
    Denoiser,
    Diffusion,
    Distillation,
    DistillConfig,
    EftConfig,
    EpipolarTransformer,
    Field,
    FieldConfig,
    InputError,
    PosedImages,
    UNetConfig,
    cache_views,
    choose_inputs,
)
from sparsefusion.checkpoints import UNUSED_UNET_KEYS
from sparsefusion.distill import CachedViews, FusionRecord, SeededDraws
from sparsefusion.vae import ImageVae
from support.sparsefusion_cases import Recording, ReferenceData, recipe_weights, ring, worst

FIELD = FieldConfig(num_levels=4, finest_per_bound=16, log2_table_size=10, num_steps=8, num_importance=8)


class ReleasedDraws:
    """The order of the released loop's draws from torch's own random state.

    It also draws a direction of light for every render, which it does not use; views come first of a permutation in the
    first iteration and second in later ones.
    """

    def __init__(self) -> None:
        self.later = False

    def input_view(self, count: int) -> int:
        view = int(torch.randperm(count)[0])
        torch.randn(3)
        return view

    def cached_view(self, count: int) -> int:
        view = int(torch.randperm(count)[1 if self.later else 0])
        self.later = True
        torch.randn(3)
        return view

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape)

    def time(self, most: float) -> float:
        return min(torch.rand(1).item(), most)

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape)

    def get_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)


def _replacement(data: Recording, start: str) -> int:
    """A number that the recording says the original was run with instead of its own."""
    (new,) = [new for old, new in data.metadata["subs"] if old.startswith(start)]
    return int("".join(c for c in new.split("(")[-1].split(",")[-1].split("=")[-1] if c.isdigit()))


def _autoencoder(weights: dict[str, Tensor], rendered: Tensor, latents: Tensor) -> ImageVae:
    """The recording's autoencoder; of its group norms the recording does not say the number of groups."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = sorted({name.split(".")[2] for name in weights if name.startswith("encoder.down_blocks.")})
    channels = tuple(weights[f"encoder.down_blocks.{at}.resnets.0.conv1.weight"].shape[0] for at in levels)
    for groups in (32, 16, 8, 4, 2, 1):
        if any(width % groups for width in channels):
            continue
        model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(levels),  # type: ignore[arg-type]
            up_block_types=("UpDecoderBlock2D",) * len(levels),  # type: ignore[arg-type]
            block_out_channels=channels,  # type: ignore[arg-type]
            layers_per_block=1,
            norm_num_groups=groups,
        )
        model.load_state_dict(weights)
        vae = ImageVae(model.eval().requires_grad_(False))
        if worst(vae.encode(2 * rendered - 1), latents) < 1e-3:
            return vae
    raise AssertionError("no number of groups gives the recorded latents")


@pytest.mark.reference
def test_the_whole_loop_agrees_with_the_recording(recordings: ReferenceData):
    data = recordings.open("distillation_loop")
    metadata = data.metadata
    size = data["scene_rgb"].shape[-1]
    scene, augmented = data.cameras("scene"), data.cameras("aug")
    chosen = metadata["input_idx"]
    images, masks = data["scene_rgb"][chosen], data["scene_mask"][chosen]

    eft = EpipolarTransformer()
    eft.load_state_dict(recipe_weights(eft.state_dict(), *metadata["eft_recipe"]), strict=False)
    cached = cache_views(eft, images, scene[chosen], scene, augmented, mode="eval")
    assert worst(cached.rgb[:1], data["eft_image_0"]) < 1e-4
    assert worst(cached.features[:1], data["eft_feat_0"]) < 1e-4
    assert worst(cached.cameras.R, data["aug_vox.R"]) < 1e-5

    denoiser = Denoiser(UNetConfig(dim=16))
    state = {f"unets.0.{name}": value for name, value in denoiser.state_dict().items()}
    state |= {
        "unets.0.null_conditional_embed": torch.zeros(1, 256, 16),
        "unets.0.null_conditional_hidden": torch.zeros(1, 64),
    }
    drawn = {
        name.removeprefix("unets.0."): value for name, value in recipe_weights(state, *metadata["vldm_recipe"]).items()
    }
    denoiser.load_state_dict({name: value for name, value in drawn.items() if name not in UNUSED_UNET_KEYS})
    denoiser.eval().requires_grad_(False)
    vae = _autoencoder(data.under("vae."), data["last.rendered"], data["last.latents"])

    opt = metadata["opt"]
    torch.manual_seed(int(metadata["seed"]))
    torch.rand(len(augmented) - len(scene))  # The circle's tilts.
    field = Field(FieldConfig(bound=opt["bound"], num_steps=opt["num_steps"], num_importance=opt["upsample_steps"]))
    # The original renders the starting field once: a direction of light, and a number for each sample of each ray.
    torch.randn(3)
    torch.rand(size * size * opt["num_steps"])

    distillation = Distillation(
        field,
        PosedImages(images, masks, cached.cameras[chosen]),
        cached,
        Diffusion(denoiser, vae),
        perceptual=torch.nn.functional.mse_loss,
        config=DistillConfig(
            max_steps=metadata["max_itr"],
            diffusion_start=_replacement(data, "start_fusion_step"),
            perceptual_start=_replacement(data, "start_percep_step"),
            image_size=size,
            render_size=size // 2,
            num_sampling_steps=_replacement(data, "PLMSSampler"),
        ),
        draws=ReleasedDraws(),
    )
    fusions: dict[int, FusionRecord] = {}
    for iteration in range(metadata["max_itr"]):
        distillation.train_until(iteration + 1)
        if distillation.last_fusion is not None:
            fusions[iteration] = distillation.last_fusion
    for step in metadata["steps"]:
        record = fusions[step["itr"]]
        assert record.view == step["view"]
        assert record.time == pytest.approx(step["max_thres"], abs=1e-7)
        assert record.weight == pytest.approx(step["fusion_weight"][0], abs=1e-5)

    history = distillation.history
    total = torch.tensor(history.input) + torch.tensor(history.opacity)
    assert worst(total, data["loss_list"]) < 1e-3
    assert worst(torch.tensor(history.cached), data["fusion_loss_list"]) < 1e-3
    assert worst(torch.tensor(history.opacity), data["opacity_list"]) < 1e-3
    last = fusions[max(fusions)]
    assert worst(last.rendered, data["last.rendered"]) < 1e-3
    assert worst(last.sample.noisy, data["last.x_noisy"]) < 1e-3
    assert worst(last.sample.clean, data["last.pred_x0"]) < 1e-3
    for layer, module in enumerate(field.sigma_net.net):
        # Each weight moves by at most a learning rate per step, so the moves would differ, not only the values.
        for name in ("weight", "bias"):
            assert (getattr(module, name).detach() - data[f"final.net.{layer}.{name}"]).abs().max() < 2e-3
    assert worst(field.encoder.embeddings.detach().abs().sum(dim=0), data["final.emb_abs"]) < 1e-3


class _Vae(ImageVae):
    """Latents are an eighth of the image, so that no autoencoder is needed."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def encode(self, x: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(x, 8)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8)


def _distillation(seed: int = 3) -> Distillation:
    torch.manual_seed(0)
    cameras = ring(4)
    images, masks = torch.zeros(4, 3, 32, 32), torch.zeros(4, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    images[:, 0, 8:24, 8:24] = 0.8
    unet = UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=16, num_heads=2, head_dim=8)
    eft = EpipolarTransformer(EftConfig(encoder_width=8, encoder_tail=False, hidden=16, num_layers=1, num_depths=5))
    cached = cache_views(eft, images[:2], cameras[[0, 1]], cameras, cameras, mode="eval")
    return Distillation(
        Field(FIELD, generator=torch.Generator().manual_seed(seed)),
        PosedImages(images[:2], masks[:2], cached.cameras[[0, 1]]),
        CachedViews(images, cached.features, cached.cameras),
        Diffusion(Denoiser(unet).eval(), _Vae()),
        perceptual=torch.nn.functional.mse_loss,
        config=DistillConfig(
            max_steps=60,
            diffusion_start=30,
            perceptual_start=40,
            image_size=32,
            render_size=16,
            num_sampling_steps=2,
            grid_lr=0.1,
            network_lr=0.02,
        ),
        draws=SeededDraws(seed),
    )


def test_a_field_learns_what_the_photos_show():
    distillation = _distillation()
    distillation.train_until(30)
    history = distillation.history.input
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:5])
    out = distillation.render(distillation.inputs.cameras[0])
    assert out.alpha[0, 0, 12:20, 12:20].mean() > out.alpha[0, 0, :4].mean() + 0.3
    assert out.rgb[0, 0, 16, 16] > out.rgb[0, 1, 16, 16]


def test_calls_and_checkpoints_do_not_change_the_result():
    whole = _distillation()
    whole.train_until(36)
    parts = _distillation()
    parts.train_until(7)
    parts.train_until(31)
    state = parts.state_dict()
    other = _distillation(seed=99)
    other.load_state_dict(state)
    other.train_until(36)
    assert whole.last_fusion is not None
    assert other.step == 36
    assert whole.history == other.history
    for name, value in whole.field.state_dict().items():
        assert torch.equal(value, other.field.state_dict()[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_optimizer():
    distillation = _distillation()
    distillation.inputs.rgb.fill_(float("nan"))
    before = {name: value.clone() for name, value in distillation.field.state_dict().items()}
    with pytest.raises(InputError, match="iteration 0"):
        distillation.train_until(1)
    assert all(torch.equal(value, before[name]) for name, value in distillation.field.state_dict().items())


def test_inputs_are_chosen_by_the_index_of_the_sequence():
    assert sorted(choose_inputs(8, 8, 0)) == list(range(8))
    assert choose_inputs(32, 2, 5) == torch.randperm(32, generator=torch.Generator().manual_seed(5))[:2].tolist()
    assert choose_inputs(32, 4, 1) != choose_inputs(32, 4, 2)
