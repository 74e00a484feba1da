"""Every command writes under --out and nowhere else, whatever a scene calls its photos and whatever links are there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix3d_enhance_app.__main__ import main as enhance
from difix3d_eval_app.__main__ import main as scores_of
from difix3d_pairs_app.__main__ import main as pairs
from difix3d_train_app.__main__ import main as loop
from difix_fix.__main__ import main as fix
from splat_recon_app.__main__ import main as splats
from support.hostile_names import HOSTILE, files_outside

QUICK = ["--device", "cpu", "--max-steps", "4", "--max-size", "32", "--stereo", "off"]
CORRUPTED = ["--max-size", "32", "--max-steps", "10", "--strategies", "corrupted"]


def write_hostile_scene(folder: Path, names: list[str]) -> None:
    """A scene whose model gives its photos these names; each photo lies where its name leads."""
    from splat_recon import SyntheticConfig, generate_scene, write_scene
    from splat_recon.io.pycolmap_import import pycolmap

    config = SyntheticConfig(layout="table", num_views=len(names), width=48, height=36, num_points=100)
    write_scene(folder, generate_scene(3, config))
    # For names with .. on their way.
    (folder / "images" / "sub").mkdir()
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for image, name in zip(reconstruction.images.values(), names, strict=True):
        place = folder / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(folder / "images" / image.name) as photo:
            photo.save(place, format="JPEG" if name.endswith(".jpg") else "PNG")
        (folder / "images" / image.name).unlink()
        image.name = name
    reconstruction.write(model)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's disk: a scene of hostile names, photos all around it, a home."""
    world = tmp_path_factory.mktemp("world").resolve()
    (world / "home").mkdir()
    originals = world / "originals"
    names = [*HOSTILE, str(originals / "absolute.png"), str(originals / "other" / "absolute.png")]
    write_hostile_scene(world / "scenes" / "garden", names)
    return world


