"""Every form of weights into every other: each opens again and computes the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from difix_model import (
    Checkpoint,
    DifixNetwork,
    DifixPipeline,
    GateConfig,
    InputError,
    NetworkConfig,
    WeightsMetadata,
    convert_checkpoint,
    embed_prompt,
    export_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from difix_model.config import PROMPT
from difix_model.formats.conversion import WeightsForm
from difix_model.formats.published import published_parameters
from difix_model.formats.released_pickle import OWN_KEY, PICKLE_KEYS, load_pickle
from difix_model.formats.sources import load_source

FORMS: tuple[WeightsForm, ...] = ("safetensors", "diffusers", "pkl")
METADATA = WeightsMetadata(
    license="MIT", origin="here", uses_reference=True, timestep=150, gate=GateConfig(max_change=0.4)
)


def opened(source: Path | str, **options: Any) -> DifixPipeline:
    return DifixPipeline.from_pretrained(source, **options)


def outputs(pipe: DifixPipeline) -> np.ndarray:
    rgb = np.random.default_rng(0).random((2, 24, 40, 3), dtype=np.float32)
    fixed = [pipe(rgb[0])]
    if pipe.uses_reference:
        fixed.append(pipe(rgb[0], rgb[1]))
    return np.stack(fixed)


def place(folder: Path, to: str, name: str = "out") -> Path:
    return folder / (f"{name}.pkl" if to == "pkl" else name)


@pytest.fixture
def stock_base(published_layout: Path, network: DifixNetwork, tmp_path: Path) -> Path:
    """SD-Turbo, as it were: the same encoders, an autoencoder without skips and adapters."""
    base = Path(shutil.copytree(published_layout, tmp_path / "base"))
    state = {n.replace(".base_layer", ""): v for n, v in network.vae.state_dict().items() if "lora" not in n}
    weights = {name: value for name, value in state.items() if "skip_conv" not in name}
    save_file(weights, base / "vae" / "diffusion_pytorch_model.safetensors")
    config = json.loads((base / "vae" / "config.json").read_text())
    for name in ("gamma", "ignore_skip", "lora_rank"):
        config.pop(name)
    (base / "vae" / "config.json").write_text(json.dumps(config))
    return base


@pytest.fixture
def sources(
    published_layout: Path, stock_base: Path, network: DifixNetwork, tmp_path: Path
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Weights of each form with what is needed to open them."""
    reference_layout = Path(shutil.copytree(published_layout, tmp_path / "layout_ref"))
    index = json.loads((reference_layout / "model_index.json").read_text())
    index["unet"][0] = "unet_2d_condition"
    (reference_layout / "model_index.json").write_text(json.dumps(index))
    trained = {name: value for name, value in network.vae.state_dict().items() if "lora" in name or "skip" in name}
    released = {
        "vae_lora_target_modules": network.vae.lora_targets(),
        "rank_vae": network.config.vae.lora_rank,
        "state_dict_unet": dict(network.unet.state_dict()),
        "state_dict_vae": trained,
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save(released, tmp_path / "model_7.pkl")
    save_checkpoint(
        tmp_path / "ours",
        network,
        text_embedding=embed_prompt(PROMPT, published_layout),
        prompt=PROMPT,
        metadata=METADATA,
    )
    return {
        "ours": (tmp_path / "ours", {}),
        "layout": (published_layout, {}),
        "layout with references": (reference_layout, {}),
        "pkl": (tmp_path / "model_7.pkl", {"base": stock_base}),
    }


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("form", ["ours", "layout with references", "pkl"])
def test_every_pair_gives_the_same_output(
    sources: dict[str, tuple[Path, dict[str, Any]]], form: str, to: WeightsForm, published_layout: Path, tmp_path: Path
) -> None:
    source, options = sources[form]
    before = opened(source, **options)
    expected = outputs(before)
    encoder: dict[str, Any] = {"base": published_layout} if form == "ours" and to == "diffusers" else {}
    out = convert_checkpoint(source, place(tmp_path, to), to=to, **options, **encoder)
    after = opened(out)
    np.testing.assert_array_equal(outputs(after), expected)
    assert (after.prompt, after.timestep, after.uses_reference) == (
        before.prompt,
        before.timestep,
        before.uses_reference,
    )
    # And back, from what was written alone.
    back = convert_checkpoint(out, tmp_path / "back", to="safetensors")
    np.testing.assert_array_equal(outputs(opened(back)), expected)
    assert load_checkpoint(back).metadata == before.metadata


def test_written_layout_is_the_published_one(
    sources: dict[str, tuple[Path, dict[str, Any]]], network: DifixNetwork, tmp_path: Path
) -> None:
    source, _ = sources["layout with references"]
    (source / "unet" / "unet_2d_condition.py").write_text("raise SystemExit('executed')")
    out = convert_checkpoint(source, tmp_path / "out", to="diffusers")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "README.md",
        "difix_model.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == "DifixPipeline"
    assert index["unet"] == ["unet_2d_condition", "UNet2DConditionModel"]
    assert index["vae"] == ["autoencoder_kl", "AutoencoderKL"]
    for part in ("unet", "vae"):
        given, written = (load_file(f / part / "diffusion_pytorch_model.safetensors") for f in (source, out))
        assert set(given) == set(written)
        assert all(torch.equal(given[name], written[name]) for name in given)
    names = set(load_file(out / "vae" / "diffusion_pytorch_model.safetensors"))
    assert {
        "decoder.skip_conv_1.base_layer.weight",
        "decoder.skip_conv_1.lora_A.vae_skip.weight",
        "decoder.skip_conv_4.lora_B.vae_skip.weight",
        "decoder.mid_block.attentions.0.to_out.0.base_layer.bias",
        "encoder.conv_in.weight",
    } <= names


@pytest.mark.reference
@pytest.mark.parametrize("to", FORMS)
def test_the_reference_repository(reference_data: Path, to: WeightsForm, tmp_path: Path) -> None:
    source = reference_data / "hf_repo_tiny"
    expected = outputs(opened(source, uses_reference=True))
    out = convert_checkpoint(source, place(tmp_path, to), to=to, uses_reference=True)
    np.testing.assert_array_equal(outputs(opened(out)), expected)
    if to == "diffusers":
        for name in ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "model_index.json"):
            given, written = (json.loads((folder / name).read_text()) for folder in (source, out))
            differing = {key for key in set(given) & set(written) if given[key] != written[key]}
            allowed = {"sample_size"} | ({"unet"} if name == "model_index.json" else set())
            assert differing <= allowed, name
        index = json.loads((source / "model_index.ref.json").read_text())
        assert json.loads((out / "model_index.json").read_text())["unet"] == index["unet"]


