"""The pairs file: round trips and complete lists of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difix_model import InputError, PairRecord, read_pairs, write_pairs


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{i}.png" for i in range(4)]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"")
    return paths


def record(images: list[Path], name: str = "a", split: str = "train", **changes) -> PairRecord:
    values = {"image": images[0], "target_image": images[1], "ref_image": images[2], "prompt": "p"} | changes
    return PairRecord(id=name, split=split, **values)


def test_round_trip_survives_moving_the_folder(images: list[Path], tmp_path: Path) -> None:
    records = [record(images), record(images, "b", ref_image=None), record(images, "a", "test", prompt="q")]
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "images").rename(folder / "images")
    moved = [folder / "images" / path.name for path in images]
    records = [record(moved), record(moved, "b", ref_image=None), record(moved, "a", "test", prompt="q")]
    write_pairs(folder / "pairs.json", records)
    assert read_pairs(folder / "pairs.json") == records
    assert str(tmp_path) not in (folder / "pairs.json").read_text()
    folder.rename(tmp_path / "elsewhere")
    found = read_pairs(tmp_path / "elsewhere" / "pairs.json")
    assert [item.image for item in found] == [tmp_path / "elsewhere" / "images" / "0.png"] * 3


def test_every_problem_is_named_up_to_ten(images: list[Path], tmp_path: Path) -> None:
    good = {"image": "images/0.png", "target_image": "images/1.png", "prompt": "p"}
    samples = {
        "gone": good | {"image": "images/gone.png", "ref_image": "images/lost.png"},
        "short": {"image": "images/0.png"},
        "odd": good | {"weight": 3},
        "number": good | {"prompt": 3},
        "list": [],
    }
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"train": samples, "validation": {}}))
    with pytest.raises(InputError) as caught:
        read_pairs(path)
    message = str(caught.value)
    parts = ["images/gone.png", "images/lost.png", 'train/short lacks "target_image"', 'train/short lacks "prompt"']
    parts += ['unknown key "weight"', '"prompt" must be text', "train/list must be an object", "validation"]
    assert not [part for part in parts if part not in message]
    path.write_text(json.dumps({"train": {str(i): good | {"image": f"{i}.png"} for i in range(25)}}))
    with pytest.raises(InputError, match=r"25 problem.*train/9: no file 9\.png; and 15 more"):
        read_pairs(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"train": {}}', '{"train": []}'])
def test_files_that_are_no_pairs(content: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"pairs\.json"):
        read_pairs(path)


def test_absent_files_and_double_names(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_pairs(tmp_path / "absent.json")
    with pytest.raises(InputError, match='two train samples are named "a"'):
        write_pairs(tmp_path / "pairs.json", [record(images), record(images)])
    assert not (tmp_path / "pairs.json").exists()


@pytest.mark.reference
def test_released_form(reference_data: Path) -> None:
    records = read_pairs(reference_data / "dataset" / "data.json")
    data = json.loads((reference_data / "dataset" / "data.json").read_text())
    assert [(item.split, item.id) for item in records] == [(s, i) for s in ("train", "test") for i in data[s]]
    assert [item.ref_image is not None for item in records] == [
        "ref_image" in data[s][i] for s in ("train", "test") for i in data[s]
    ]
