"""Saved pipelines: the same bits after loading, a model card with the license, and no crash that loses weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import Tensor

from difix_model import DifixNetwork, DifixPipeline, GateConfig, InputError, load_checkpoint, save_checkpoint
from difix_model.formats import checkpoint as checkpoint_module
from difix_model.formats.sources import load_source
from output_files import flush_alone


def image() -> np.ndarray:
    return np.random.default_rng(0).random((24, 40, 3), dtype=np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_pipeline_loads_to_the_same_bits(checkpoint_folder: Path, dtype: torch.dtype, tmp_path: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder, dtype=dtype)
    for _ in range(2):  # The second save replaces the first.
        pipe.save_pretrained(tmp_path / "saved")
    again = DifixPipeline.from_pretrained(tmp_path / "saved", dtype=dtype)
    np.testing.assert_array_equal(again(image(), image()[::-1]), pipe(image(), image()[::-1]))
    assert again.metadata == replace(pipe.metadata, uses_reference=True)
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    stored = {value.dtype for value in load_file(tmp_path / "saved" / "model.safetensors").values()}
    assert stored == {dtype}


def card_of(folder: Path, **metadata: Any) -> ModelCard:
    checkpoint = load_source(folder)
    changed = replace(checkpoint, metadata=replace(checkpoint.metadata, **metadata))
    DifixPipeline(changed).save_pretrained(folder.parent / "saved")
    return ModelCard.load(folder.parent / "saved" / "README.md")


def card_data(card: ModelCard) -> dict[str, Any]:
    return card.data.to_dict()


def test_the_card_carries_the_license(published_layout: Path, tmp_path: Path) -> None:
    layout = Path(shutil.copytree(published_layout, tmp_path / "layout"))
    card = card_of(layout)
    assert card_data(card)["license"] == "unknown"
    assert "license of these weights is not known" in card.text
    index = json.loads((layout / "model_index.json").read_text())
    (layout / "model_index.json").write_text(json.dumps(index | {"_name_or_path": "nvidia/difix"}))
    card = card_of(layout)
    assert (card_data(card)["license"], card_data(card)["library_name"]) == ("other", "difix-model")
    assert "**NVIDIA License (non-commercial use only) and Stability AI Community License**" in card.text
    # Saved again, and again from there, it is still the same.
    again = DifixPipeline.from_pretrained(tmp_path / "saved")
    again.save_pretrained(tmp_path / "saved2")
    assert "NVIDIA License" in (tmp_path / "saved2" / "README.md").read_text()
    (layout / "model_index.json").write_text(json.dumps(index))
    (layout / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nMine\n")
    assert card_data(card_of(layout))["license"] == "cc-by-4.0"
    DifixPipeline.from_pretrained("default").save_pretrained(tmp_path / "saved3")
    embedded = ModelCard.load(tmp_path / "saved3" / "README.md")
    assert card_data(embedded)["license"] == "apache-2.0"
    assert "difix-small" in embedded.text


def test_the_card_says_what_the_weights_are(checkpoint_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_folder, tmp_path / "a"))
    card = card_of(folder, origin="a | b", timestep=150, gate=GateConfig(strength=0.5), uses_reference=False)
    count = sum(p.numel() for p in load_checkpoint(folder.parent / "saved").network.parameters())
    for part in (
        'DifixPipeline.from_pretrained("saved")',
        "pipe(rendered)",
        '"remove degradation"',
        "| timestep | 150 |",
        "a \\| b",
        '"strength": 0.5, "detail_strength": 1.0',
        "not known; do not pass any",
        f"{count / 1e6:,.1f} million, {count * 4 / 2**20:,.1f} MiB",
    ):
        assert part in card.text, part
    assert "difix" in card_data(card)["tags"]


class _KilledError(BaseException):
    """Stands for the process's end: nothing but `finally` runs after it."""


@pytest.mark.parametrize("at", range(1, 3))
def test_a_kill_between_the_moves_leaves_a_checkpoint(
    network: DifixNetwork, text_embedding: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def save(prompt: str) -> None:
        save_checkpoint(tmp_path, network, text_embedding=text_embedding, prompt=prompt)

    save("old")
    moves, replace = [], Path.replace

    def dying(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == at:
            raise _KilledError
        return replace(path, target)

    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(_KilledError):
        save("new")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).prompt == ("old" if at == 1 else "new")
    save("newest")
    assert load_checkpoint(tmp_path).prompt == "newest"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_files_are_flushed_before_they_are_moved(
    network: DifixNetwork, text_embedding: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(
        checkpoint_module, "flush_alone", lambda path: (done.append(f"flush {path.name}"), flush_alone(path))
    )
    monkeypatch.setattr(Path, "replace", lambda p, to: (done.append(f"move {to.name}"), replace(p, to))[1])
    save_checkpoint(tmp_path, network, text_embedding=text_embedding, prompt="p")
    first_move = next(i for i, entry in enumerate(done) if entry.startswith("move"))
    assert sum("partial" in entry for entry in done[:first_move]) == 2
    assert done[-1] == f"flush {tmp_path.name}"


def test_a_flipped_bit_is_noticed(checkpoint_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        load_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("tensors_sha256")  # As checkpoints of earlier versions are.
    (folder / "config.json").write_text(json.dumps(config))
    load_checkpoint(folder)


def test_a_repository_with_half_of_its_files_is_named(published_layout: Path, tmp_path: Path) -> None:
    layout = Path(shutil.copytree(published_layout, tmp_path / "layout"))
    (layout / "difix_model.json").write_text('{"metadata": 3}')
    with pytest.raises(InputError, match=r"difix_model\.json"):
        load_source(layout)
    (layout / "difix_model.json").unlink()
    weights = layout / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"x": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="missing unet"):
        load_source(layout)
    weights.unlink()
    with pytest.raises(InputError, match="does not exist"):
        load_source(layout)
