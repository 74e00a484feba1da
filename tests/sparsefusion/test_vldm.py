from __future__ import annotations

import pytest
import torch

from sparsefusion import Denoiser, UNetConfig, sample_plms
from sparsefusion.checkpoints import UNUSED_UNET_KEYS
from sparsefusion.vldm import schedule
from sparsefusion.vldm.diffusion import diffusion_loss, num_plms_steps, sample_one_step
from support.sparsefusion_cases import Recording, ReferenceData, worst


def _denoiser(data: Recording) -> Denoiser:
    config = UNetConfig(
        dim=data.metadata["dim"],
        dim_mults=tuple(data.metadata["dim_mults"]),
        num_resnet_blocks=data.metadata["num_resnet_blocks"][0],
        cond_channels=data.metadata["cond_images_channels"],
    )
    denoiser = Denoiser(config)
    weights = data.under("w.unets.0.")
    denoiser.load_state_dict({name: value for name, value in weights.items() if name not in UNUSED_UNET_KEYS})
    return denoiser.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def denoiser(recordings: ReferenceData) -> Denoiser:
    return _denoiser(recordings.open("vldm_unet_tiny"))


@pytest.mark.reference
def test_names_and_shapes_are_the_published_ones(recordings: ReferenceData):
    with torch.device("meta"):
        state = Denoiser().state_dict()
    manifest = recordings.json("manifest_vldm_full")["keys"]
    published = {
        name.removeprefix("unets.0."): shape
        for name, shape in manifest.items()
        if name.removeprefix("unets.0.") not in UNUSED_UNET_KEYS
    }
    assert {name: list(value.shape) for name, value in state.items()} == published


@pytest.mark.reference
def test_predictions_agree_with_the_recording(recordings: ReferenceData, denoiser: Denoiser):
    data = recordings.open("vldm_unet_tiny")
    inputs = data["x"], data["log_snr"], data["cond"]
    keep_none = torch.zeros(len(data["x"]), dtype=torch.bool)
    for name, predicted in (("y", denoiser(*inputs)), ("y_nocond", denoiser(*inputs, keep_none))):
        assert worst(predicted, data[name]) < 1e-5, name


@pytest.mark.reference
def test_intermediate_values_agree_with_the_recording(recordings: ReferenceData, denoiser: Denoiser):
    data = recordings.open("vldm_unet_tiny")
    modules, seen = dict(denoiser.named_modules()), {}
    wanted = data.under("inter.")
    hooks = [
        modules[name].register_forward_hook(lambda _, __, out, name=name: seen.update({name: out})) for name in wanted
    ]
    denoiser(data["x"], data["log_snr"], data["cond"])
    for hook in hooks:
        hook.remove()
    assert {name: worst(seen[name], value) < 1e-5 for name, value in wanted.items()} == dict.fromkeys(wanted, True)


@pytest.mark.reference
def test_the_schedule_agrees_with_the_recording(recordings: ReferenceData):
    data = recordings.open("vldm_schedule")
    log_snr = schedule.log_snr(data["t"])
    alpha, sigma = schedule.alpha_sigma(log_snr)
    for ours, name in ((log_snr, "log_snr"), (alpha, "alpha"), (sigma, "sigma")):
        assert worst(ours, data[name]) < 1e-5, name
    times, next_times = data["t_a"], data["t_next"]
    noisy = schedule.add_noise(data["x0"], times, data["noise"])
    assert worst(noisy, data["x_t"]) < 1e-5
    assert worst(schedule.remove_noise(noisy, times, data["noise"]), data["x0_from_noise"]) < 1e-5
    found = schedule.posterior(data["x0"], noisy, times, next_times)
    for ours, name in ((found.mean, "mean"), (found.variance, "var"), (found.log_variance, "logvar")):
        assert worst(ours, data[f"post_{name}"]) < 1e-5, name
    pairs = data["sampling_times_5"][..., 0]
    path = schedule.sampling_times(pairs[0, 0].item(), len(pairs))
    assert worst(torch.stack([path[:-1], path[1:]], dim=-1), pairs) < 1e-6


@pytest.mark.reference
def test_the_loss_agrees_with_the_recording(recordings: ReferenceData, denoiser: Denoiser):
    data = recordings.open("vldm_loss")
    loss = diffusion_loss(denoiser, data["img"], data["cond"], data["t"], data["noise"], mask=data["mask"])
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)


@pytest.mark.reference
def test_plms_samples_agree_with_the_recording(recordings: ReferenceData, denoiser: Denoiser):
    data = recordings.open("vldm_samplers")
    cases = sorted(
        name.removesuffix(".x0") for name in data.tensors if name.startswith("plms") and name.endswith(".x0")
    )
    assert cases
    for case in cases:
        torch.manual_seed(0)
        sample = sample_plms(
            denoiser,
            data["latent"],
            data["cond"],
            float(case.removeprefix("plms")),
            max_steps=data.metadata["plms_steps"],
        )
        assert worst(sample.noisy, data[f"{case}.x_noisy"]) < 1e-5, case
        assert worst(sample.noise, data[f"{case}.noise"]) < 1e-5, case
        assert sample.alpha_bar == pytest.approx(data[f"{case}.alpha_cumprod"].item(), abs=1e-6), case
        # Near the end of time the signal is divided by almost nothing, which magnifies rounding.
        assert worst(sample.clean, data[f"{case}.x0"]) < 1e-3, case


@pytest.mark.reference
def test_the_number_of_steps_agrees_with_the_recording(recordings: ReferenceData):
    metadata = recordings.open("vldm_samplers").metadata
    recorded = {float(name.split("@")[1]): steps for name, steps in metadata.items() if name.startswith("n_steps@")}
    assert {start: num_plms_steps(start, metadata["plms_steps"]) for start in recorded} == recorded


@pytest.mark.reference
def test_one_step_agrees_with_the_recording(recordings: ReferenceData, denoiser: Denoiser):
    data = recordings.open("vldm_samplers")
    times = torch.linspace(0, 1, 200_001)
    start = times[(torch.sigmoid(schedule.log_snr(times)) - data["onestep.alpha_cumprod"]).abs().argmin()].item()
    noise = data["onestep.noise"]
    sample = sample_one_step(denoiser, data["latent"], data["cond"], start, noise=lambda _: noise)
    assert worst(sample.noisy, data["onestep.x_noisy"]) < 1e-4
    assert worst(sample.clean, data["onestep.x0"]) < 1e-3


def test_the_loss_counts_only_what_the_mask_shows():
    torch.manual_seed(0)
    config = UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=3, num_heads=2, head_dim=8)
    denoiser = Denoiser(config).eval()
    clean, noise = torch.randn(2, 2, 4, 8, 8)
    cond, times = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        assert diffusion_loss(denoiser, clean, cond, times, noise, mask=torch.zeros(2, 1, 8, 8)).item() == 0
        # A fresh denoiser predicts zero noise.
        whole = diffusion_loss(denoiser, clean, cond, times, noise)
    weights = (1 + schedule.log_snr(times).exp()) ** -0.5
    assert whole.item() == pytest.approx((noise.square().flatten(1).mean(1) * weights).mean().item(), rel=1e-5)


def test_removing_the_added_noise_gives_the_clean_latent():
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.1, 0.5, 0.9])
    assert worst(schedule.remove_noise(schedule.add_noise(clean, times, noise), times, noise), clean) < 1e-4
