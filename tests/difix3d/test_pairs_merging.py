"""Several folders of pairs become one file and one card, unless they contradict each other."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from difix3d import InputError, PairsConfig, generated_sources, make_pairs, open_pairs_folder, publish_pairs
from difix3d.pairs.merge import merge_pairs
from difix_model import read_pairs

CONFIG = PairsConfig(strategies=("corrupted",), max_size=48, num_views=4, corruptions_per_view=1, test_scenes=())


def made(out: Path, first_seed: int, config: PairsConfig = CONFIG, num_scenes: int = 2) -> Path:
    open_pairs_folder(out, config)
    errors = {o.name: o.error for o in make_pairs(generated_sources(num_scenes, first_seed, config), out, config)}
    publish_pairs(out, config, {})
    assert set(errors.values()) == {None}
    return out


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("parts")
    first = dataclasses.replace(CONFIG, test_scenes=("generated_00040",))
    return made(root / "a", 40, first), made(root / "b", 50, dataclasses.replace(CONFIG, test_fraction=0))


def test_merged_pairs_are_those_of_the_parts(parts: tuple[Path, Path], tmp_path: Path) -> None:
    card = merge_pairs(parts, tmp_path / "c")
    expected = [record for part in parts for record in read_pairs(part / "pairs.json")]
    found = read_pairs(tmp_path / "c" / "pairs.json")
    assert {(r.id, r.split, r.image.resolve()) for r in found} == {(r.id, r.split, r.image.resolve()) for r in expected}
    data = json.loads((tmp_path / "c" / "pairs.json").read_text(encoding="utf-8"))
    assert not any(Path(sample["image"]).is_absolute() for split in data.values() for sample in split.values())
    assert card == json.loads((tmp_path / "c" / "card.json").read_text(encoding="utf-8"))
    assert card["merged_from"] == ["a", "b"]
    assert card["num_pairs"] == len(found) == 16
    assert card["splits"]["test"] == {"scenes": ["generated_00040"], "pairs": 4}
    singles = [json.loads((part / "card.json").read_text(encoding="utf-8")) for part in parts]
    bins = [single["strategies"]["corrupted"]["psnr_bins"] for single in singles]
    assert card["strategies"]["corrupted"]["psnr_bins"] == [a + b for a, b in zip(*bins, strict=True)]
    assert len(card["settings"]) == 2
    assert "Merged from `a`, `b`" in (tmp_path / "c" / "CARD.md").read_text(encoding="utf-8")
    # Merging again replaces the result; other pairs are not written over.
    assert merge_pairs(parts, tmp_path / "c") == card
    with pytest.raises(InputError, match="do not come from merging"):
        merge_pairs([tmp_path / "c", parts[0]], parts[1])


def test_pairs_without_a_card_are_counted_from_their_images(parts: tuple[Path, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(parts[1], bare)
    (bare / "card.json").unlink()
    card = merge_pairs([parts[0], bare], tmp_path / "c")
    whole = merge_pairs(parts, tmp_path / "d")
    assert card["strategies"] == whole["strategies"]
    assert card["splits"] == whole["splits"]
    assert card["kinds"] == {"generated": 2, "unknown": 2}


def test_pairs_of_one_name_are_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(parts[0], copy)
    with pytest.raises(InputError, match="8 pairs have the name of another: generated_0004"):
        merge_pairs([parts[0], copy], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_scene_in_both_splits_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    # Other pairs of a scene that is for testing in the first part.
    more = dataclasses.replace(CONFIG, strategies=("sparse",), max_steps=10, test_fraction=0)
    other = made(tmp_path / "more", 40, more, num_scenes=1)
    with pytest.raises(InputError, match=r"scene generated_00040 is for test in .*, for train in .*more"):
        merge_pairs([parts[0], other], tmp_path / "c")


def test_a_photo_in_both_splits_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    data = json.loads((parts[0] / "pairs.json").read_text(encoding="utf-8"))
    samples = {f"other_{key}": value for key, value in data["test"].items()}
    for sample in samples.values():
        sample |= {key: str((parts[0] / sample[key]).resolve()) for key in ("image", "target_image", "ref_image")}
    (tmp_path / "pairs.json").write_text(json.dumps({"train": samples}), encoding="utf-8")
    with pytest.raises(InputError, match=r"photo .* is for test in"):
        merge_pairs([parts[0], tmp_path], tmp_path / "c")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "nowhere"]])
def test_folders_that_cannot_be_merged_are_refused(parts: tuple[Path, Path], names: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"two or more different|cannot read the pairs file"):
        merge_pairs([parts[0].parent / name for name in names], tmp_path / "c")
