"""Five steps of denoising end in the recorded latents, and training steps compute what was recorded."""

from __future__ import annotations

import json
import re

import pytest
import torch

from diffsplat import MultiViewControlNet, MultiViewDenoiser, TextCondition
from diffsplat.sampling import ControlCondition, denoised, guidance_per_view
from diffsplat.schedulers import make_scheduler, set_steps
from diffsplat.stock import AutoencoderKL
from diffsplat.training.diffusion import (
    NoiseLevels,
    diffusion_step,
    dropped_conditions,
    without_text,
)

from .conftest import assert_close, read_reference, reference_files, reference_folder

pytestmark = pytest.mark.reference

LATENTS = 1e-4
MODELS = 1e-5

PIPES = [name for name in reference_files("pipe_*.safetensors") if "weights" not in name]


def outputs() -> list[tuple[str, str]]:
    return [(name, key) for name in PIPES for key in sorted(read_reference(name).tensors) if key.startswith("out_")]


def image_latents(data, *, shifted: bool = False) -> torch.Tensor:
    state = data.under("vae.")
    config = {key: value for key, value in vae_config(data).items() if not key.startswith("_")}
    vae = AutoencoderKL.from_config(config).eval()
    vae.load_state_dict(state)
    latents = vae.encode(2 * data["image"].flatten(0, 1) - 1).latent_dist.mode()
    shift = vae.config["shift_factor"] or 0.0 if shifted else 0.0
    return vae.config["scaling_factor"] * (latents - shift)


