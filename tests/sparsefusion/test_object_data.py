from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparsefusion import Co3dCategory, InputError, read_colmap_object, read_toy
from sparsefusion.data.sequence import crop_around
from sparsefusion.data.toy import load_tensors
from support.sparsefusion_cases import ReferenceData, ring, worst


@pytest.mark.reference
def test_sequences_agree_with_the_recording(recordings: ReferenceData):
    data = recordings.open("co3d_items")
    root = recordings.folder / "co3d_tiny"
    categories = sorted(path.parent.name for path in root.glob("*/frame_annotations.jgz"))
    by_name = {}
    for category in categories:
        read = Co3dCategory(root, category)
        by_name |= {read.name(at): (read, at) for at in range(len(read))}
    items = sorted(name.split(".")[0] for name in data.metadata if name.endswith(".idx"))
    assert items
    compared = 0
    for item in items:
        read, at = by_name[data.metadata[f"{item}.idx"]]
        recorded = data.under(f"{item}.")
        if not recorded:
            continue
        sequence = read.read(at, len(recorded["R"]))
        cameras = sequence.cameras
        for ours, name in ((cameras.R, "R"), (cameras.T, "T"), (cameras.focal, "f"), (cameras.principal, "c")):
            assert worst(ours, recorded[name]) < 1e-5, (item, name)
        assert torch.equal(sequence.masks, recorded["masks"].float())
        assert torch.equal(sequence.valid, recorded["valid_region"].float())
        assert (sequence.rgb - recorded["images"].float()).abs().max() < 1e-3  # Recorded in half precision.
        compared += 1
    assert compared


@pytest.fixture
def co3d(recordings: ReferenceData, tmp_path: Path) -> Path:
    root = tmp_path / "co3d"
    shutil.copytree(recordings.folder / "co3d_tiny", root)
    return root


def _edit(path: Path, change) -> None:
    entries = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(json.dumps(change(entries)).encode()))


@pytest.mark.reference
def test_what_is_wrong_with_a_co3d_folder_is_said_in_one_sentence(co3d: Path):
    (category,) = (path.name for path in co3d.iterdir() if path.is_dir())
    with pytest.raises(InputError, match=f"no category teapot; it has {category}"):
        Co3dCategory(co3d, "teapot")
    annotations = co3d / category / "frame_annotations.jgz"
    whole = annotations.read_bytes()
    _edit(annotations, lambda entries: entries[:5])
    with pytest.raises(InputError, match="no sequence of at least 11 frames"):
        Co3dCategory(co3d, category)
    _edit(annotations, lambda entries: {"frames": entries})
    with pytest.raises(InputError, match="another form"):
        Co3dCategory(co3d, category)
    annotations.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"frame_annotations\.jgz cannot be read"):
        Co3dCategory(co3d, category)
    annotations.write_bytes(whole)
    read = Co3dCategory(co3d, category)
    with pytest.raises(InputError, match="sequence 9 is not in"):
        read.read(9)
    mask = sorted(co3d.glob(f"{category}/{read.name(0)}/masks/*.png"))[0]
    with Image.open(mask) as image:
        Image.new("L", image.size).save(mask)
    with pytest.raises(InputError, match=rf"{mask.name}: a mask is empty"):
        read.read(0)


def _toy(folder: Path, **changes: object) -> Path:
    cameras = ring(4)
    item = {
        "R": cameras.R,
        "T": cameras.T,
        "f": cameras.focal,
        "c": cameras.principal,
        "images": torch.rand(4, 3, 16, 16),
        "masks": torch.ones(4, 1, 16, 16),
    } | changes
    (folder / "mug").mkdir(parents=True)
    torch.save({"mug": [{k: v for k, v in item.items() if v is not None}]}, folder / "mug" / "mug_toy.pt")
    return folder


class _Unsafe:
    def __reduce__(self) -> tuple:
        return (print, ("executed",))