@pytest.fixture
def world(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(hostile / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(hostile / "home" / ".cache"))
    # matplotlib's own cache of fonts is not of this project's making.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "fonts"))
    monkeypatch.chdir(hostile / "home")
    return hostile


def done(main: Callable[[list[str]], int], world: Path, out: Path, *words: object) -> None:
    before = files_outside(world, out)
    assert main([str(word) for word in words]) == 0
    assert files_outside(world, out) == before


def refused(main: Callable[[list[str]], int], world: Path, capsys, *words: object) -> str:
    before = files_outside(world)
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert files_outside(world) == before
    return message


def test_training_and_evaluation_write_a_picture_for_every_photo(world: Path):
    scene, out, scores = world / "scenes" / "garden", world / "run", world / "scores"
    done(splats, world, out, "train", "--scene", scene, "--out", out, "--split", "every:2", *QUICK)
    before = (out / "log.txt").read_text()
    done(splats, world, out, "eval", "--splat", out, "--side", "all", "--device", "cpu")
    content = json.loads((out / "metrics_all.json").read_text())
    assert len(content["per_view"]) == len(HOSTILE) + 2
    assert set(content["pictures"]) == set(content["per_view"])
    files = [path for path in (out / "images").rglob("*") if path.is_file() and ".first" not in path.parts]
    pictures = {path.relative_to(out / "images").as_posix() for path in files}
    assert pictures == set(content["pictures"].values())
    assert (out / "log.txt").read_text().startswith(before)
    splat = out / "point_cloud.ply"
    done(splats, world, scores, "eval", "--splat", splat, "--scene", scene, "--out", scores, "--side", "all")
    done(
        splats,
        world,
        world / "frames",
        "render",
        "--splat",
        out,
        "--out",
        world / "frames",
        "--path",
        "orbit",
        "--frames",
        "2",
    )
    # What a splat file cannot hold lies beside it, under its name.
    done(splats, world, world / "splats", "export", "--splat", out, "--to", world / "splats" / "a.spz")
    for made in (out, scores, world / "frames", world / "splats"):
        shutil.rmtree(made)


@pytest.mark.parametrize("form", ["colmap", "transforms"])
def test_scenes_are_converted_with_all_their_photos(world: Path, form: str):
    from splat_recon import read_scene

    scene, out = world / "scenes" / "garden", world / "converted"
    done(splats, world, out, "convert", "--scene", scene, "--out", out, "--to", form)
    found, expected = read_scene(out), read_scene(scene)
    for view in expected.views:
        (same,) = [f for f in found.views if np.allclose(f.camera.T_world_cam, view.camera.T_world_cam, atol=1e-6)]
        assert np.abs(same.rgb_u8.astype(int) - view.rgb_u8).mean() < 3
    shutil.rmtree(out)


def test_pairs_of_a_scene_have_files_of_their_own(world: Path):
    scene, out = world / "scenes" / "garden", world / "pairs"
    done(pairs, world, out, "--scenes", scene, "--out", out, *CORRUPTED)
    content = json.loads((out / "pairs.json").read_text())
    samples = {**content["train"], **content["test"]}
    num_photos = len(HOSTILE) + 2
    assert len({sample["image"] for sample in samples.values()}) == 2 * num_photos
    assert len({sample["target_image"] for sample in samples.values()}) == num_photos
    shutil.rmtree(out)


def test_the_loop_its_films_and_fixes_stay_inside(world: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
    scene, out, film, fixed = world / "scenes" / "garden", world / "run", world / "film", world / "fixed"
    short = ["--max-steps", "12", "--max-size", "32", "--num-novel", "2", "--num-rounds", "1", "--stereo", "off"]
    train = ["--scene", scene, "--out", out, "--split", "every:2", "--loop", "rounds", "--device", "cpu", *short]
    done(loop, world, out, *train)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics

    done(enhance, world, film, "--splat", out, "--scene", scene, "--out", film, "--frames", 2, "--device", "cpu")
    frames = sorted(path for path in film.iterdir() if path.suffix == ".png")
    assert len(frames) == 2

    # A result's name that is a link of the user's is replaced, or refused: what it leads to stays.
    elsewhere = world / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (4, 4)).save(elsewhere / "mine.png")
    fixed.mkdir()
    (fixed / frames[0].name).symlink_to(elsewhere / "mine.png")
    before = files_outside(world, fixed)
    fix(["--input", str(film), "--out", str(fixed), "--reference", str(film), "--device", "cpu", "--gate", "off"])
    assert files_outside(world, fixed) == before
    message = refused(fix, world, capsys, "--input", film, "--out", film, "--device", "cpu")
    assert message

    renders, photos, scores = world / "renders" / "art", world / "photos" / "art" / "images", world / "scores"
    for place in (renders, photos):
        place.mkdir(parents=True)
        Image.new("RGB", (24, 20), (90, 120, 40)).save(place / "frame_1_00000.png")
        Image.new("RGB", (24, 20), (9, 120, 40)).save(place / "back\\slash.png")
    done(
        scores_of, world, scores,
        "score", "--renders", renders.parent, "--scenes", world / "photos", "--no-masked", "--out", scores,
    )  # fmt: skip
    for made in (out, film, fixed, elsewhere, renders.parent, world / "photos", scores):
        shutil.rmtree(made)


def test_structure_from_motion_of_odd_names_stays_inside(world: Path, capsys):
    """These photos show nothing to match: what counts is that nothing else is touched on the way to saying so."""
    photos, out = world / "photos", world / "model"
    (photos / ".thumbnails").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for name in (
        "new\nline.png",
        "back\\slash.png",
        "E.png",
        "e.png",
        "d.jpg",
        "d.png",
        ".thumbnails/t.png",
        "._x.png",
    ):
        Image.fromarray(noise.integers(0, 255, (36, 48, 3), dtype=np.uint8)).save(photos / name)
    before = files_outside(world, out)
    assert splats(["sfm", "--images", str(photos), "--out", str(out)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert files_outside(world, out) == before
    assert refused(splats, world, capsys, "sfm", "--images", photos, "--out", photos)
    shutil.rmtree(photos)
    shutil.rmtree(out, ignore_errors=True)


def test_outputs_that_would_replace_inputs_are_refused(world: Path, tmp_path: Path, capsys):
    scene = world / "scenes" / "garden"
    other = world / "plain"
    write_hostile_scene(other, ["a.png", "b.png", "c.png", "d.png"])
    (other / "log.txt").write_text("the user's")
    train = ["train", *QUICK, "--split", "every:2", "--scene"]
    assert "is the scene itself" in refused(splats, world, capsys, *train, other, "--out", other)
    assert "which is read" in refused(splats, world, capsys, *train, other, "--out", other / "images" / "run")
    assert "which is read" in refused(
        splats, world, capsys, "convert", "--scene", other, "--out", other / "images" / "new", "--to", "colmap"
    )
    assert "garden holds" in refused(pairs, world, capsys, "--scenes", scene, "--out", world / "scenes", *CORRUPTED)
    assert "pairs are made of" in refused(pairs, world, capsys, "--scenes", scene, "--out", scene, *CORRUPTED)
    shutil.rmtree(other)


def test_a_splat_file_is_not_converted_onto_itself(world: Path, capsys):
    import torch

    from splat_recon import Gaussians, write_ply

    gaussians = Gaussians(
        means=torch.zeros(2, 3), log_scales=torch.zeros(2, 3), quats_wxyz=torch.ones(2, 4),
        logit_opacities=torch.zeros(2), sh0=torch.zeros(2, 1, 3), sh_rest=torch.zeros(2, 0, 3),
    )  # fmt: skip
    splat = world / "mine.ply"
    write_ply(splat, gaussians)
    (world / "link.ply").symlink_to(splat)
    for target in (splat, world / "link.ply"):
        message = refused(splats, world, capsys, "export", "--splat", splat, "--to", target)
        assert "would be replaced" in message
    (world / "link.ply").unlink()
    splat.unlink()


def test_links_in_a_run_folder_do_not_lead_out(world: Path, capsys):
    scene, out, elsewhere = world / "scenes" / "garden", world / "run", world / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes.txt").write_text("the user's")
    out.mkdir()
    (out / "images").symlink_to(elsewhere)
    train = ["train", "--scene", scene, "--out", out, "--split", "every:2", *QUICK]
    assert "images leads to" in refused(splats, world, capsys, *train)
    (out / "images").unlink()
    for name in ("log.txt", "metrics.json", "metrics.jsonl", "report.html", "point_cloud.ply", "contact_sheet.png"):
        (out / name).symlink_to(elsewhere / "notes.txt")
    (out / "config.json").symlink_to(elsewhere / "not there")
    (out / "cameras.json").hardlink_to(elsewhere / "notes.txt")
    done(splats, world, out, *train)
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    shutil.rmtree(out)
    shutil.rmtree(elsewhere)
