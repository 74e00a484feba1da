import json

import numpy as np
import pytest
from PIL import Image

from splat_recon.errors import InputError
from splat_recon.io.colmap import read_scene
from splat_recon.io.sfm import SfmConfig, reconstruct


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
    write_photos(tmp_path / "mixed", 4)
    Image.new("RGB", (36, 48)).save(tmp_path / "mixed" / "2.png")
    (tmp_path / "mixed" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)2 problems.*3\.png.*one size"):
        reconstruct(tmp_path / "mixed", tmp_path / "out")


def test_a_folder_with_a_model_is_not_written_to(tmp_path):
    write_photos(tmp_path / "photos", 3)
    (tmp_path / "out" / "sparse" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a model already"):
        reconstruct(tmp_path / "photos", tmp_path / "out")


@pytest.mark.parametrize("wrong", [{"max_size": 0}, {"max_features": -1}, {"camera_model": "PINHOLEY"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SfmConfig(**wrong)


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
