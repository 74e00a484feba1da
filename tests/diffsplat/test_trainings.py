"""Trainings lower their losses, go on bit for bit, and touch only what they train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffsplat import GSVAE, ElevEstConfig, GSRecon, GSReconConfig, InputError, MultiViewControlNet, MultiViewDenoiser
from diffsplat.cameras import orbit_camera
from diffsplat.denoiser import load_widened
from diffsplat.schedulers import SD15_NOISE_SCHEDULE, make_scheduler
from diffsplat.stock import AutoencoderKL
from diffsplat.training.autoencoder import GSVAETask, psnr_through_latents
from diffsplat.training.config import (
    DenoiserTrainConfig,
    ElevEstTrainConfig,
    GeneratedObjectsConfig,
    GSReconMapConfig,
    GSReconTrainConfig,
    GSVAETrainConfig,
)
from diffsplat.training.controlling import ControlNetTask, control_maps
from diffsplat.training.denoising import DenoiserTask
from diffsplat.training.diffusion import NoiseLevels
from diffsplat.training.elevations import ElevEstTask, elevations_deg
from diffsplat.training.maps import GSReconMapTask
from diffsplat.training.reconstruction import GSReconTask, psnr_of_renders
from diffsplat.training.views import GeneratedViews
from diffsplat.words import WordEncoder
from support.tiny_diffsplat import DENOISERS, FAMILY, VAE
from train_runs import EpochSampler, Loop, LoopConfig, OptimizerConfig

OBJECTS = GeneratedObjectsConfig(size=16, num_objects=4, num_extra=1)
NETWORK = GSReconConfig(input_res=16, patch_size=8, dim=16, num_blocks=1, num_heads=2)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3)
TINY = {"num_decoder_blocks": (1, 1), "decoder_block_out_channels": (8, 8)}


@pytest.fixture(autouse=True)
def _gradients():
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def objects() -> GeneratedViews:
    return GeneratedViews(OBJECTS)


def gsrecon_task(objects: GeneratedViews) -> GSReconTask:
    config = GSReconTrainConfig(network=NETWORK, optimizer=OPTIMIZER, batch_size=2, map_weight=1.0, render_every=2)
    return GSReconTask(config, objects)


def gsvae_task(objects: GeneratedViews, **more) -> GSVAETask:
    torch.manual_seed(0)
    kept = {} if more.pop("keep_grids", False) else None
    config = GSVAETrainConfig(optimizer=OPTIMIZER, batch_size=2, kl_weight=1e-3, **more)
    return GSVAETask(config, GSVAE(VAE | FAMILY["sd15"], TINY), GSRecon(NETWORK), objects, kept_grids=kept)


def denoiser_task(objects: GeneratedViews, **more) -> DenoiserTask:
    torch.manual_seed(0)
    denoiser = MultiViewDenoiser.from_config(DENOISERS["sd15"] | {"in_channels": 10, "cross_attention_dim": 16})
    words = WordEncoder(["a", "red", "ball"], dim=16, num_heads=2)
    gsvae, recon = GSVAE(VAE | FAMILY["sd15"], TINY), GSRecon(NETWORK)
    levels = NoiseLevels.of_diffusion(make_scheduler("ddim", SD15_NOISE_SCHEDULE))
    settings = {"optimizer": OPTIMIZER, "batch_size": 2, "dropout": 0.2}
    encoder = {key: more.pop(key) for key in ("train_encoder", "kept_latents") if key in more}
    config = DenoiserTrainConfig(**settings, **more)
    return DenoiserTask(config, denoiser, gsvae, recon, words, objects, levels=levels, **encoder)


def map_task(objects: GeneratedViews) -> GSReconMapTask:
    config = GSReconMapConfig(network=NETWORK, optimizer=OPTIMIZER, batch_size=2, num_tokens=6)
    return GSReconMapTask(config, objects)


def image_task(objects: GeneratedViews) -> DenoiserTask:
    torch.manual_seed(0)
    task = denoiser_task(objects)
    denoiser = MultiViewDenoiser.from_config(DENOISERS["sd15"] | {"in_channels": 11, "cross_attention_dim": 16})
    config = DenoiserTrainConfig(
        optimizer=OPTIMIZER, batch_size=2, dropout=0.2, without_image=0.3, prediction="v_prediction"
    )
    vae = AutoencoderKL.from_config(VAE | FAMILY["sd15"])
    return DenoiserTask(
        config, denoiser, task.gsvae, task.recon, task.encoder, objects, levels=task.levels, image_vae=vae
    )


def control_task(objects: GeneratedViews) -> ControlNetTask:
    task = denoiser_task(objects)
    assert task.levels is not None
    torch.manual_seed(1)
    controlnet = MultiViewControlNet.from_denoiser(task.model, embedding_channels=(4, 8))
    return ControlNetTask(
        task.config, controlnet, task.model, task.gsvae, task.recon, task.encoder, objects, control="depth",
        levels=task.levels,
    )  # fmt: skip


def elevest_task(objects: GeneratedViews) -> ElevEstTask:
    network = ElevEstConfig(embed_dim=8, depth=1, num_heads=1)
    return ElevEstTask(ElevEstTrainConfig(network=network, optimizer=OPTIMIZER, batch_size=2), objects)


MAKERS = {
    "controlnet": control_task,
    "elevest": elevest_task,
    "maps": map_task,
    "gsrecon": gsrecon_task,
    "gsvae": lambda objects: gsvae_task(objects, keep_grids=True, anchor_weight=0.1),
    "image": image_task,
    "denoiser": lambda objects: denoiser_task(
        objects, train_encoder=True, kept_latents={}, render_weight=0.5, min_snr=1.0
    ),
}


def parameters(task) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().clone() for group in task.parameter_groups() for name, value in group.parameters.items()
    }


@pytest.mark.parametrize("name", MAKERS)
def test_a_stopped_training_ends_in_the_same_bits(objects, tmp_path, name):
    config = LoopConfig(max_steps=4, checkpoint_every=2, ema_decay=0.9, ema_warmup="power")
    whole = Loop(MAKERS[name](objects), tmp_path / "whole", config)
    whole.train_until(4)
    half = Loop(MAKERS[name](objects), tmp_path / "halves", config)
    half.train_until(2)
    del half
    again = Loop(MAKERS[name](objects), tmp_path / "halves", config)
    assert again.step == 2
    again.train_until(4)
    wanted, found = parameters(whole.task), parameters(again.task)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    files = [path.name for path in sorted((tmp_path / "whole" / "model").iterdir())]
    assert any(file.endswith(".safetensors") for file in files)
    for file in files:
        assert (tmp_path / "whole" / "model" / file).read_bytes() == (tmp_path / "halves" / "model" / file).read_bytes()


def test_gsrecon_learns(objects):
    loop = Loop(gsrecon_task(objects), None, LoopConfig(max_steps=60, log_every=20))
    before = psnr_of_renders(loop.task.model, objects, [0, 1])  # type: ignore[attr-defined]
    loop.train_until(60)
    after = psnr_of_renders(loop.task.model, objects, [0, 1])  # type: ignore[attr-defined]
    assert loop.history[-1].terms["map"] < 0.7 * loop.history[0].terms["map"]
    assert after["psnr_input_views"] > before["psnr_input_views"] + 1


def test_a_beginning_by_maps_serves_the_training_by_renders(objects):
    loop = Loop(map_task(objects), None, LoopConfig(max_steps=60, log_every=20))
    loop.train_until(60)
    assert loop.history[-1].terms["map"] < 0.7 * loop.history[0].terms["map"]
    begun = loop.task.model  # type: ignore[attr-defined]
    config = GSReconTrainConfig(network=NETWORK, optimizer=OPTIMIZER, batch_size=2)
    task = GSReconTask(config, objects, start=begun.state_dict())
    batch = objects.batch([0])
    found = task.model(batch.images, *batch.input_cameras).channels()
    torch.testing.assert_close(found, begun(batch.images, *batch.input_cameras).channels())


@pytest.mark.parametrize("part", ["vae", "tiny_decoder"])
def test_gsvae_trains_the_vae_or_the_tiny_decoder(objects, part):
    task = gsvae_task(objects, render_every=1000, tiny_decoder=part == "tiny_decoder", anchor_weight=0.05)
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    loop = Loop(task, None, LoopConfig(max_steps=25, log_every=5))
    loop.train_until(25)
    changed = {name for name, value in task.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(f"{part}.") for name in changed)
    assert loop.history[-1].terms["grid"] < loop.history[0].terms["grid"]
    found = psnr_through_latents(task.model, task.recon, objects, [0])
    assert set(found) == {"psnr_gsrecon", "psnr_gsvae"}


def test_latents_change_their_units_and_nothing_else():
    torch.manual_seed(0)
    model = GSVAE(VAE | FAMILY["sd15"], TINY).eval()
    grids, mean, unit = torch.rand(2, 12, 16, 16), torch.randn(4), torch.rand(4) + 0.5
    before, logvar = model.posterior(grids)
    decoded = model.decode(before)
    model.change_units(mean, unit)
    after, log_unit_variance = model.posterior(grids)
    torch.testing.assert_close(after, (before - mean[:, None, None]) / unit[:, None, None])
    torch.testing.assert_close(log_unit_variance, logvar - 2 * unit.log()[:, None, None])
    torch.testing.assert_close(model.decode(after), decoded)


def test_a_controlnet_begins_as_nothing_and_leaves_its_denoiser_alone(objects):
    task = control_task(objects)
    plain = denoiser_task(objects)
    batch = objects.batch([0, 1])
    found = [one.losses(batch, step=0, generator=torch.Generator().manual_seed(0)) for one in (task, plain)]
    torch.testing.assert_close(found[0]["diffusion"], found[1]["diffusion"])
    before = {name: value.clone() for name, value in task.model.network.state_dict().items()}
    Loop(task, None, LoopConfig(max_steps=3)).train_until(3)
    assert all(torch.equal(value, before[name]) for name, value in task.model.network.state_dict().items())
    assert bool((task.controlnet.network.controlnet_mid_block.weight != 0).any())
    maps = control_maps(batch, "depth")
    assert float(maps.min()) == 0
    assert torch.all(maps[(batch.mask[:, 0] == 0).expand_as(maps)] == 1)


def test_elevations_are_those_of_the_cameras(objects):
    cameras = torch.stack([orbit_camera(degrees, 70.0) for degrees in (-30.0, 0.0, 8.0)])
    torch.testing.assert_close(elevations_deg(cameras), torch.tensor([-30.0, 0.0, 8.0]), atol=1e-4, rtol=0)
    groups = elevest_task(objects).parameter_groups()
    assert [group.config.learning_rate for group in groups] == pytest.approx([3e-3, 3e-4])
    loop = Loop(elevest_task(objects), None, LoopConfig(max_steps=12, log_every=4))
    loop.train_until(12)
    assert loop.history[-1].terms["bin"] < loop.history[0].terms["bin"]


def test_a_denoiser_and_its_words_learn(objects):
    task = denoiser_task(objects, train_encoder=True)
    frozen = {name: value.clone() for name, value in task.gsvae.state_dict().items()}
    words = next(task.trained_encoder.parameters()).detach().clone()  # type: ignore[union-attr]
    loop = Loop(task, None, LoopConfig(max_steps=40, log_every=10))
    loop.train_until(40)
    assert loop.history[-1].loss < loop.history[0].loss
    assert not torch.equal(words, next(task.trained_encoder.parameters()))  # type: ignore[union-attr]
    assert all(torch.equal(value, frozen[name]) for name, value in task.gsvae.state_dict().items())
    assert not any(value.requires_grad for value in task.recon.parameters())


def test_kept_latents_change_nothing(objects):
    found = []
    for kept in (None, {}):
        loop = Loop(denoiser_task(objects, kept_latents=kept), None, LoopConfig(max_steps=6))
        loop.train_until(6)
        found.append(parameters(loop.task))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_a_denoiser_cannot_be_trained_with_is_refused(objects):
    task = denoiser_task(objects)
    with pytest.raises(ValueError, match="noise levels"):
        DenoiserTask(task.config, task.model, task.gsvae, task.recon, task.encoder, objects)
    image = MultiViewDenoiser.from_config(DENOISERS["sd15"] | {"in_channels": 11})
    with pytest.raises(ValueError, match="needs an image VAE"):
        DenoiserTask(task.config, image, task.gsvae, task.recon, task.encoder, objects, levels=task.levels)
    with pytest.raises(ValueError, match="dropout"):
        DenoiserTrainConfig(dropout=0.5)


def test_a_widened_start_computes_as_the_image_model_did():
    from diffsplat import TextCondition

    narrow = MultiViewDenoiser.from_config(DENOISERS["sd15"] | {"in_channels": 4}).eval()
    wide = MultiViewDenoiser.from_config(DENOISERS["sd15"] | {"in_channels": 10}).eval()
    load_widened(wide, narrow.network.state_dict(), where="here")
    x, text = torch.randn(4, 10, 8, 8), TextCondition(embeds=torch.randn(1, 5, 32))
    with torch.no_grad():
        found = wide(x, torch.tensor([10]), text, num_views=4)
        wanted = narrow(x[:, :4], torch.tensor([10]), text, num_views=4)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(InputError, match="is missing"):
        load_widened(wide, {}, where="nowhere")


def test_every_epoch_shows_every_object_once_in_another_order():
    sampler = EpochSampler(5, 2, seed=3)
    drawn = [index for _ in range(5) for index in sampler.next_batch()]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == list(range(5))
    assert drawn[:5] != drawn[5:]
    state = sampler.state()
    following = sampler.next_batch()
    other = EpochSampler(5, 2, seed=3)
    other.load_state(state)
    assert other.next_batch() == following


def test_words_are_read_back_and_unknown_ones_known(tmp_path: Path):
    encoder = WordEncoder(["a", "red", "ball"], dim=8, num_tokens=4, num_heads=2).eval()
    encoder.write_settings(tmp_path)
    from safetensors.torch import save_file

    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    again = WordEncoder.from_folder(tmp_path)
    assert torch.equal(again(["A red ball!"]).embeds, encoder(["a red ball"]).embeds)
    assert not torch.allclose(encoder(["a red ball"]).embeds, encoder(["a red"]).embeds)
    assert encoder.unknown_words("a green ball") == ["green"]
    assert encoder.tokens(["a red ball a red"]).shape == (1, 4)
    (tmp_path / "words.json").write_text("{}")
    with pytest.raises(InputError, match="no list of words"):
        WordEncoder.from_folder(tmp_path)
