"""Many scenes: in processes or on Ray the files are the same; failures and interruptions cost nothing else."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from difix3d import InputError, PairsConfig, generated_sources, make_pairs, open_pairs_folder, publish_pairs
from difix3d.pairs.corrupted import corrupted_pairs
from difix3d.pairs.make import MAKERS, finished_scenes, is_finished
from difix3d.pairs.run import SceneOutcome, check_visible, locked
from difix3d.pairs.sources import CapturedSource, SceneSource
from difix_model import read_pairs

CONFIG = PairsConfig(
    strategies=("sparse", "corrupted"),
    max_size=48,
    num_views=6,
    max_steps=10,
    sparse_at=(1.0,),
    targets_per_render=2,
    max_sparse_views=4,
    corruptions_per_view=1,
    test_fraction=0.5,
)
NUM_SCENES = 4


def made(out: Path, sources: list[SceneSource], **options: Any) -> dict[str, str | None]:
    """Make the scenes and publish them; returns the error of each."""
    open_pairs_folder(out, CONFIG)
    errors = {outcome.name: outcome.error for outcome in make_pairs(sources, out, CONFIG, **options)}
    publish_pairs(out, CONFIG, {name: error for name, error in sorted(errors.items()) if error})
    return errors


def files(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes made one after another in this process."""
    out = tmp_path_factory.mktemp("alone")
    assert set(made(out, generated_sources(NUM_SCENES, 40, CONFIG)).values()) == {None}
    return out


class Deadly:
    """A source that kills the process that receives it, as a machine does that runs out of memory."""

    name, kind = "deadly", "captured"

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGKILL,)

    def load(self) -> Any: ...

    def num_unregistered(self, scene: Any) -> int:
        return 0


def test_a_scene_is_never_in_both_splits(alone: Path) -> None:
    splits: dict[str, set[str]] = {}
    for record in read_pairs(alone / "pairs.json"):
        splits.setdefault(record.id.split("/")[0], set()).add(record.split)
        # What it shows is from the same scene, too.
        assert {path.relative_to(alone).parts[0] for path in record.paths()} == {record.id.split("/")[0]}
    assert len(splits) == NUM_SCENES
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "test"}


def test_paths_are_relative_and_the_folder_can_move(alone: Path, tmp_path: Path) -> None:
    data = json.loads((alone / "pairs.json").read_text(encoding="utf-8"))
    paths = [sample[key] for split in data.values() for sample in split.values() for key in ("image", "ref_image")]
    assert paths
    assert not any(Path(path).is_absolute() or ".." in path for path in paths)
    before = len(read_pairs(alone / "pairs.json"))
    moved = tmp_path / "moved"
    alone.rename(moved)
    try:
        assert len(read_pairs(moved / "pairs.json")) == before
    finally:
        moved.rename(alone)


