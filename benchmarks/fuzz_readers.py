"""Throw damaged files at everything that reads files: read, or refused in a sentence, in bounded time and memory.

    uv run python benchmarks/fuzz_readers.py --cases 5000
    uv run python benchmarks/fuzz_readers.py --only photo "scene as text" --cases 500 --seed 7 --keep FOLDER

A reader starts from small files of a format, as the project or other programs write them. A case changes one of these
files: bytes, truncation, counts, tokens of its text, and for what is packed (gzip) the content inside. It is read in a
process of its own with a limit of memory; a case that takes longer than the limit of time is a hang. The same seed and
number of cases are the same cases, whatever else runs. Prints a table by reader and the first tracebacks; exits with 1
where there are any.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
import logging
import os
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402

MEMORY = 2 << 30
"""Bytes that a case may take on top of what the process has when it starts."""

FIRST_SECONDS = 90.0
"""The same for the first case of a process, which reads the whole files before, and compiles what is compiled."""

WHOLE_NOT_READ = 3
"""Exit code of a process whose reader does not read what is whole."""

SECONDS = 10.0
"""Processor time that a case may take."""

MOST_WAITED = 10
"""A case that sleeps may do so for this many times as long."""

WORST = ["NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "-0.0", "9" * 400, "9" * 5000, "4294967296", "1e-320",
         "null", "true", "[]", "{}", '""', "[" * 100_000, '{"a":' * 3000, "\\", "\0", "\u00e9", "\ud800", "x" * 70_000,
         "../../a", "/dev/zero", "nan", "inf", "0x10", "1_000", "\u0661", " ", "\n", "#"]  # fmt: skip
"""What a token of a text is replaced by."""

EXTREMES = [0, 1, -1, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1]

TOKEN = re.compile(rb"[-+.\w]+|\S")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files."""

    seeds: Callable[[Path], None]
    """Writes whole files into a folder."""

    read: Callable[[Path], Any]
    """Reads the folder; an InputError is a refusal."""

    changed: str = "*"
    """Which of the files are damaged, as a pattern of `Path.rglob`."""

    repair: Callable[[Path], None] = lambda folder: None
    """Puts right, in every other case, what would catch all damage at the door: checksums."""


@dataclass
class Outcomes:
    """Of one reader's cases."""

    cases: int = 0
    refused: int = 0
    read: int = 0
    tracebacks: int = 0
    hangs: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    """The first case of each kind of traceback."""


# ---- mutations


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file's content once or a few times."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        try:
            return gzip.compress(mutated(gzip.decompress(content), rng), 1, mtime=0)
        except (OSError, EOFError, zlib.error):
            pass
    textual = _is_text(content)
    for _ in range(int(rng.integers(1, 4))):
        kinds = [_bytes, _truncated, _spliced, _counts]
        # Headers of binary files are texts, too.
        kinds += [_token] * (6 if textual else 2) + [_lines] * (2 if textual else 0)
        content = kinds[int(rng.integers(len(kinds)))](content, rng)
    return content


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _place(length: int, rng: np.random.Generator) -> int:
    """Near the beginning more often than elsewhere."""
    reach = length if rng.random() < 0.5 else min(length, 200)
    return int(rng.integers(0, max(reach, 1)))


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        if data:
            data[_place(len(data), rng)] = int(rng.integers(0, 256))
    return bytes(data)


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _spliced(content: bytes, rng: np.random.Generator) -> bytes:
    place, length = _place(len(content), rng), int(rng.integers(1, 40))
    match int(rng.integers(3)):
        case 0:
            return content[:place] + content[place + length :]
        case 1:
            return content[:place] + rng.integers(0, 256, length, dtype=np.uint8).tobytes() + content[place:]
        case _:
            return content[: place + length] + content[place:]


def _counts(content: bytes, rng: np.random.Generator) -> bytes:
    value = int(rng.choice(np.array(EXTREMES, dtype=object)))
    order, width = "<>"[int(rng.integers(2))], int(rng.choice([1, 2, 4, 8]))
    if rng.random() < 0.3:
        packed = struct.pack(f"{order}d", rng.choice([np.nan, np.inf, -np.inf, 1e308, 1e-320]))
    else:
        packed = (value % (1 << 8 * width)).to_bytes(width, "little" if order == "<" else "big")
    place = _place(len(content), rng)
    if rng.random() < 0.7:
        place -= place % len(packed)
    return content[:place] + packed + content[place + len(packed) :]