def test_toy_files_are_read_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (sequence,) = read_toy(_toy(tmp_path / "good"), "mug")
    assert len(sequence) == 4
    assert worst(sequence.cameras.R, ring(4).R) == 0
    for name, changes, message in (
        ("few", {"masks": None}, "lacks the tensors masks"),
        ("shape", {"T": torch.zeros(4, 4)}, "T \\(4, 4\\) instead of \\(4, 3\\)"),
        ("nan", {"R": torch.full((4, 3, 3), float("nan"))}, "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            read_toy(_toy(tmp_path / name, **changes), "mug")
    with pytest.raises(InputError, match="toy files for mug"):
        read_toy(tmp_path / "good", "car")
    unsafe = tmp_path / "unsafe.pt"
    torch.save({"mug": _Unsafe()}, unsafe)
    with pytest.raises(InputError, match="could execute code"):
        load_tensors(unsafe)
    assert "executed" not in capsys.readouterr().out


def _ball_scene(folder: Path, *, distance: float = 30.0, at: tuple[float, float, float] = (100.0, -40.0, 7.0)) -> Path:
    """A COLMAP text model of five cameras around a ball of radius 2, with photos and masks."""
    folder.mkdir()
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    center, size, focal = np.array(at), 80, 300.0
    lines = []
    for index in range(5):
        angle = 2 * np.pi * index / 5
        eye = center + distance * np.array([np.cos(angle), -0.3, np.sin(angle)])
        z = (center - eye) / np.linalg.norm(center - eye)
        x = np.cross(np.array([0.0, 1.0, 0.0]), z)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        t = -R @ eye
        w = np.sqrt(max(0.0, 1 + np.trace(R))) / 2
        if w < 1e-3:
            continue
        q = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w)
        lines += [f"{index + 1} {w} {q[0]} {q[1]} {q[2]} {t[0]} {t[1]} {t[2]} 1 {index}.png", ""]
        pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5 - size / 2
        mask = np.hypot(pixels[..., 0], pixels[..., 1]) < focal * 2 / np.linalg.norm(center - eye)
        rgb = np.full((size, size, 3), 200, np.uint8)
        Image.fromarray(rgb).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{index}.png")
    (model / "cameras.txt").write_text(f"1 PINHOLE {size} {size} {focal} {focal} {size / 2} {size / 2}\n")
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    (model / "points3D.txt").write_text("")
    return folder


def test_a_colmap_scene_is_centered_scaled_and_turned(tmp_path: Path):
    found = read_colmap_object(_ball_scene(tmp_path / "ball"), image_size=64)
    sequence, cameras = found.sequence, found.sequence.cameras
    assert len(sequence) >= 4
    assert found.transform.center == pytest.approx((100.0, -40.0, 7.0), abs=0.3)
    assert cameras.centers.norm(dim=-1).mean() == pytest.approx(6.0, rel=0.02)
    # The ball's center projects into the middle of its mask, and its top lies above it.
    for view in range(len(sequence)):
        rows, columns = sequence.masks[view, 0].nonzero(as_tuple=True)
        middle = torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5
        ndc = cameras[view].project(torch.zeros(1, 3))[0, 0]
        assert (32 * (1 - ndc) - middle).abs().max() < 1.0
    assert not sequence.rgb[sequence.masks.expand_as(sequence.rgb) == 0].any()
    # Cameras around it have it in the middle, wherever crops have their principal points.
    assert sequence.subset([0, 1, 2]).circle(5).project(torch.zeros(1, 3)).abs().max() < 1e-4


def test_what_is_wrong_with_a_colmap_scene_is_said_in_one_sentence(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        read_colmap_object(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a COLMAP scene folder"):
        read_colmap_object(tmp_path / "empty")
    scene = _ball_scene(tmp_path / "no_masks")
    shutil.rmtree(scene / "masks")
    with pytest.raises(InputError, match=r"images/0.png has no mask"):
        read_colmap_object(scene)
    scene = _ball_scene(tmp_path / "empty_mask")
    Image.new("L", (80, 80)).save(scene / "masks" / "1.png")
    with pytest.raises(InputError, match=r"1.png is empty"):
        read_colmap_object(scene)
    scene = _ball_scene(tmp_path / "distorted")
    cameras = scene / "sparse" / "0" / "cameras.txt"
    cameras.write_text("1 SIMPLE_RADIAL 80 80 300 40 40 0.1\n")
    with pytest.raises(InputError, match="undistort the scene first"):
        read_colmap_object(scene)
    cameras.write_text("1 PINHOLE 80 80 0 300 40 40\n")
    with pytest.raises(InputError, match="not those of a camera"):
        read_colmap_object(scene)
    (scene / "sparse" / "0" / "images.txt").write_text(f"1 1 0 0 0 0 0 0 1 {'x' * 300}.png\n")
    with pytest.raises(InputError, match=r"x\.png is missing"):
        read_colmap_object(scene)


def test_an_empty_mask_has_no_crop():
    with pytest.raises(InputError, match="empty"):
        crop_around(torch.zeros(1, 8, 8))
    mask = torch.zeros(1, 20, 20)
    mask[0, 5:15, 8:12] = 1
    crop = crop_around(mask, context=0.5)
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((7.0, 2.5, 13.0, 17.5))
