"""Our checkpoint folder: round trips, strictness, and what is said of damaged ones."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from difix_model import DifixNetwork, GateConfig, InputError, WeightsMetadata, load_checkpoint, save_checkpoint
from difix_model.gate.config import EvidenceConfig


@pytest.fixture
def folder(checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))


def test_round_trip_is_bitwise(network: DifixNetwork, text_embedding: Tensor, tmp_path: Path) -> None:
    gate = GateConfig(trusted_change=0.5, evidence=EvidenceConfig(cells=16))
    metadata = WeightsMetadata(gate=gate, uses_reference=True, origin="here", notes={"seed": 3})
    save_checkpoint(tmp_path / "a" / "b", network, text_embedding=text_embedding, prompt="tidy up", metadata=metadata)
    loaded = load_checkpoint(tmp_path / "a" / "b")
    assert loaded.prompt == "tidy up"
    assert loaded.metadata == metadata
    assert loaded.network.config == network.config
    assert torch.equal(loaded.text_embedding, text_embedding)
    assert {n: p.requires_grad for n, p in loaded.network.named_parameters()} == {
        n: p.requires_grad for n, p in network.named_parameters()
    }
    x = torch.rand(1, 2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        assert torch.equal(
            loaded.network(x, text_embedding=loaded.text_embedding), network(x, text_embedding=text_embedding)
        )


def test_saving_twice_gives_the_same_bytes_and_leaves_other_files_alone(
    network: DifixNetwork, text_embedding: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("a model card")
    contents = []
    for _ in range(2):
        save_checkpoint(tmp_path, network, text_embedding=text_embedding, prompt="p")
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"README.md", "config.json", "model.safetensors"}


def test_half_precision_on_disk(network: DifixNetwork, text_embedding: Tensor, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, network, text_embedding=text_embedding, prompt="p", dtype=torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    loaded = load_checkpoint(tmp_path).network
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_missing_unexpected_and_misshapen_parameters_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(path)
    tensors.pop("network.unet.conv_in.weight")
    tensors["network.surplus"] = torch.zeros(1)
    tensors["network.unet.conv_in.bias"] = torch.zeros(5)
    save_file(tensors, path, metadata={"save_id": config["save_id"]})
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    for part in ("missing unet.conv_in.weight", "unexpected surplus", "unet.conv_in.bias has the shape (5,)"):
        assert part in str(caught.value)


def test_files_of_two_saves_are_not_mixed(folder: Path, network: DifixNetwork, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "other", network, text_embedding=torch.zeros(7, 16), prompt="another")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(InputError, match="different saves"):
        load_checkpoint(folder)


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["cut", "emptied", "removed", "garbage"])
def test_damaged_files_are_named(folder: Path, damaged: str, how: str) -> None:
    path = folder / damaged
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "garbage": b"\xff" * 1000}[how])
    with pytest.raises(InputError, match=damaged):
        load_checkpoint(folder)


def test_other_formats_versions_and_places_are_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(InputError, match="format version 99"):
        load_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="not a difix-model checkpoint"):
        load_checkpoint(folder)
    with pytest.raises(InputError, match="no checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_file_where_the_folder_should_be_is_an_input_error(network: DifixNetwork, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "taken", network, text_embedding=torch.zeros(7, 16), prompt="p")


def test_files_of_two_saves_do_not_go_together(network: DifixNetwork, text_embedding: Tensor, tmp_path: Path) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    for name, saved in (("one", network), ("two", other)):
        save_checkpoint(tmp_path / name, saved, text_embedding=text_embedding, prompt="p")
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(InputError, match="one"):
        load_checkpoint(tmp_path / "one")