def _token(content: bytes, rng: np.random.Generator) -> bytes:
    reach = content if _is_text(content) else content[:4000]
    found = list(TOKEN.finditer(reach))
    if not found:
        return content
    if rng.random() < 0.5:
        # Numbers decide more than words do.
        found = [one for one in found if one[0][-1:].isdigit()] or found
    token = found[int(rng.integers(len(found)))]
    worst = WORST[int(rng.integers(len(WORST)))].encode("utf-8", "surrogatepass")
    return content[: token.start()] + worst + content[token.end() :]


def _lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return content
    one, other = (int(index) for index in rng.integers(0, len(lines), 2))
    match int(rng.integers(3)):
        case 0:
            del lines[one]
        case 1:
            lines.insert(one, lines[other])
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


# ---- formats


def tones(width: int = 24, height: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(folder: Path) -> None:
    from PIL import Image, features

    photo = Image.fromarray(tones())
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    photo.save(folder / "a.png", exif=exif)
    photo.save(folder / "b.jpg", quality=90, exif=exif)
    photo.save(folder / "c.webp", quality=90, exif=exif)
    photo.save(folder / "d.tif", compression="tiff_lzw")
    photo.save(folder / "e.bmp")
    photo.save(folder / "f.tga")
    photo.save(folder / "g.jp2")
    photo.save(folder / "h.ppm")
    photo.convert("P").save(folder / "i.png", transparency=3)
    photo.convert("CMYK").save(folder / "j.tif", compression="jpeg")
    Image.fromarray(np.linspace(0, 65535, 384).reshape(16, 24).astype(np.uint16)).save(folder / "k.png")
    Image.fromarray(np.linspace(0, 1, 384, dtype=np.float32).reshape(16, 24)).save(folder / "l.tif")
    Image.fromarray((np.arange(384).reshape(16, 24) * 150).astype(np.int32)).save(folder / "m.tif")
    if features.check("avif"):
        photo.save(folder / "n.avif")


def write_masks(folder: Path) -> None:
    from PIL import Image

    half = (np.arange(24)[None] < 12).repeat(16, axis=0)
    Image.fromarray(half.astype(np.uint8) * 255).save(folder / "a.png")
    Image.fromarray(half).save(folder / "b.png")
    white = Image.new("L", (24, 16), 255)
    Image.merge("LA", [white, Image.fromarray(half.astype(np.uint8) * 255)]).save(folder / "c.png")
    Image.fromarray(half.astype(np.float32)).save(folder / "d.tif")


def write_videos(folder: Path) -> None:
    from fractions import Fraction

    import av

    for name, codec in (("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.webm", "libvpx-vp9"), ("d.avi", "mpeg4"),
                        ("e.mov", "libx264"), ("f.mpg", "mpeg2video")):  # fmt: skip
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for index in range(8):
                frame = av.VideoFrame.from_ndarray(tones(48, 32, index), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def gaussians(n: int = 300, degree: int = 1) -> Any:
    import torch

    from splat_render.gaussians import Gaussians

    rng = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(n, 3, generator=rng),
        log_scales=torch.randn(n, 3, generator=rng) - 3,
        quats_wxyz=torch.randn(n, 4, generator=rng),
        logit_opacities=torch.randn(n, generator=rng),
        sh0=torch.randn(n, 1, 3, generator=rng),
        sh_rest=torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=rng),
    )


def write_plys(folder: Path) -> None:
    from plyfile import PlyData, PlyElement

    from splat_render.files.ply import write_ply

    write_ply(folder / "a.ply", gaussians(40), comments=["made here"])
    rows = PlyData.read(str(folder / "a.ply"))["vertex"].data[:6]
    faces = np.empty(3, dtype=[("vertex_indices", "O"), ("flags", "u1")])
    for index in range(3):
        faces[index] = (np.arange(3 + index, dtype="i4"), index)
    elements = [PlyElement.describe(faces, "face"), PlyElement.describe(rows, "vertex")]
    PlyData(elements, text=True).write(str(folder / "b.ply"))
    PlyData(elements, byte_order="<").write(str(folder / "c.ply"))
    PlyData([PlyElement.describe(rows, "vertex")], byte_order=">").write(str(folder / "d.ply"))