def test_processes_make_the_same_files_and_outlive_what_fails(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    broken = CapturedSource(name="broken", folder=tmp_path / "broken", max_size=48)
    sources = [broken, *generated_sources(NUM_SCENES, 40, CONFIG), Deadly()]
    out = tmp_path / "out"
    errors = made(out, sources, num_processes=2)  # type: ignore[arg-type]
    assert errors.pop("deadly") == "its process was ended by signal 9 (too little memory?)"
    assert "broken" in (errors.pop("broken") or "")
    assert set(errors.values()) == {None}
    expected, found = files(alone), files(out)
    assert "Traceback" in (out / "failed" / "broken.txt").read_text(encoding="utf-8")
    for name in ("card.json", "CARD.md", "failed/broken.txt"):
        expected.pop(name, None)
        found.pop(name)
    assert found == expected
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert list(card["failed"]) == ["broken", "deadly"]
    assert "broken" in (out / "CARD.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_new_processes_take_over_from_dead_ones(tmp_path: Path) -> None:
    open_pairs_folder(tmp_path, CONFIG)
    sources = [Deadly(), Deadly(), *generated_sources(1, 40, CONFIG)]
    outcomes = list(make_pairs(sources, tmp_path, CONFIG, num_processes=2))  # type: ignore[arg-type]
    assert sum(outcome.error is not None for outcome in outcomes) == 2
    assert is_finished(tmp_path, "generated_00040")


@pytest.mark.slow
def test_ray_makes_the_same_files(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    sources = generated_sources(NUM_SCENES, 40, CONFIG)
    broken = CapturedSource(name="broken", folder=tmp_path / "nowhere", max_size=48)
    errors = made(tmp_path / "out", [broken, *sources], ray_address="local", num_processes=2)
    assert "nowhere" in (errors.pop("broken") or "")
    assert set(errors.values()) == {None}
    expected, found = files(alone), files(tmp_path / "out")
    for name in ("card.json", "CARD.md", "failed/broken.txt"):
        expected.pop(name, None)
        found.pop(name)
    assert found == expected


def test_without_ray_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="uv run --extra ray"):
        list(make_pairs([], tmp_path, CONFIG, ray_address="local"))


def test_what_another_node_made_must_be_seen_here(alone: Path, tmp_path: Path) -> None:
    outcome = SceneOutcome(name="generated_00040", num_pairs=8)
    assert check_visible(outcome, alone) is outcome
    assert "all nodes share" in (check_visible(outcome, tmp_path).error or "")


def test_one_failing_scene_does_not_stop_the_rest_in_one_process(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = generated_sources(NUM_SCENES, 40, CONFIG)

    def failing(scene: Any, *arguments: Any) -> Iterator[Any]:
        if "00041" in scene.name:
            raise RuntimeError("no more colors")
        yield from corrupted_pairs(scene, *arguments)

    with monkeypatch.context() as patch:
        patch.setitem(MAKERS, "corrupted", failing)
        errors = made(tmp_path, sources)
    assert errors.pop("generated_00041") == "RuntimeError: no more colors"
    assert set(errors.values()) == {None}
    assert not is_finished(tmp_path, "generated_00041")
    # The same command again makes what is missing; nothing remembers the failure.
    assert set(made(tmp_path, sources).values()) == {None}
    assert files(tmp_path) == files(alone)


def test_interrupted_between_and_inside_scenes_it_goes_on_to_the_same_files(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = generated_sources(NUM_SCENES, 40, CONFIG)
    open_pairs_folder(tmp_path, CONFIG)
    run = make_pairs(sources, tmp_path, CONFIG)
    next(run)
    run.close()

    def interrupted(*arguments: Any) -> Iterator[Any]:
        yield next(corrupted_pairs(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(MAKERS, "corrupted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(make_pairs(sources, tmp_path, CONFIG))
    assert [source.name for source in sources if is_finished(tmp_path, source.name)] == ["generated_00040"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "generated_00040"]
    # A folder that is being written counts for nothing, however complete it looks.
    shutil.copytree(tmp_path / "generated_00040", tmp_path / ".generated_00041.partial-here-1")
    assert finished_scenes(tmp_path) == ["generated_00040"]
    made(tmp_path, sources)
    assert files(tmp_path) == files(alone)


def test_the_card_counts_what_is_there(alone: Path) -> None:
    records = read_pairs(alone / "pairs.json")
    card = json.loads((alone / "card.json").read_text(encoding="utf-8"))
    assert card["num_pairs"] == len(records)
    assert card["num_scenes"] == NUM_SCENES
    for split in ("train", "test"):
        assert card["splits"][split]["pairs"] == sum(record.split == split for record in records)
    for strategy in ("sparse", "corrupted"):
        count = sum(f"/{strategy}_" in record.id for record in records)
        assert card["strategies"][strategy]["count"] == sum(card["strategies"][strategy]["psnr_bins"]) == count
    made_in_all = sum(card["num_made"].values())
    assert made_in_all == NUM_SCENES * (2 + 6)
    assert made_in_all - sum(card["left_out"].values()) == len(records)
    text = (alone / "CARD.md").read_text(encoding="utf-8")
    assert f"{len(records)} pairs of {NUM_SCENES} scenes (4 generated)" in text
    assert "Take care" in text
    assert (alone / "histogram.png").read_bytes().startswith(b"\x89PNG")


def test_filters_are_counted_in_the_card(tmp_path: Path) -> None:
    strict = dataclasses.replace(CONFIG, filters=dataclasses.replace(CONFIG.filters, min_psnr=44, max_psnr=200))
    open_pairs_folder(tmp_path, strict)
    list(make_pairs(generated_sources(1, 40, strict), tmp_path, strict))
    card = publish_pairs(tmp_path, strict, {})
    assert card["left_out"] == {"below_min_psnr": 8 - card["num_pairs"]}
    assert card["num_pairs"] < 2
    kept = read_pairs(tmp_path / "pairs.json") if card["num_pairs"] else []
    assert len(list((tmp_path / "generated_00040" / "degraded").iterdir())) == len(kept) == card["num_pairs"]


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"), locked(tmp_path):
        pass
    # What a killed command has left does not lock anyone out.
    (tmp_path / ".lock").write_text(f"{socket.gethostname()} {2**22 + 1}", encoding="utf-8")
    with locked(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()
    (tmp_path / ".lock").write_text("elsewhere 1", encoding="utf-8")
    with pytest.raises(InputError, match="elsewhere"), locked(tmp_path):
        pass
