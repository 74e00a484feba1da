"""Published layouts and trainer files, on a tiny repository that is built in conftest.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from difix_model import DifixNetwork, DifixPipeline, InputError, load_released, tiny_config
from difix_model.config import PROMPT
from difix_model.formats.released import initialize_from_base
from difix_model.formats.released_pickle import load_pickle
from difix_model.formats.sources import load_source


@pytest.fixture
def layout(published_layout: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published_layout, tmp_path / "layout"))


@pytest.fixture
def stock_base(layout: Path, network: DifixNetwork) -> Path:
    """The layout as SD-Turbo would be: the autoencoder without skips and adapters."""
    vae = layout / "vae"
    state = {n.replace(".base_layer", ""): v for n, v in network.vae.state_dict().items() if "lora" not in n}
    weights = {name: value for name, value in state.items() if "skip_conv" not in name}
    save_file(weights, vae / "diffusion_pytorch_model.safetensors")
    config = json.loads((vae / "config.json").read_text())
    stock = {name: value for name, value in config.items() if name not in ("gamma", "ignore_skip", "lora_rank")}
    (vae / "config.json").write_text(json.dumps(stock))
    return layout


def trainer_state(network: DifixNetwork) -> dict:
    vae = {name: value for name, value in network.vae.state_dict().items() if "lora" in name or "skip" in name}
    return {
        "vae_lora_target_modules": network.vae.lora_targets(),
        "rank_vae": network.config.vae.lora_rank,
        "state_dict_unet": dict(network.unet.state_dict()),
        "state_dict_vae": vae,
        "optimizer": {"state": {}, "param_groups": []},
    }


def assert_same_parameters(actual: DifixNetwork, expected: DifixNetwork) -> None:
    ours, theirs = actual.state_dict(), expected.state_dict()
    assert set(ours) == set(theirs)
    assert not [name for name, value in theirs.items() if not torch.equal(ours[name], value)]


def test_layout(layout: Path, network: DifixNetwork) -> None:
    released = load_released(layout)
    assert released.network.config == tiny_config(reference_attention=False)
    assert_same_parameters(released.network, network)


def test_the_variant_comes_from_the_index_or_the_caller(layout: Path) -> None:
    index = json.loads((layout / "model_index.json").read_text())
    index["unet"][0] = "unet_2d_condition"
    (layout / "model_index.json").write_text(json.dumps(index))
    assert load_released(layout).network.config.reference_attention
    assert not load_released(layout, reference_attention=False).network.config.reference_attention
    assert load_source(layout).metadata.uses_reference


def test_trainer_file_over_a_stock_base(stock_base: Path, network: DifixNetwork, tmp_path: Path) -> None:
    torch.save(trainer_state(network), tmp_path / "model_7.pkl")
    assert_same_parameters(load_pickle(tmp_path / "model_7.pkl", base=stock_base).network, network)
    pipeline = DifixPipeline.from_pretrained(tmp_path / "model_7.pkl", base=stock_base)
    assert pipeline.uses_reference
    with pytest.raises(InputError, match="base"):
        DifixPipeline.from_pretrained(tmp_path / "model_7.pkl")


def test_trainer_file_over_a_published_base(layout: Path, network: DifixNetwork, tmp_path: Path) -> None:
    torch.save(trainer_state(network), tmp_path / "model_7.pkl")
    assert_same_parameters(load_pickle(tmp_path / "model_7.pkl", base=layout).network, network)


def test_fresh_network_from_a_stock_base(stock_base: Path, network: DifixNetwork) -> None:
    fresh = initialize_from_base(stock_base, lora_rank=3, generator=torch.Generator().manual_seed(0)).network
    assert fresh.config.vae.lora_rank == 3
    state = fresh.state_dict()
    base_layer = "vae.decoder.conv_in.base_layer.weight"
    assert torch.equal(state[base_layer], network.state_dict()[base_layer])
    skips = [value for name, value in state.items() if "skip_conv" in name and "base" in name]
    assert len(skips) == len(fresh.config.vae.block_out_channels)
    assert all(float(value.min()) == float(value.max()) == pytest.approx(1e-5) for value in skips)
    again = initialize_from_base(stock_base, lora_rank=3, generator=torch.Generator().manual_seed(0)).network
    assert_same_parameters(again, fresh)


def test_a_stock_repository_alone_is_no_fixer(stock_base: Path) -> None:
    with pytest.raises(InputError, match="no Difix weights"):
        load_released(stock_base)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_missing_and_unexpected_parameters_are_errors(layout: Path, part: str) -> None:
    path = layout / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    removed = sorted(tensors)[-1]
    value = tensors.pop(removed)
    save_file(tensors | {"surplus": value}, path)
    with pytest.raises(InputError) as caught:
        load_released(layout)
    assert f"missing {part}.{removed}" in str(caught.value)
    assert f"unexpected {part}.surplus" in str(caught.value)


def test_pickles_that_are_damaged_or_something_else_are_refused(layout: Path, tmp_path: Path) -> None:
    path = tmp_path / "model_1.pkl"
    for content in (b"", b"\xff" * 500, b"PK\x03\x04 not really"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"model_1\.pkl"):
            load_pickle(path, base=layout)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="rank_vae"):
        load_pickle(path, base=layout)
    with pytest.raises(InputError, match="does not exist"):
        load_pickle(tmp_path / "absent.pkl", base=layout)


def test_partial_trainer_files_are_refused(layout: Path, network: DifixNetwork, tmp_path: Path) -> None:
    state = trainer_state(network)
    state["state_dict_unet"] = {"conv_in.weight": network.unet.conv_in.weight.detach()}
    torch.save(state, tmp_path / "model_1.pkl")
    with pytest.raises(InputError, match=r"missing unet\.conv_in\.bias"):
        load_pickle(tmp_path / "model_1.pkl", base=layout)


def test_architectures_that_are_not_difix_are_refused(layout: Path) -> None:
    path = layout / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_embed_type": "timestep"}))
    with pytest.raises(InputError, match="class_embed_type"):
        load_released(layout)


def test_a_layout_that_lacks_parts_is_refused(layout: Path) -> None:
    shutil.rmtree(layout / "tokenizer")
    with pytest.raises(InputError, match="tokenizer"):
        load_released(layout)
    (layout / "model_index.json").unlink()
    with pytest.raises(InputError, match="neither a checkpoint folder nor"):
        load_source(layout)


def test_prompts_are_embedded_by_the_layout(layout: Path) -> None:
    default, other = load_source(layout), load_source(layout, prompt="something else")
    assert (default.prompt, other.prompt) == (PROMPT, "something else")
    assert not torch.allclose(default.text_embedding, other.text_embedding)


def test_sources_that_are_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder"):
        load_source(tmp_path / "a" / "b" / "c")
    with pytest.raises(InputError, match="hub repository of that name cannot be had"):
        load_source("no-one-at-all/no-such-weights")
    with pytest.raises(InputError, match="base goes with"):
        load_source(tmp_path, base="x")


def test_code_in_the_repository_is_not_executed(layout: Path, tmp_path: Path) -> None:
    for part in ("vae/autoencoder_kl.py", "unet/unet_2d_condition.py"):
        (layout / part).write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    load_released(layout)
    assert not (tmp_path / "executed").exists()


def test_pickles_that_hold_objects_are_refused(layout: Path, network: DifixNetwork, tmp_path: Path) -> None:
    torch.save(trainer_state(network) | {"args": Path("anything")}, tmp_path / "model_1.pkl")
    with pytest.raises(InputError, match="more than tensors"):
        load_pickle(tmp_path / "model_1.pkl", base=layout)


def test_hub_repositories_are_found_in_the_cache(
    published_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: DifixNetwork
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--someone--tiny-difix"
    shutil.copytree(published_layout, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same_parameters(load_released("someone/tiny-difix").network, network)