def write_packed(folder: Path) -> None:
    from splat_render.files.formats import SplatFile, write_splats

    for name in ("a.compressed.ply", "b.spz", "c.splat"):
        write_splats(folder / name, SplatFile(gaussians=gaussians(), antialiased=True))


def write_points(folder: Path) -> None:
    from splat_recon.io.point_files import write_points_ply
    from splat_recon.scene.scene import Points

    points = Points(p_world=np.random.default_rng(0).normal(size=(20, 3)), rgb_u8=tones(20, 1)[0])
    write_points_ply(folder / "a.ply", points)


def small_scene(num_views: int = 4) -> Any:
    from splat_recon import SyntheticConfig, generate_scene

    return generate_scene(3, SyntheticConfig(layout="table", num_views=num_views, width=24, height=16, num_points=60))


def write_binary_scene(folder: Path) -> None:
    from splat_recon import write_scene

    write_scene(folder, small_scene())


def write_text_scene(folder: Path) -> None:
    from splat_recon.io.pycolmap_import import pycolmap

    write_binary_scene(folder)
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for file in list(model.iterdir()):
        file.unlink()
    reconstruction.write_text(model)


def write_transforms_scene(folder: Path) -> None:
    from splat_recon import write_transforms

    write_transforms(folder, small_scene())


def write_blender_scene(folder: Path) -> None:
    write_transforms_scene(folder)
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").unlink()
    angle = 2 * np.arctan(content["frames"][0]["w"] / 2 / content["frames"][0]["fl_x"])
    for split, part in (("train", slice(0, 3)), ("test", slice(3, None))):
        frames = [{key: frame[key] for key in ("file_path", "transform_matrix")} for frame in content["frames"][part]]
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))


def write_polycam_scene(folder: Path) -> None:
    from PIL import Image

    for kind in ("images", "cameras"):
        (folder / "keyframes" / kind).mkdir(parents=True)
    for index in range(3):
        Image.fromarray(tones()).save(folder / "keyframes" / "images" / f"{index}.jpg")
        pose = {f"t_{row}{column}": float(row == column) for row in range(3) for column in range(4)}
        lens = {"fx": 20.0, "fy": 20.0, "cx": 12.0, "cy": 8.0, "width": 24, "height": 16, "blur_score": 100.0}
        (folder / "keyframes" / "cameras" / f"{index}.json").write_text(json.dumps({**pose, **lens, "t_03": index}))


def write_record3d_scene(folder: Path) -> None:
    from PIL import Image

    (folder / "rgb").mkdir()
    for index in range(3):
        Image.fromarray(tones()).save(folder / "rgb" / f"{index}.jpg")
    content = {"w": 24, "h": 16, "K": [20.0, 0, 0, 0, 20, 0, 12, 8, 1], "fps": 30,
               "poses": [[0.0, 0, 0, 1, index, 0, 0] for index in range(3)]}  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(content))


def write_output_scene(folder: Path) -> None:
    from PIL import Image

    (folder / "images").mkdir()
    cameras = []
    for index in range(3):
        Image.fromarray(tones()).save(folder / "images" / f"{index}.png")
        cameras.append({"id": index, "img_name": f"{index}", "width": 24, "height": 16, "fx": 20.0, "fy": 20.0,
                        "position": [float(index), 0.0, 0.0], "rotation": np.eye(3).tolist()})  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps(cameras))
    (folder / "cfg_args").write_text("Namespace(source_path='.', images='images', sh_degree=3)")


def write_camera_files(folder: Path) -> None:
    from splat_recon.io.cameras_json import to_content

    pose = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50, "aspect": 2}
    path = {"render_height": 64, "render_width": 128, "camera_path": [pose] * 2, "fps": 24, "seconds": 1.0}
    (folder / "camera_path.json").write_text(json.dumps(path))
    cameras = {view.name: view.camera for view in small_scene(3).views}
    (folder / "cameras.json").write_text(json.dumps(to_content(cameras, np.eye(4))))


