"""Parity of the network and its parts with the reference data, whose sizes and settings are read from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from difix_model import DifixNetwork, NetworkConfig, VaeConfig, load_released
from difix_model.denoise import alphas_cumprod, ddpm_step, predict_clean
from difix_model.formats.checkpoint import empty_network
from difix_model.formats.published import published_parameters
from difix_model.formats.released import Released, initialize_from_base, layout_config
from difix_model.formats.released_pickle import load_pickle
from difix_model.reference_attention import ReferenceAttention

pytestmark = pytest.mark.reference

TOLERANCE = 1e-4


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0.0)


@pytest.fixture(scope="session")
def manifest(reference_data: Path) -> dict:
    return json.loads((reference_data / "model_manifest.json").read_text())


@pytest.fixture(scope="session")
def released(reference_data: Path) -> Released:
    return load_released(reference_data / "hf_repo_tiny", reference_attention=True)


@pytest.fixture(scope="session")
def stock_released(reference_data: Path) -> Released:
    return load_released(reference_data / "hf_repo_tiny")


@pytest.fixture(scope="session")
def model_data(reference_data: Path) -> dict[str, dict[str, Tensor]]:
    names = ("text", "scheduler", "block", "unet", "vae", "difix_forward")
    return {name: load_file(reference_data / "model" / f"{name}.safetensors") for name in names}


def test_variant_comes_from_the_model_index(reference_data: Path, stock_released: Released, tmp_path: Path) -> None:
    assert not stock_released.network.config.reference_attention
    for item in (reference_data / "hf_repo_tiny").iterdir():
        if item.is_dir():
            (tmp_path / item.name).symlink_to(item)
    (tmp_path / "model_index.json").write_bytes((reference_data / "hf_repo_tiny/model_index.ref.json").read_bytes())
    assert load_released(tmp_path).network.config.reference_attention


def test_text_embeddings(released: Released, manifest: dict, model_data: dict) -> None:
    data = model_data["text"]
    for number, prompt in manifest["text_prompts"].items():
        prompt = "degradation " * 90 if prompt == "'degradation ' * 90" else prompt
        assert torch.equal(released.text_encoder.token_ids(prompt), data[f"ids_{number}"][0].long())
        assert_close(released.text_encoder(prompt), data[f"last_hidden_state_{number}"][0])


def test_closed_form_equals_the_scheduler(model_data: dict) -> None:
    data = model_data["scheduler"]
    assert_close(alphas_cumprod(), data["alphas_cumprod"], 1e-6)
    z, noise = data["x_t"], data["eps"]
    tested = [
        int(name.removeprefix("custom_t").removesuffix("_x0"))
        for name in data
        if name.endswith("_x0") and "custom" in name
    ]
    assert tested
    for timestep in tested:
        scale = float(data[f"custom_t{timestep}_x0"].abs().max())
        assert_close(predict_clean(z, noise, timestep), data[f"custom_t{timestep}_x0"], 1e-5 * scale)
        assert_close(ddpm_step(z, noise, timestep, -1), data[f"custom_t{timestep}_prev"], 1e-5 * scale)
        assert_close(predict_clean(z, noise, timestep), data[f"onestep_t{timestep}_prev"], 1e-5 * scale)


def test_two_step_sampling(model_data: dict) -> None:
    data = model_data["scheduler"]
    prefix = next(name for name in data if name.startswith("multi_") and name.endswith("_prev")).removesuffix("_prev")
    first, second = (int(t) for t in prefix.removeprefix("multi_").split("_to_"))
    stepped = ddpm_step(data["x_t"], data["eps"], first, second, data[f"{prefix}_noise"])
    assert_close(stepped, data[f"{prefix}_prev"])


def test_transformer_block(manifest: dict, model_data: dict) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    data, config = model_data["block"], manifest["cases"]["block"]
    block = BasicTransformerBlock(
        config["dim"],
        config["num_attention_heads"],
        config["attention_head_dim"],
        cross_attention_dim=config["cross_attention_dim"],
    )
    weights = {name.removeprefix("weights."): value for name, value in data.items() if name.startswith("weights.")}
    block.load_state_dict(weights)
    block.eval()
    for attention in (block.attn1, block.attn2):
        assert attention is not None
        attention.set_processor(ReferenceAttention())  # type: ignore[arg-type]
    cases = {name.split(".")[0] for name in data if name.endswith(".out_mv")}
    assert cases
    for case in cases:
        num_views = int(case.split("v")[-1])
        for views, expected in ((num_views, "out_mv"), (1, "out_stock")):
            with torch.no_grad():
                out = block(
                    data[f"{case}.hidden_states"],
                    encoder_hidden_states=data[f"{case}.encoder_hidden_states"],
                    cross_attention_kwargs={"num_views": views},
                )
            assert_close(out, data[f"{case}.{expected}"])


def test_unet(released: Released, manifest: dict, model_data: dict) -> None:
    data = model_data["unet"]
    cases = {name.removeprefix("unet/"): case for name, case in manifest["cases"].items() if name.startswith("unet/")}
    assert cases
    for name, case in cases.items():
        with torch.no_grad():
            out = released.network.unet(
                data[f"{name}.sample"],
                case["timestep"],
                encoder_hidden_states=data[f"{name}.encoder_hidden_states"],
                cross_attention_kwargs={"num_views": case["V"] if case["mv"] else 1},
            ).sample
        assert_close(out, data[f"{name}.out"])


def test_autoencoder(released: Released, model_data: dict) -> None:
    data = model_data["vae"]
    vae = released.network.vae
    with torch.no_grad():
        encoded = vae.encode(data["x"])
        decoded = vae.decode(data["z"], encoded.skips)
    assert_close(encoded.mean, data["posterior_mean"])
    assert_close(encoded.logvar, data["posterior_logvar"])
    for index, skip in enumerate(encoded.skips):
        assert_close(skip, data[f"skip_act_{index}"])
    assert f"skip_act_{len(encoded.skips)}" not in data
    assert_close(decoded, data["decoded"])


@pytest.mark.parametrize("expected", ["decoded_gamma0.5", "decoded_ignore_skip", "decoded_stock_vae_no_lora_no_skip"])
def test_autoencoder_variants(reference_data: Path, model_data: dict, expected: str) -> None:
    import dataclasses

    data = model_data["vae"]
    network = load_released(reference_data / "hf_repo_tiny").network
    vae = network.vae
    if expected == "decoded_gamma0.5":
        vae.config = dataclasses.replace(vae.config, gamma=0.5)
    elif expected == "decoded_ignore_skip":
        vae.config = dataclasses.replace(vae.config, ignore_skip=True)
    else:
        for name, parameter in vae.named_parameters():
            if "lora_B" in name or "skip_conv" in name:
                parameter.data.zero_()
    with torch.no_grad():
        assert_close(vae.decode(data["z"], vae.encode(data["x"]).skips), data[expected])


def test_merging_adapters_changes_nothing(reference_data: Path, model_data: dict) -> None:
    data = model_data["vae"]
    vae = load_released(reference_data / "hf_repo_tiny").network.merge_lora().vae
    assert not any("lora" in name for name in vae.state_dict())
    with torch.no_grad():
        assert_close(vae.decode(data["z"], vae.encode(data["x"]).skips), data["decoded"])


def test_forward(released: Released, stock_released: Released, manifest: dict, model_data: dict) -> None:
    data = model_data["difix_forward"]
    cases = {name.removeprefix("difix/"): case for name, case in manifest["cases"].items() if name.startswith("difix/")}
    assert cases
    for name, case in cases.items():
        network = (released if case["mv_unet"] else stock_released).network
        tokens = data[f"{name}.prompt_tokens"]
        with torch.no_grad():
            embedding = released.text_encoder.model(tokens.long())[0]
            x, noise = data[f"{name}.x"], data[f"{name}.posterior_noise"]
            encoded = network.encode(x, posterior_noise=noise)
            denoised = network.denoise(encoded, text_embedding=embedding, timestep=manifest["timestep"])
            output = network(x, text_embedding=embedding, timestep=manifest["timestep"], posterior_noise=noise)
            target = network(x, text_embedding=embedding, posterior_noise=noise, decode="target")
            unclamped = network(x, text_embedding=embedding, posterior_noise=noise, clamp=False)
        assert_close(encoded.z.flatten(0, 1), data[f"{name}.unet_in"])
        assert_close(denoised.z.flatten(0, 1), data[f"{name}.z_denoised"])
        assert_close(output, data[f"{name}.output"])
        assert_close(target, data[f"{name}.output"][:, :1])
        assert_close(unclamped.flatten(0, 1), data[f"{name}.decoded_unclamped"])


def test_pickle_of_the_released_trainer(reference_data: Path) -> None:
    data = load_file(reference_data / "train/model_2_eval.safetensors")
    facts = json.loads((reference_data / "train/model_2.json").read_text())
    loaded = load_pickle(reference_data / "train/model_2.pkl", base=reference_data / "hf_repo_tiny")
    config = loaded.network.config
    noise_shape = (
        data["x"].shape[0] * data["x"].shape[1],
        config.vae.latent_channels,
        data["x"].shape[-2] // config.vae.downscale_factor,
        data["x"].shape[-1] // config.vae.downscale_factor,
    )
    noise = torch.randn(noise_shape, generator=torch.Generator().manual_seed(facts["torch_manual_seed"]))
    with torch.no_grad():
        embedding = loaded.text_encoder.model(data["prompt_tokens"].long())[0]
        output = loaded.network(data["x"], text_embedding=embedding, posterior_noise=noise)
    assert_close(output, data["output"])


def test_fresh_network_has_the_released_initial_values(reference_data: Path) -> None:
    facts = json.loads((reference_data / "model/init_facts.json").read_text())
    fresh = initialize_from_base(
        reference_data / "hf_repo_tiny",
        lora_rank=layout_config(reference_data / "hf_repo_tiny", reference_attention=True).vae.lora_rank,
        generator=torch.Generator().manual_seed(0),
    )
    vae = fresh.network.vae
    assert set(vae.lora_targets()) == set(facts["peft_scaling"])
    scalings = {name: vae.get_submodule(name).scaling for name in facts["peft_scaling"]}
    assert scalings == facts["peft_scaling"]
    state = vae.state_dict()
    for name, (_, std) in facts["lora_A_std"].items():
        assert float(state[name].std()) == pytest.approx(std, rel=0.5)
    assert all(not value.any() for name, value in state.items() if "lora_B" in name)


def test_full_size_autoencoder_has_the_published_parameters(reference_data: Path) -> None:
    keys = reference_data.parent / "spec" / "hf_vae_state_dict_keys.json"
    if not keys.is_file():
        pytest.skip(f"the list of published parameter names is absent: {keys.name}")
    with torch.device("meta"):
        network = DifixNetwork(NetworkConfig())
    shapes = {name: list(value.shape) for name, value in network.vae.state_dict().items()}
    assert shapes == json.loads(keys.read_text())
    assert len(network.unet.state_dict()) == 686
    for merged in (False, True):
        # What is written in the published layout, whether the adapters were folded in or not.
        config = NetworkConfig(vae=VaeConfig(lora_rank=0)) if merged else NetworkConfig()
        written = published_parameters(empty_network(config))
        assert {name: list(value.shape) for name, value in written.vae.items()} == shapes
        expected = {name: list(value.shape) for name, value in network.unet.state_dict().items()}
        assert {name: list(value.shape) for name, value in written.unet.items()} == expected
        targets = json.loads((keys.parent / "vae_lora_target_modules.json").read_text())
        assert sorted(written.lora_targets) == sorted(targets)
    assert sum(parameter.numel() for parameter in network.unet.parameters()) == 865_910_724
