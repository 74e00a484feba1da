"""Photos and videos to scenes."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from splat_recon import InputError, SfmConfig, read_scene, reconstruct
from splat_recon.io.images import list_photos, read_photo
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.sfm.colmap_photos import photos_for_colmap
from splat_recon.io.sfm.config import CAMERA_MODELS
from splat_recon.io.sfm.plan import PhotoFacts, counts_up, make_plan, photo_facts
from splat_recon.io.sfm.report import advice_without_model, size_advice, summary
from support.drawn_photos import NUM_PHOTOS, write_corner


def write_photos(folder, count, size=(48, 36)):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_photos_that_do_not_match_are_refused_with_advice(tmp_path):
    write_photos(tmp_path / "photos", 3)
    with pytest.raises(InputError, match="overlap"):
        reconstruct(tmp_path / "photos", tmp_path / "out", SfmConfig(num_threads=1))
    assert not list((tmp_path / "out").iterdir())


def test_wrong_photo_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        reconstruct(tmp_path / "none", tmp_path / "out")
    write_photos(tmp_path / "few", 2)
    with pytest.raises(InputError, match="holds 2 photos"):
        reconstruct(tmp_path / "few", tmp_path / "out")
    (tmp_path / "few" / "a.DNG").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 \.DNG files are not read: convert them"):
        reconstruct(tmp_path / "few", tmp_path / "out")
    write_photos(tmp_path / "mixed", 4)
    Image.new("RGB", (36, 48)).save(tmp_path / "mixed" / "2.png")
    (tmp_path / "mixed" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)2 problems.*3\.png.*one size"):
        reconstruct(tmp_path / "mixed", tmp_path / "out", SfmConfig(camera_mode="shared"))
    with pytest.raises(InputError, match=r"photos .*: .*3\.png cannot be read"):
        reconstruct(tmp_path / "mixed", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="neither a folder of photos nor a video"):
        reconstruct(tmp_path / "notes.txt", tmp_path / "out")
    (tmp_path / "film.mp4").write_text("hello")
    with pytest.raises(InputError, match=r"film\.mp4 cannot be read as a video"):
        reconstruct(tmp_path / "film.mp4", tmp_path / "out")
    assert not (tmp_path / "out" / ".sfm").exists()


def test_colmap_gets_photos_that_it_reads(tmp_path, caplog):
    tones = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    photos, exif = tmp_path / "photos", Image.Exif()
    (photos / "deep").mkdir(parents=True)
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "Camera", 6
    photo = Image.fromarray(tones)
    photo.save(photos / "a.jpg", quality=95)
    photo.save(photos / "a.webp", quality=95, exif=exif)
    photo.save(photos / "deep" / "b.webp", quality=95)
    photo.save(photos / "c.jpg", "WEBP", lossless=True)
    Image.fromarray(np.linspace(0, 65535, 768).reshape(24, 32).astype(np.uint16)).save(photos / "d.tif")
    photo.save(photos / "e.tif")
    names = list_photos(photos)
    folder, renamed = photos_for_colmap(photos, names, tmp_path / "work")
    assert renamed == {
        "a.jpg": "a.jpg", "a.webp": "a.webp.jpg", "c.jpg": "c.jpg", "d.tif": "d.png", "deep/b.webp": "deep/b.jpg",
        "e.tif": "e.tif",
    }  # fmt: skip
    assert "4 photos (TIFF, WEBP) are copied" in caplog.text
    assert (folder / "a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
    for name, target in renamed.items():
        with Image.open(folder / target) as given:
            assert (given.format, given.size) == ({"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[target[-3:]], (32, 24))
        difference = read_photo(folder / target)[0].astype(int) - read_photo(photos / name)[0]
        assert np.abs(difference).mean() < 5
    with Image.open(folder / "a.webp.jpg") as given:
        assert given.getexif()[ExifTags.Base.Model] == "Camera"
        assert ExifTags.Base.Orientation not in given.getexif()
    assert photos_for_colmap(photos, ["a.jpg", "e.tif"], tmp_path / "none")[0] == photos
    assert not (tmp_path / "none").exists()


def test_a_folder_with_a_model_is_not_written_to(tmp_path):
    write_photos(tmp_path / "photos", 3)
    (tmp_path / "out" / "sparse" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a model already"):
        reconstruct(tmp_path / "photos", tmp_path / "out")


@pytest.mark.skipif(pycolmap.has_cuda, reason="this pycolmap has CUDA")
def test_cuda_without_cuda_is_refused(tmp_path):
    write_photos(tmp_path / "photos", 3)
    with pytest.raises(InputError, match="built without CUDA"):
        reconstruct(tmp_path / "photos", tmp_path / "out", SfmConfig(device="cuda"))


@pytest.mark.parametrize(
    "wrong", [{"max_size": 0}, {"max_features": -1}, {"camera_model": "PINHOLEY"}, {"fps": 0.0}, {"max_frames": 2}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SfmConfig(**wrong)


def test_the_camera_models_are_colmaps():
    assert set(CAMERA_MODELS) <= set(pycolmap.CameraModelId.__members__)


def facts(count, *, size=(640, 480), lens="", prefix="img_", start=0):
    return {f"{prefix}{start + index:04d}.jpg": PhotoFacts(size=size, lens=lens) for index in range(count)}


def test_cameras_are_shared_by_photos_of_one_size_and_lens():
    mixed = {**facts(3, lens="A 28"), **facts(2, lens="A 50", start=10), **facts(2, size=(480, 640), start=20)}
    groups = make_plan(mixed, SfmConfig(), is_video=False).groups
    assert [len(group) for group in groups] == [3, 2, 2]
    assert len(make_plan(facts(5, lens="A 28"), SfmConfig(), is_video=False).groups) == 1
    assert len(make_plan(mixed, SfmConfig(camera_mode="per-image"), is_video=False).groups) == 7
    same_size = {**facts(3, lens="A 28"), **facts(2, lens="A 50", start=10)}
    assert len(make_plan(same_size, SfmConfig(camera_mode="shared"), is_video=False).groups) == 1
    with pytest.raises(InputError, match=r"640x480 .*480x640"):
        make_plan(mixed, SfmConfig(camera_mode="shared"), is_video=False)


def test_exif_data_tell_lenses_apart(tmp_path):
    for index, focal in enumerate((28, 28, 50)):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Maker", "Camera"
        exif.get_ifd(0x8769)[0xA405] = focal
        Image.new("RGB", (40, 30)).save(tmp_path / f"{index}.jpg", exif=exif)
    problems = []
    found = photo_facts(tmp_path, ["0.jpg", "1.jpg", "2.jpg"], problems)
    assert not problems
    assert found["0.jpg"] == found["1.jpg"] == PhotoFacts(size=(40, 30), lens="Maker Camera 28")
    assert make_plan(found, SfmConfig(), is_video=False).groups == (("0.jpg", "1.jpg"), ("2.jpg",))
    # COLMAP starts from the focal length: 28 mm of a 43.3 mm diagonal.
    camera = pycolmap.infer_camera_from_image(tmp_path / "0.jpg")
    assert camera.has_prior_focal_length
    assert camera.mean_focal_length() == pytest.approx(28 / 43.27 * 50, rel=0.01)


@pytest.mark.parametrize(
    ("count", "prefix", "is_video", "matching"),
    [
        (80, "img_", False, "exhaustive"),
        (81, "img_", False, "sequential"),
        (150, None, False, "exhaustive"),
        (200, None, False, "exhaustive"),
        (60, "frame_", True, "exhaustive"),
        (100, "frame_", True, "sequential"),
    ],
)
def test_matching_is_chosen_by_number_and_order(count, prefix, is_video, matching):
    found = facts(count, prefix=prefix or "")
    if prefix is None:
        found = {f"{(index * 7919) % 10_007:05d}_x{index % 3}.jpg": fact for index, fact in enumerate(found.values())}
    plan = make_plan(found, SfmConfig(), is_video=is_video)
    assert plan.matching == matching
    assert str(count) in plan.reasons["matching"]
    assert make_plan(found, SfmConfig(matching="sequential"), is_video=is_video).matching == "sequential"


def test_many_photos_are_mapped_at_once():
    assert make_plan(facts(250), SfmConfig(), is_video=False).mapping == "incremental"
    assert make_plan(facts(251), SfmConfig(), is_video=False).mapping == "global"
    assert make_plan(facts(251), SfmConfig(mapping="incremental"), is_video=False).mapping == "incremental"


def test_names_that_count_up_are_an_order():
    assert counts_up(["IMG_0998.JPG", "IMG_0999.JPG", "IMG_1000.JPG", "IMG_1003.JPG"])
    assert not counts_up(["a1.jpg", "b2.jpg", "c3.jpg"])
    assert not counts_up(["1.jpg", "20.jpg", "300.jpg"])
    assert not counts_up(["kitchen.jpg", "garden.jpg"])


def test_advice_follows_what_the_pairs_say():
    assert "3 pairs compared, none alike" in advice_without_model(3, [], 3)
    assert "from one place" in advice_without_model(9, ["PANORAMIC"] * 8 + ["CALIBRATED"], 36)
    assert "none gives a pair to start with" in advice_without_model(9, ["UNCALIBRATED"] * 8, 36)


def test_a_small_size_is_named_before_new_photos_are_asked_for():
    said = advice_without_model(9, [], 36, size_advice(4000, 256))
    assert 0 < said.index("leave --max-size: at 256 pixels") < said.index("take photos")
    assert size_advice(640, 1600) == size_advice(256, 256) == size_advice(4000, 800) == ""


def angles_between(poses):
    return np.array(
        [[np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)) for b in poses] for a in poses]
    )


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corner") / "photos"
    return folder, write_corner(folder)


@pytest.mark.parametrize(("mapping", "matching"), [("incremental", "exhaustive"), ("global", "sequential")])
def test_cameras_of_drawn_photos_are_found(corner, tmp_path, mapping, matching):
    photos, poses = corner
    config = SfmConfig(mapping=mapping, matching=matching, num_threads=1, camera_model="SIMPLE_PINHOLE")
    result = reconstruct(photos, tmp_path / "scene", config)
    assert len(result.registered) == NUM_PHOTOS
    assert result.mean_reprojection_error_px < 0.8
    scene = read_scene(tmp_path / "scene")
    found = [view.camera.T_world_cam for view in scene.views]
    assert np.abs(angles_between(found) - angles_between(poses)).max() < np.radians(0.5)
    report = json.loads((tmp_path / "scene" / "sfm_report.json").read_text())
    assert report["num_registered"] == NUM_PHOTOS
    assert report["model_sizes"] == [NUM_PHOTOS]
    assert [view["name"] for view in report["views"]] == list(scene.names)
    counts = [view["num_points"] for view in report["views"]]
    assert report["weakest"][0]["num_points"] == min(counts)
    # The errors of the views, weighted by their points, are those of the points, weighted by their views.
    errors = np.array([view["mean_error_px"] for view in report["views"]])
    points = pycolmap.Reconstruction(tmp_path / "scene" / "sparse" / "0").points3D.values()
    expected = np.average([point.error for point in points], weights=[point.track.length() for point in points])
    assert np.average(errors, weights=counts) == pytest.approx(expected, rel=0.02)
    assert mapping in report["choices"]["mapping"]
    assert matching in report["choices"]["matching"]
    assert any("weakest views: " in line for line in summary(result))
    assert not (tmp_path / "scene" / ".sfm").exists()


@pytest.mark.parametrize("source", ["images", "images/left", "photos"])
def test_photos_are_never_replaced(tmp_path, source):
    """SCENE/images with --out SCENE is how people name it; COLMAP's undistorted photos have the same names."""
    scene = tmp_path / "scene"
    (scene / source).mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (32, 24), (index, 0, 0)).save(scene / source / f"{index}.png")
    (scene / "images").mkdir(exist_ok=True)
    (scene / "images" / "kept.png").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in scene.rglob("*.png")}
    with pytest.raises(InputError, match="choose another --out"):
        reconstruct(scene / source, scene)
    assert {path: path.read_bytes() for path in scene.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_several_models_are_said_and_the_largest_is_kept(corner, tmp_path, monkeypatch, caplog):
    photos, _ = corner
    folder = tmp_path / "two"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / f"a_{path.name}").write_bytes(path.read_bytes())
    monkeypatch.setattr(sys.modules[__name__], "WORLD", np.random.default_rng(99).uniform(0, 255, (8, 64, 64)))
    write_corner(tmp_path / "other", count=5)
    for path in (tmp_path / "other").iterdir():
        (folder / f"b_{path.name}").write_bytes(path.read_bytes())
    result = reconstruct(folder, tmp_path / "scene", SfmConfig(num_threads=1, camera_model="SIMPLE_PINHOLE"))
    assert result.model_sizes == (NUM_PHOTOS, 5)
    assert all(name.startswith("a_") for name in result.registered)
    assert len(result.unregistered) == 5
    assert any(f"fall into 2 models of {NUM_PHOTOS}, 5 photos" in advice for advice in result.advice)
    assert any(f"5 of {NUM_PHOTOS + 5} photos have no camera" in advice for advice in result.advice)
    assert len(read_scene(tmp_path / "scene").views) == NUM_PHOTOS


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_goes_on_where_it_was(corner, tmp_path, monkeypatch, ctrl_c):
    photos, _ = corner
    extracted, extract, match = [], pycolmap.extract_features, pycolmap.match_exhaustive

    def counting(*args, **options):
        extracted.extend(options["image_names"])
        return extract(*args, **options)

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)  # As Ctrl-C, while COLMAP works in a thread of its own.
        time.sleep(2)  # And is not done before the main thread hears of it.

    config = SfmConfig(num_threads=1, camera_model="SIMPLE_PINHOLE", max_features=1000)
    monkeypatch.setattr(pycolmap, "extract_features", counting)
    monkeypatch.setattr(pycolmap, "match_exhaustive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(photos, tmp_path / "scene", replace(config, max_features=900))
    assert len(extracted) == NUM_PHOTOS
    # Other settings are another run.
    with pytest.raises(KeyboardInterrupt):
        reconstruct(photos, tmp_path / "scene", config)
    assert len(extracted) == 2 * NUM_PHOTOS
    # As if the power had gone in the middle: two photos are missing.
    database = tmp_path / "scene" / ".sfm" / "database.db"
    with sqlite3.connect(database) as opened:
        for table in ("images", "keypoints", "descriptors"):
            opened.execute(f"DELETE FROM {table} WHERE image_id > {NUM_PHOTOS - 2}")
    opened.close()
    monkeypatch.undo()
    monkeypatch.setattr(pycolmap, "extract_features", counting)
    assert match is pycolmap.match_exhaustive
    result = reconstruct(photos, tmp_path / "scene", config)
    assert len(extracted) == 2 * NUM_PHOTOS + 2
    assert len(result.registered) == NUM_PHOTOS
    assert len(result.cameras) == 1
    assert not (tmp_path / "scene" / ".sfm").exists()


@pytest.mark.slow
def test_a_signal_ends_a_running_step_soon(tmp_path):
    write_photos(tmp_path / "photos", 60, size=(900, 700))
    code = (
        "import sys, logging\nlogging.basicConfig(level='INFO', stream=sys.stdout)\n"
        "from splat_recon.io.sfm.reconstruct import reconstruct\n"
        "from splat_recon.io.sfm.config import SfmConfig\n"
        "reconstruct(sys.argv[1], sys.argv[2], SfmConfig(num_threads=1))\n"
    )
    argv = [sys.executable, "-u", "-c", code, str(tmp_path / "photos"), str(tmp_path / "out")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if "extracting" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=40)
    assert time.monotonic() - begun < 20
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    assert (tmp_path / "out" / ".sfm" / "database.db").exists()


@pytest.mark.scenes
def test_real_photos_become_a_scene(scenes, tmp_path):
    expected = json.loads((scenes / "kermit_raw" / "expected.json").read_text())
    result = reconstruct(scenes / "kermit_raw" / "images", tmp_path / "scene")
    assert len(result.registered) == expected["expected_registered"]
    assert result.num_points == pytest.approx(expected["expected_points_about"], rel=0.1)
    assert result.mean_reprojection_error_px == pytest.approx(expected["expected_mean_reproj_px"], abs=0.1)
    scene = read_scene(tmp_path / "scene", max_size=64)
    assert scene.names == result.registered
    assert len(scene.points) == result.num_points
    assert result.choices["cameras"] == "all photos share one"