def write_splits(folder: Path) -> None:
    names = [f"{index}.png" for index in range(8)]
    content = {"train": names[2:], "test": names[:2], "sparse_train": {"3": names[2:5]}}
    (folder / "splits.json").write_text(json.dumps(content))
    (folder / "test.txt").write_text("0.png\n1.png\n# two\n")


def read_splits(folder: Path) -> None:
    from splat_recon import make_split

    names = [f"{index}.png" for index in range(8)]
    make_split(names, "auto", sparse=3, scene_folder=folder)
    make_split(names, str(folder / "test.txt"))


def write_pairs_file(folder: Path) -> None:
    from PIL import Image

    for name in ("a", "b", "c"):
        Image.fromarray(tones()).save(folder / f"{name}.png")
    entry = {"image": "a.png", "target_image": "b.png", "ref_image": "c.png", "prompt": "remove degradation"}
    (folder / "pairs.json").write_text(json.dumps({"train": {"0": entry, "1": entry}, "test": {"2": entry}}))


def write_references(folder: Path) -> None:
    write_pairs_file(folder)
    entry = {"image": "a.png", "references": ["b.png", "c.png"], "method": "pose", "scores": [0.5, 0.25]}
    content = {"format": "difix-references", "format_version": 1, "method": "pose", "images": [entry]}
    (folder / "choice.json").write_text(json.dumps(content))
    (folder / "plain.json").write_text(json.dumps({"a.png": ["b.png", "c.png"]}))


def read_references(folder: Path) -> None:
    from difix_model.references.choice import read_choice

    for name in ("choice.json", "plain.json"):
        read_choice(folder / name, [folder / "a.png"])


def write_network(folder: Path) -> None:
    import torch

    from difix_model.config import tiny_config
    from difix_model.formats.checkpoint import save_checkpoint
    from difix_model.network import DifixNetwork

    embedding = torch.zeros(7, tiny_config().unet.cross_attention_dim)
    save_checkpoint(folder / "model", DifixNetwork(tiny_config()), text_embedding=embedding, prompt="clean")


def write_pickle(folder: Path) -> None:
    import torch

    weights = {"conv.weight": torch.zeros(3, 4), "conv.bias": torch.zeros(3)}
    content: dict[str, Any] = {"vae_lora_target_modules": ["conv"], "rank_vae": 4}
    torch.save(content | {"state_dict_unet": weights, "state_dict_vae": weights}, folder / "model_1.pkl")


def write_splat_checkpoint(folder: Path) -> None:
    from splat_recon.checkpoint import write_checkpoint

    tensors = {f"gaussians.{name}": tensor for name, tensor in gaussians(5).parameters().items()}
    write_checkpoint(folder / "step_000010", {"step": 10, "seed": 1, "config": {"max_steps": 30}}, tensors)


def write_run_checkpoint(folder: Path) -> None:
    import torch

    from train_runs.checkpoints import write_checkpoint

    write_checkpoint(folder / "step_000010", {"step": 10, "config": {"a": 1.5}}, {"weight": torch.zeros(3, 4)})


def put_checksums_right(folder: Path) -> None:
    place = folder / "step_000010"
    checksums = {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "checksums.json"
    }
    (place / "checksums.json").write_text(json.dumps(checksums))


def write_run(folder: Path) -> None:
    from splat_recon.io.cameras_json import to_content

    settings = {"scene": "a", "images": "auto", "model": None, "split": "auto", "max_size": 64, "sparse": None,
                "config": {"max_steps": 30}, "normalize": True, "seed": 0, "device": "cpu"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"settings": settings, "versions": {"python": "3.11"}}))
    cameras = {view.name: view.camera for view in small_scene(3).views}
    (folder / "cameras.json").write_text(json.dumps(to_content(cameras, np.eye(4))))
    lines = "".join(json.dumps({"step": step, "loss": 0.5, "psnr": 20.0}) + "\n" for step in (10, 20))
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "evaluations.jsonl").write_text(lines)