def vae_config(data) -> dict:
    """From the file, or, where it does not say, that of the sd file with what its weights and family imply."""
    if "vae" in data.metadata:
        return data.json("vae")
    base = read_reference("pipe_sd.safetensors").json("vae")
    channels = data.under("vae.")["decoder.conv_in.weight"].shape[1]
    if channels == 16:
        base |= {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
        base |= {"use_quant_conv": False, "use_post_quant_conv": False}
    return base


def text_of(data, prefix: str = "") -> TextCondition:
    pooled = data.tensors.get("negative_pooled" if prefix else "pooled")
    mask = data.tensors.get(f"{prefix}prompt_attention_mask")
    return TextCondition(embeds=data[f"{prefix}prompt_embeds"], pooled=pooled, mask=mask)


def denoiser_of(data, *, image: bool) -> MultiViewDenoiser:
    prefix = next(p for p in (f"unet_{'image' if image else 'text'}.", "unet.", "w.") if data.under(p))
    state = data.under(prefix)
    config = data.json("unet" if "unet" in data.metadata else "config")
    first = state["conv_in.weight"] if "conv_in.weight" in state else state["pos_embed.proj.weight"]
    config["in_channels"] = first.shape[1]
    network = MultiViewDenoiser.from_config(config).eval()
    network.network.load_state_dict(state)
    return network


SCHEDULERS = {"sde": "sde-dpmsolver++", "dpm": "dpmsolver++", "ddim": "ddim", "flow": "flow"}


@pytest.mark.parametrize(("name", "key"), outputs())
def test_recorded_latents(name: str, key: str):
    data = read_reference(name)
    words = key.removeprefix("out_").split("_")
    image = "image" in words
    if key.endswith("latent_cond"):
        assert_close(image_latents(data), data[key], LATENTS, key)
        return
    which = next(word for word in ("sde", "dpm", "ddim", "flow") if word in words)
    seeds = [int(word.removeprefix("seed")) for word in words if re.fullmatch(r"seed\d+", word)]
    guidances = [float(word.removeprefix("cfg")) for word in words if re.fullmatch(r"cfg[\d.]+", word)]
    recorded = data.metadata.get(f"guidance_{'image' if image else 'text'}", data.metadata.get("guidance"))
    guidance = guidances[0] if guidances else float(recorded or 1)
    network = denoiser_of(data, image=image)
    control = None
    if "controlnet" in words or "control" in words:
        control = recorded_control(name, data)
    scheduler = make_scheduler(
        SCHEDULERS[which],  # type: ignore[arg-type]
        json.loads(data.metadata.get("sched", "{}")),
        prediction_type="v_prediction" if image else "epsilon",
        flow_shift=float(data.metadata.get("shift", 3.0)),
    )
    rays = next(value for key, value in sorted(data.tensors.items()) if key.startswith("plucker"))
    latents = denoised(
        network, scheduler, data["latents"][None],
        num_steps=int(data.metadata["steps"]),
        rays=rays[None],
        text=text_of(data),
        negative=text_of(data, "negative_"),
        guidance=guidance_per_view(guidance, len(data["latents"]), triangle="tri" in words),
        image_latents=image_latents(data) if image else None,
        control=control,
        eta=0.0,
        generator=torch.Generator().manual_seed(seeds[0]) if seeds else None,
    )  # fmt: skip
    assert_close(latents[0], data[key], LATENTS, key)


def recorded_control(name: str, data) -> ControlCondition:
    weights = read_reference(name.replace(".safetensors", "_controlnet_weights.safetensors"))
    network = MultiViewControlNet.from_config({**data.json("unet"), "in_channels": 10}).eval()
    network.network.load_state_dict(weights.under("w."))
    given = next(key for key in ("control", "controlnet_cond", "cond", "control_image") if key in data.tensors)
    maps = data[given].flatten(0, data[given].ndim - 4)[:1]
    return ControlCondition(network=network, maps=maps, scale=float(weights.metadata["controlnet_scale"]))


def test_the_recorded_controlnet_fits_the_recorded_unet(reference):
    data = reference("pipe_sd.safetensors")
    weights = reference("pipe_sd_controlnet_weights.safetensors")
    network = MultiViewControlNet.from_config({**data.json("unet"), "in_channels": 10}).eval()
    network.network.load_state_dict(weights.under("w."))
    side = data["latents"].shape[-1] * 8
    maps = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    scale = float(weights.metadata["controlnet_scale"])
    scheduler = make_scheduler("ddim", data.json("sched"))
    shared = {
        "num_steps": 2,
        "rays": data["plucker"][None],
        "text": text_of(data),
        "negative": text_of(data, "negative_"),
        "guidance": guidance_per_view(2.0, 4, triangle=False),
        "eta": 0.0,
    }
    unet = denoiser_of(data, image=False)
    found = [
        denoised(unet, scheduler, data["latents"][None], **shared, control=control)
        for control in (
            None,
            ControlCondition(network=network, maps=maps, scale=0.0),
            ControlCondition(network=network, maps=maps, scale=scale),
        )
    ]
    assert_close(found[1], found[0], MODELS, "a scale of 0")
    assert float((found[2] - found[0]).abs().max()) > 1e-3


def test_both_image_latents_of_stable_diffusion_3(reference):
    data = reference("pipe_sd3.safetensors")
    for key in (key for key in data.tensors if key.startswith("image_latent_cond")):
        assert_close(image_latents(data, shifted="shifted" in key), data[key], LATENTS, key)


def test_schedules(reference):
    path = reference_folder() / "pipe_notes.json"
    if not path.is_file():
        pytest.skip("pipe_notes.json is absent")
    notes = json.loads(path.read_text())
    schedule = reference("pipe_sd.safetensors").json("sched")
    for key, name in (("dpm", "sde-dpmsolver++"), ("ddim", "ddim"), ("flow", "flow")):
        (steps,) = [field for field in notes if field.startswith(f"{key}_timesteps_")]
        scheduler = make_scheduler(name, schedule)  # type: ignore[arg-type]
        set_steps(scheduler, int(steps.rsplit("_", 1)[1]))
        assert scheduler.timesteps.tolist() == pytest.approx(notes[steps])
    scheduler = make_scheduler("sde-dpmsolver++", schedule)
    set_steps(scheduler, 20)
    assert scheduler.sigmas.tolist() == pytest.approx(notes["dpm_sigmas_20"])
    for field in (field for field in notes if field.startswith("triangle_cfg_")):
        num_views, smallest, largest = re.fullmatch(r"triangle_cfg_V(\d+)_([\d.]+)_to_([\d.]+)", field).groups()  # type: ignore[union-attr]
        found = guidance_per_view(float(largest), int(num_views), triangle=True, smallest=float(smallest))
        assert found.tolist() == notes[field]
    levels = NoiseLevels.of_diffusion(make_scheduler("ddim", schedule))
    assert {round(value, 5) for value in notes["snr"]} <= {round(value, 5) for value in levels.snr.tolist()}


def recorded_steps() -> list[str]:
    if not reference_files("train_step.safetensors"):
        return []
    tensors = read_reference("train_step.safetensors").tensors
    return sorted({key.split(".")[0] for key in tensors if not key.startswith("in.")})


@pytest.mark.parametrize("name", recorded_steps())
def test_recorded_training_steps(name: str):
    data = read_reference("train_step.safetensors")
    step = data.under(f"{name}.")
    words = name.split("_")
    pipe = read_reference("pipe_sd3.safetensors" if "sd3" in words else "pipe_sd.safetensors")
    image = "image" in words
    num_views = pipe["latents"].shape[0]
    sixteen = "16" if "sd3" in words else ""
    latents = data[f"in.latents{sixteen}"].unflatten(0, (-1, num_views))
    num = len(latents)
    text = TextCondition(embeds=data["in.prompt_embeds"], pooled=data["in.pooled"])
    negative = TextCondition(embeds=data["in.negative_prompt_embeds"], pooled=data["in.negative_pooled"])
    given = step["prompt_embeds"][:: len(step["prompt_embeds"]) // num]
    lost_text = (given == negative.embeds).flatten(1).all(dim=1)
    prob = dropout_of(data, name)
    dropped = dropped_conditions(step["random_p"], prob)
    assert dropped.text.tolist() == lost_text.tolist()
    conditions = without_text(text, negative, dropped.text)
    assert_close(conditions.embeds, given, MODELS, "text")
    clean_image = None
    if image:
        clean_image = data[f"in.image_latents{sixteen}"][:, 0].clone()
        clean_image[dropped.image] = 0
        assert_close(clean_image, step["image_latents"][:, 0], MODELS, "image latents")
    timesteps = step["timesteps"].unflatten(0, (num, -1))[:, 0]
    if "sd3" in words:
        levels = (1 - timesteps / 1000, timesteps / 1000)
        prediction = "flow"
    else:
        schedule = NoiseLevels.of_diffusion(make_scheduler("ddim", pipe.json("sched")))
        levels = (schedule.signal[timesteps], schedule.noise[timesteps])
        prediction = "v_prediction" if image else "epsilon"
    num_in = num_views + int(image)
    found = diffusion_step(
        denoiser_of(pipe, image=image), latents, step["noise"].unflatten(0, (num, -1)),
        signal_weight=levels[0], noise_weight=levels[1], timesteps=timesteps, prediction=prediction,  # type: ignore[arg-type]
        rays=data["in.plucker8"][: num * num_in].unflatten(0, (num, num_in)), text=conditions,
        image_latents=clean_image,
    )  # fmt: skip
    assert_close(found.noisy.flatten(0, 1), step["noisy_latents"], MODELS, "noisy latents")
    assert_close(found.network_input, step["latent_model_input"], MODELS, "network input")
    assert_close(found.predicted.flatten(0, 1), step["model_pred"], MODELS, "prediction")
    assert_close(found.target.flatten(0, 1), step["target"], MODELS, "target")
    # A recorded render loss was computed by a rasterizer that the file does not hold; the rest of the loss is this.
    assert_close(found.loss, step["loss"] - step.get("render_loss", torch.zeros(num)), MODELS, "loss")
    if "pred_original_latents" in step:
        scale = read_reference("pipe_sd.safetensors").json("vae")["scaling_factor"]
        assert_close(found.clean.flatten(0, 1) / scale, step["pred_original_latents"], MODELS, "clean latents")


def dropout_of(data, name: str) -> float:
    """The dropout that the recordings were made with: one that explains what each step dropped, in all of them."""
    for prob in (value / 100 for value in range(1, 34)):
        if all(explains(data, step, prob) for step in recorded_steps()):
            return prob
    raise AssertionError(f"no dropout explains what {name} dropped")


def explains(data, name: str, prob: float) -> bool:
    step = data.under(f"{name}.")
    num = len(step["random_p"])
    given = step["prompt_embeds"][:: len(step["prompt_embeds"]) // num]
    lost_text = (given == data["in.negative_prompt_embeds"]).flatten(1).all(dim=1)
    dropped = dropped_conditions(step["random_p"], prob)
    right = dropped.text.tolist() == lost_text.tolist()
    if "image_latents" in step:
        right = right and dropped.image.tolist() == (step["image_latents"] == 0).flatten(1).all(dim=1).tolist()
    return right