def test_written_pkl_is_what_the_released_code_reads(
    sources: dict[str, tuple[Path, dict[str, Any]]], stock_base: Path, network: DifixNetwork, tmp_path: Path
) -> None:
    out = convert_checkpoint(sources["ours"][0], tmp_path / "model_1.pkl", to="pkl")
    content = torch.load(out, weights_only=True)
    assert set(content) == {*PICKLE_KEYS, OWN_KEY}
    assert content["rank_vae"] == network.config.vae.lora_rank
    assert set(content["state_dict_unet"]) == set(network.unet.state_dict())
    trained = {name for name in network.vae.state_dict() if "lora" in name or "skip" in name}
    assert trained <= set(content["state_dict_vae"])
    content.pop(OWN_KEY)
    torch.save(content, tmp_path / "model_2.pkl")
    # As the released code does it: over a base, which may be another one, since the file holds everything.
    other = load_file(stock_base / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({n: v + 1 for n, v in other.items()}, stock_base / "vae" / "diffusion_pytorch_model.safetensors")
    loaded = load_pickle(tmp_path / "model_2.pkl", base=stock_base).network
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("to", FORMS)
def test_folded_and_unusual_networks_compute_the_same(published_layout: Path, to: WeightsForm, tmp_path: Path) -> None:
    given = load_source(published_layout, uses_reference=True)
    vae = dataclasses.replace(given.network.config.vae, lora_alpha=4.0)
    config: NetworkConfig = dataclasses.replace(given.network.config, vae=vae)
    scaled = DifixNetwork(config).eval()
    scaled.load_state_dict(given.network.state_dict())
    with torch.no_grad():
        scaled.add_unet_lora(rank=2, alpha=3.0)
        for name, parameter in scaled.unet.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    merged = load_source(published_layout, uses_reference=True).network.merge_lora()
    for number, network in enumerate((scaled, merged)):
        checkpoint = dataclasses.replace(given, network=network)
        out = place(tmp_path, to, f"out{number}")
        export_checkpoint(checkpoint, out, to=to, text_encoder=published_layout if to == "diffusers" else None)
        save_checkpoint(
            tmp_path / f"expected{number}", network, text_embedding=given.text_embedding, prompt=PROMPT,
            metadata=WeightsMetadata(uses_reference=True),
        )  # fmt: skip
        np.testing.assert_array_equal(outputs(opened(out)), outputs(opened(tmp_path / f"expected{number}")))


def test_a_network_without_adapters_gets_idle_ones(published_layout: Path) -> None:
    merged = load_source(published_layout).network.merge_lora()
    parameters = published_parameters(merged)
    assert parameters.config.vae.lora_rank == 4
    down = [value for name, value in parameters.vae.items() if ".lora_A." in name]
    up = [value for name, value in parameters.vae.items() if ".lora_B." in name]
    assert len(down) == len(up) == len(parameters.lora_targets)
    assert all(bool(value.any()) for value in down)
    assert not any(bool(value.any()) for value in up)


def test_half_precision_rounds_and_stays_close(sources: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    source, _ = sources["layout"]
    out = convert_checkpoint(source, tmp_path / "half", to="diffusers", dtype=torch.float16)
    tensors = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    difference = np.abs(outputs(opened(out)) - outputs(opened(source))).max()
    assert 0 < difference < 0.02


def test_the_embedded_weights(tmp_path: Path) -> None:
    expected = outputs(opened("default"))
    for to in ("safetensors", "pkl"):
        after = opened(convert_checkpoint("default", place(tmp_path, to), to=to))
        np.testing.assert_array_equal(outputs(after), expected)
        assert after.metadata.license == "Apache-2.0"
    with pytest.raises(InputError, match="such as stabilityai/sd-turbo"):
        convert_checkpoint("default", tmp_path / "layout", to="diffusers")
    assert not (tmp_path / "layout").exists()


def test_what_cannot_be_converted_is_said_in_a_sentence(
    sources: dict[str, tuple[Path, dict[str, Any]]], published_layout: Path, network: DifixNetwork, tmp_path: Path
) -> None:
    ours, layout, pkl = (sources[form][0] for form in ("ours", "layout", "pkl"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("ten years of work")
    save_checkpoint(tmp_path / "other", network, text_embedding=torch.randn(77, 16), prompt=PROMPT)
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: convert_checkpoint(ours, tmp_path / "out", to="diffusers"), "holds only the embedding"),
        (lambda: convert_checkpoint(pkl, tmp_path / "out", to="safetensors"), "name the base"),
        (lambda: convert_checkpoint(pkl, tmp_path / "out", to="diffusers"), "such as stabilityai/sd-turbo"),
        (lambda: convert_checkpoint(ours, tmp_path / "out", to="safetensors", base=layout), "leave it out"),
        (lambda: convert_checkpoint(ours, tmp_path / "taken", to="safetensors"), "exists: give another place"),
        (lambda: convert_checkpoint(ours, ours, to="safetensors"), "exists: give another place"),
        (lambda: convert_checkpoint(layout, tmp_path / "model", to="pkl"), r"must end in \.pkl"),
        (lambda: convert_checkpoint(ours, tmp_path / "out", to="safetensors", revision="v1"), "no revision v1"),
        (lambda: convert_checkpoint(ours, tmp_path / "taken" / "thesis.tex" / "x", to="safetensors"), "cannot write"),
        (
            lambda: convert_checkpoint(tmp_path / "other", tmp_path / "out", to="diffusers", base=published_layout),
            "does not give the embedding",
        ),
        (lambda: export_checkpoint(load_source(layout), tmp_path / "out", to="diffusers"), "text encoder"),
    ]
    for convert, message in refused:
        with pytest.raises(InputError, match=message) as caught:
            convert()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.tex"]
    assert not [path for path in tmp_path.iterdir() if ".partial" in path.name]


def test_a_scaled_skip_is_kept_or_refused(published_layout: Path, tmp_path: Path) -> None:
    given = load_source(published_layout)
    config = dataclasses.replace(given.network.config, vae=dataclasses.replace(given.network.config.vae, gamma=0.5))
    network = DifixNetwork(config).eval()
    network.load_state_dict(given.network.state_dict())
    checkpoint: Checkpoint = dataclasses.replace(given, network=network)
    with pytest.raises(InputError, match=r"scaled by 0\.5"):
        export_checkpoint(checkpoint, tmp_path / "a.pkl", to="pkl")
    out = export_checkpoint(checkpoint, tmp_path / "a", to="diffusers", text_encoder=published_layout)
    assert load_source(out).network.config.vae.gamma == 0.5