def read_run(folder: Path) -> None:
    from splat_recon import run_folder

    run = run_folder.RunFolder(folder)
    run_folder.read_evaluations(run, until_step=15)
    run.read_metrics()
    run_folder.read_settings(run)
    run_folder.read_cameras(run)


def write_evaluation(folder: Path) -> None:
    from difix3d.evaluation.protocol import load_protocol, protocol_names, to_dict

    protocol = to_dict(load_protocol(protocol_names()[0]))
    (folder / "protocol.json").write_text(json.dumps(protocol))
    mean = {"psnr": 20.0, "ssim": 0.8, "lpips": None}
    scores = {"format": "difix3d-scores", "method": "a", "identity": {"protocol": protocol, "masked": True},
              "scenes": {"a": {**mean, "views": {"0": mean}}}, "means": mean}  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(scores))


def read_evaluation(folder: Path) -> None:
    from difix3d.evaluation.protocol import load_protocol
    from difix3d.evaluation.scores import check_comparable, read_scores

    content = read_scores(folder / "scores.json")
    load_protocol(str(folder / "protocol.json"))
    check_comparable([folder / "scores.json"] * 2, [content] * 2)


def each(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Reads every file of a folder by itself; the first refusal ends it, after the others have been tried."""

    def read_all(folder: Path) -> None:
        refusal = None
        for path in sorted(folder.iterdir()):
            try:
                read(path)
            except Exception as error:
                if not is_refusal(error):
                    raise
                refusal = error
        if refusal is not None:
            raise refusal

    return read_all


def _lazily(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


def read_film(path: Path) -> None:
    from media_files.videos import read_frames, read_info

    read_info(path)
    for _ in read_frames(path):
        pass


def read_motion(path: Path) -> None:
    from splat_recon.io.sfm.video_frames import extract_frames, measure_motion

    motion = measure_motion(path)
    extract_frames(path, path.parent / "frames", [0, len(motion.path) - 1])


READERS: dict[str, Reader] = {
    "photo": Reader(seeds=write_images, read=each(_lazily("splat_recon.io.images", "read_photo"))),
    "image to fix": Reader(seeds=write_images, read=each(_lazily("media_files.photos", "open_image"))),
    "mask": Reader(seeds=write_masks, read=each(_lazily("splat_recon.io.images", "read_mask"))),
    "video": Reader(seeds=write_videos, read=each(read_film)),
    "video of a scene": Reader(seeds=write_videos, read=each(read_motion)),
    "splat as PLY": Reader(seeds=write_plys, read=each(_lazily("splat_render.files.formats", "read_splats"))),
    "packed splat": Reader(seeds=write_packed, read=each(_lazily("splat_render.files.formats", "read_splats"))),
    "points": Reader(seeds=write_points, read=each(_lazily("splat_recon.io.point_files", "read_points_ply"))),
    "scene as binary": Reader(
        seeds=write_binary_scene, read=_lazily("splat_recon", "read_scene"), changed="sparse/0/*"
    ),
    "scene as text": Reader(seeds=write_text_scene, read=_lazily("splat_recon", "read_scene"), changed="sparse/0/*"),
    "transforms.json": Reader(
        seeds=write_transforms_scene, read=_lazily("splat_recon", "read_scene"), changed="transforms.json"
    ),
    "Blender": Reader(seeds=write_blender_scene, read=_lazily("splat_recon", "read_scene"), changed="*.json"),
    "Polycam": Reader(seeds=write_polycam_scene, read=_lazily("splat_recon", "read_scene"), changed="*.json"),
    "Record3D": Reader(seeds=write_record3d_scene, read=_lazily("splat_recon", "read_scene"), changed="*.json"),
    "splatting output": Reader(seeds=write_output_scene, read=_lazily("splat_recon", "read_scene"), changed="c*"),
    "cameras of a model": Reader(
        seeds=write_text_scene, read=_lazily("splat_recon", "read_camera_file"), changed="sparse/0/*"
    ),
    "camera file": Reader(seeds=write_camera_files, read=each(_lazily("splat_recon", "read_camera_file"))),
    "split": Reader(seeds=write_splits, read=read_splits),
    "poses of references": Reader(
        seeds=write_text_scene, read=_lazily("difix_model.references.camera_poses", "read_poses"), changed="sparse/0/*"
    ),
    "poses as JSON": Reader(
        seeds=write_transforms_scene,
        read=_lazily("difix_model.references.camera_poses", "read_poses"),
        changed="transforms.json",
    ),
    "references": Reader(seeds=write_references, read=read_references, changed="*.json"),
    "pairs": Reader(
        seeds=write_pairs_file,
        read=lambda folder: _lazily("difix_model", "read_pairs")(folder / "pairs.json"),
        changed="*.json",
    ),
    "network": Reader(
        seeds=write_network,
        read=lambda folder: _lazily("difix_model", "load_checkpoint")(folder / "model"),
        changed="model/*",
    ),
    "pickled weights": Reader(
        seeds=write_pickle, read=each(_lazily("difix_model.formats.released_pickle", "read_pickle"))
    ),
    "splat checkpoint": Reader(
        seeds=write_splat_checkpoint,
        read=lambda folder: _lazily("splat_recon.checkpoint", "read_checkpoint")(folder / "step_000010"),
        changed="step_000010/*",
        repair=put_checksums_right,
    ),
    "run checkpoint": Reader(
        seeds=write_run_checkpoint,
        read=lambda folder: _lazily("train_runs.checkpoints", "read_checkpoint")(folder / "step_000010"),
        changed="step_000010/*",
        repair=put_checksums_right,
    ),
    "run folder": Reader(seeds=write_run, read=read_run),
    "scores": Reader(seeds=write_evaluation, read=read_evaluation),
}


IMPORTED = ("av", "PIL.Image", "torch", "plyfile", "splat_recon.io.colmap", "splat_recon.io.camera_files",
            "splat_recon.checkpoint", "splat_recon.scene.synthetic", "splat_recon.io.sfm.video_frames",
            "splat_render.files.formats", "difix_model.formats.checkpoint", "difix_model.references.camera_poses",
            "difix3d.evaluation.scores", "train_runs.checkpoints")  # fmt: skip


# ---- cases


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one of the libraries' InputErrors, with a sentence in it."""
    return bool(str(error)) and any(kind.__name__ == "InputError" for kind in type(error).__mro__)


def run_case(reader: Reader, seeds: Path, folder: Path, seed: tuple[int, int, int]) -> tuple[str, str]:
    """Outcome and what is to be said of it."""
    rng = np.random.default_rng(seed)
    shutil.copytree(seeds, folder)
    files = sorted(path for path in folder.rglob(reader.changed) if path.is_file())
    path = files[int(rng.integers(len(files)))]
    whole = path.read_bytes()
    damaged = whole
    while damaged == whole:
        damaged = mutated(whole, rng)
    path.write_bytes(damaged)
    # Of folders of single files the others would only take time.
    if all(one.parent == folder for one in files) and reader.changed == "*" and not _needs_all(reader):
        for other in files:
            if other != path:
                other.unlink()
    if rng.random() < 0.5:
        reader.repair(folder)
    try:
        reader.read(folder)
    except BaseException as error:
        if is_refusal(error):
            return "refused", ""
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if "/src/" in frame.filename] or list(last)
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return "tracebacks", f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:140]} [{path.name}]"
    return "read", ""


