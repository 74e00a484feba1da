"""Where the recipe's panoramas come from, and what is made of them. Nothing is fetched here."""

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from embedded_weights import panoramas, scenes
from embedded_weights.panoramas import HELD_OUT, VERSION, fetched_panoramas, toned


def test_hdr_is_exposed_for_its_middle_tones_and_a_blinding_sun_is_white() -> None:
    rng = np.random.default_rng(0)
    linear = np.exp(rng.normal(-6, 1.5, (16, 32, 3))).astype(np.float32)
    linear[3, 4] = np.inf
    linear[3, 5] = 5000
    image = toned(linear)
    assert image.dtype == np.float32
    np.testing.assert_allclose(toned(7 * linear), image, atol=1e-4)
    assert (image[3, 4:6] == 1).all()
    assert 0.3 < np.median(image) < 0.65
    usual = np.delete(image.reshape(-1, 3), [3 * 32 + 4, 3 * 32 + 5], axis=0)
    assert (usual == 1).mean() < 0.02


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match=r"without a network.*--panoramas none"):
        fetched_panoramas(tmp_path)


def test_another_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"pmndrs-assets-{VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="SHA-256"):
        fetched_panoramas(tmp_path)
    assert not (tmp_path / "panoramas").exists()


def test_the_package_becomes_images_of_two_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tarball of the package's form; its panoramas are bytes that stand for themselves here."""
    tarball = tmp_path / f"pmndrs-assets-{VERSION}.tgz"
    source = tmp_path / "source.js"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, data in (("sky", "AAEC"), (HELD_OUT[0], "AwQF")):
            source.write_text(f"export default 'data:application/exr;base64,{data}'")
            archive.add(source, f"package/hdri/{name}.exr.js")
        archive.add(source, "package/matcaps/0000.webp.js")
    monkeypatch.setattr(panoramas, "SHA256", panoramas.hashlib.sha256(tarball.read_bytes()).hexdigest())
    decoded: list[bytes] = []

    def pixels(encoded: bytes, out: Path) -> np.ndarray:
        decoded.append(encoded)
        return np.full((4, 8, 3), 0.5, np.float32)

    monkeypatch.setattr(panoramas, "_pixels", pixels)
    folder = fetched_panoramas(tmp_path)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert found == [f"held_out/{HELD_OUT[0]}.png", "train/sky.png"]
    assert sorted(decoded) == [bytes([0, 1, 2]), bytes([3, 4, 5])]
    assert fetched_panoramas(tmp_path) == folder
    assert len(decoded) == 2


def test_photographic_scenes_are_told_their_side_of_the_panoramas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    for pairs in (scenes.PHOTOGRAPHIC, scenes.PHOTOGRAPHIC_HELD_OUT, scenes.SMALL):
        scenes.make_pairs(tmp_path / pairs.folder, pairs, 8, num_processes=1, panoramas=tmp_path / "p")
    given = [command[command.index("--panoramas") + 1] for command in commands[:2]]
    assert given == [str(tmp_path / "p" / "train"), str(tmp_path / "p" / "held_out")]
    assert commands[1][commands[1].index("--test-fraction") + 1] == "1"
    assert "--panoramas" not in commands[2]
    with pytest.raises(ValueError, match="needs panoramas"):
        scenes.make_pairs(tmp_path / "x", scenes.PHOTOGRAPHIC, 8, num_processes=1)