def _needs_all(reader: Reader) -> bool:
    return reader.read in (read_splits, read_run, read_evaluation)


def work(name: str, seeds: Path, place: Path, first: int, last: int, seed: int, keep: Path | None, pipe: int) -> None:
    """Run cases in this process, and write a line for each into the pipe."""
    logging.disable(logging.CRITICAL)
    # What is whole must be read; and the libraries' own memory does not count.
    shutil.copytree(seeds, place / "whole", dirs_exist_ok=True)
    try:
        READERS[name].read(place / "whole")
    except Exception:
        traceback.print_exc()
        os._exit(WHOLE_NOT_READ)
    with Path(os.devnull).open("wb") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = list(READERS).index(name)
    for case in range(first, last):
        folder = place / f"{case}"
        shutil.rmtree(folder, ignore_errors=True)
        outcome, said = run_case(READERS[name], seeds, folder, (seed, number, case))
        if keep is not None and outcome == "tracebacks":
            shutil.copytree(folder, keep / f"{name} {case}".replace(" ", "_"), dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.write(pipe, (json.dumps([case, outcome, said]) + "\n").encode())


def fuzzed(name: str, count: int, seed: int, place: Path, keep: Path | None) -> Outcomes:
    """Run a reader's cases; a process that hangs or dies is replaced by another one, after the case."""
    outcomes, seeds, case = Outcomes(), place / "seeds", 0
    seeds.mkdir(parents=True)
    _in_child(lambda: READERS[name].seeds(seeds))
    while case < count:
        for said in _lines_of_child(name, seeds, place, case, count, seed, keep):
            if said is None:
                _count(outcomes, "hangs", f"case {case} takes more than {SECONDS:.0f} s")
                case += 1
            elif isinstance(said, int):
                if os.waitstatus_to_exitcode(said) == WHOLE_NOT_READ:
                    sys.exit(f"the reader {name} does not read its whole files")
                if said != 0 and case < count:
                    _count(outcomes, "tracebacks", f"the process dies at case {case} ({signal_name(said)})")
                    case += 1
            else:
                case, outcome, words = said
                _count(outcomes, outcome, f"case {case}: {words}")
                case += 1
    return outcomes


def _count(outcomes: Outcomes, outcome: str, said: str) -> None:
    outcomes.cases += 1
    setattr(outcomes, outcome, getattr(outcomes, outcome) + 1)
    if outcome in ("tracebacks", "hangs"):
        kind = re.sub(r"case \d+|'[^']*'|\d+", "", said.partition(": ")[2].partition(": ")[0] or said)
        outcomes.examples.setdefault(kind, said)


def signal_name(status: int) -> str:
    """How a process ended."""
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def cpu_seconds(process: int) -> float:
    """Processor time that a process has taken so far."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _in_child(act: Callable[[], None]) -> None:
    """Do something in a child, so that the threads of its libraries do not live in this process."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("the seeds cannot be written")


def _lines_of_child(
    name: str, seeds: Path, place: Path, first: int, last: int, seed: int, keep: Path | None
) -> Iterator[list | int | None]:
    """What a child says of each case; at last how it ended, or None if it hung and was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            work(name, seeds, place, first, last, seed, keep, writing)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    rest, patience, before, waited = b"", FIRST_SECONDS, 0.0, 0.0
    while True:
        ready, _, _ = select.select([reading], [], [], 1.0)
        waited += 0 if ready else 1
        if not ready and cpu_seconds(child) - before < patience and waited < MOST_WAITED * patience:
            # On a busy machine a case waits for others: what counts is the processor's time.
            continue
        chunk = os.read(reading, 65536) if ready else b""
        if not chunk:
            break
        patience, before, waited = SECONDS, cpu_seconds(child), 0.0
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, lines)
    if not ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reading)
    yield status if ready else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all, shared among the readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(READERS), metavar="READER", help=", ".join(READERS))
    parser.add_argument("--keep", type=Path, help="folder for the files that end in a traceback")
    args = parser.parse_args()
    names = args.only or list(READERS)
    for module in IMPORTED:
        # Once, and not again in every process.
        importlib.import_module(module)
    total, width = Outcomes(), max(map(len, READERS))
    print(f"| {'reader':{width}} | cases | refused | read | tracebacks | hangs |", flush=True)
    print(f"|{'-' * (width + 2)}|---|---|---|---|---|", flush=True)
    examples: list[str] = []
    for index, name in enumerate(names):
        count = args.cases // len(names) + (index < args.cases % len(names))
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            found = fuzzed(name, count, args.seed, Path(place), args.keep)
        print(row(name.ljust(width), found), flush=True)
        for key in ("cases", "refused", "read", "tracebacks", "hangs"):
            setattr(total, key, getattr(total, key) + getattr(found, key))
        examples += [f"{name}: {said}" for said in found.examples.values()]
    print(row("all".ljust(width), total))
    for example in examples:
        print(example)
    return 1 if total.tracebacks or total.hangs else 0


def row(name: str, found: Outcomes) -> str:
    return f"| {name} | {found.cases} | {found.refused} | {found.read} | {found.tracebacks} | {found.hangs} |"


if __name__ == "__main__":
    sys.exit(main())
