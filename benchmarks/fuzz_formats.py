"""Small whole files of every format, as the project or other programs write them, and what reads them."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from output_files import InputError


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

    from splat_render import Gaussians

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

    from splat_render import write_ply

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
    from splat_render import SplatFile, write_splats

    for name in ("a.compressed.ply", "b.spz", "c.splat"):
        write_splats(folder / name, SplatFile(gaussians=gaussians(), antialiased=True))


def write_points(folder: Path) -> None:
    from splat_recon import Points
    from splat_recon.io.point_files import write_points_ply

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

    from difix_model import DifixNetwork, save_checkpoint, tiny_config

    embedding = torch.zeros(7, tiny_config().unet.cross_attention_dim)
    save_checkpoint(folder / "model", DifixNetwork(tiny_config()), text_embedding=embedding, prompt="clean")


def write_pickle(folder: Path) -> None:
    import torch

    weights = {"conv.weight": torch.zeros(3, 4), "conv.bias": torch.zeros(3)}
    content: dict[str, Any] = {"vae_lora_target_modules": ["conv"], "rank_vae": 4}
    torch.save(content | {"state_dict_unet": weights, "state_dict_vae": weights}, folder / "model_1.pkl")


def write_checkpoint(folder: Path) -> None:
    import torch

    import train_runs

    train_runs.write_checkpoint(
        folder / "step_000010", {"step": 10, "config": {"a": 1.5}}, {"weight": torch.zeros(3, 4)}
    )


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

    settings = {"scene": "a", "images": "auto", "sparse_model": None, "split": "auto", "max_size": 64, "sparse": None,
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


def is_refusal(error: BaseException) -> bool:
    """Whether an error is an InputError with a sentence in it."""
    return isinstance(error, InputError) and bool(str(error))


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files."""

    seeds: Callable[[Path], None]
    """Writes whole files into a folder."""

    read: Callable[[Path], Any]
    """Reads the folder; an InputError is a refusal."""

    changed: str = "*"
    """Which of the files are damaged, as a pattern of `Path.rglob`."""

    needs_all: bool = False
    """Whether it reads all of the files together, and not one by itself."""

    repair: Callable[[Path], None] = lambda folder: None
    """Puts right, in every other case, what would catch all damage at the door: checksums."""


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
    from media_files import read_frames, read_info

    read_info(path)
    for _ in read_frames(path):
        pass


def read_motion(path: Path) -> None:
    from splat_recon.io.sfm.video_frames import extract_frames, measure_motion

    motion = measure_motion(path)
    extract_frames(path, path.parent / "frames", [0, len(motion.path) - 1])


READ_SCENE = _lazily("splat_recon", "read_scene")
READ_CAMERAS = _lazily("splat_recon", "read_camera_file")
READ_SPLATS = _lazily("splat_render", "read_splats")
READ_POSES = _lazily("difix_model.references.camera_poses", "read_poses")
READ_PICKLE = _lazily("difix_model.formats.released_pickle", "read_pickle")


def _in(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda folder: read(folder / name)


READERS: dict[str, Reader] = {
    "photo": Reader(seeds=write_images, read=each(_lazily("media_files", "read_photo"))),
    "image to fix": Reader(seeds=write_images, read=each(_lazily("media_files", "open_image"))),
    "mask": Reader(seeds=write_masks, read=each(_lazily("media_files", "read_mask"))),
    "video": Reader(seeds=write_videos, read=each(read_film)),
    "video of a scene": Reader(seeds=write_videos, read=each(read_motion)),
    "splat as PLY": Reader(seeds=write_plys, read=each(READ_SPLATS)),
    "packed splat": Reader(seeds=write_packed, read=each(READ_SPLATS)),
    "points": Reader(seeds=write_points, read=each(_lazily("splat_recon.io.point_files", "read_points_ply"))),
    "scene as binary": Reader(seeds=write_binary_scene, read=READ_SCENE, changed="sparse/0/*"),
    "scene as text": Reader(seeds=write_text_scene, read=READ_SCENE, changed="sparse/0/*"),
    "transforms.json": Reader(seeds=write_transforms_scene, read=READ_SCENE, changed="transforms.json"),
    "Blender": Reader(seeds=write_blender_scene, read=READ_SCENE, changed="*.json"),
    "Polycam": Reader(seeds=write_polycam_scene, read=READ_SCENE, changed="*.json"),
    "Record3D": Reader(seeds=write_record3d_scene, read=READ_SCENE, changed="*.json"),
    "splatting output": Reader(seeds=write_output_scene, read=READ_SCENE, changed="c*"),
    "cameras of a model": Reader(seeds=write_text_scene, read=READ_CAMERAS, changed="sparse/0/*"),
    "camera file": Reader(seeds=write_camera_files, read=each(READ_CAMERAS)),
    "split": Reader(seeds=write_splits, read=read_splits, needs_all=True),
    "poses of references": Reader(seeds=write_text_scene, read=READ_POSES, changed="sparse/0/*"),
    "poses as JSON": Reader(seeds=write_transforms_scene, read=READ_POSES, changed="transforms.json"),
    "references": Reader(seeds=write_references, read=read_references, changed="*.json"),
    "pairs": Reader(
        seeds=write_pairs_file, read=_in("pairs.json", _lazily("difix_model", "read_pairs")), changed="*.json"
    ),
    "network": Reader(
        seeds=write_network, read=_in("model", _lazily("difix_model", "load_checkpoint")), changed="model/*"
    ),
    "pickled weights": Reader(seeds=write_pickle, read=each(READ_PICKLE)),
    "checkpoint": Reader(
        seeds=write_checkpoint,
        read=_in("step_000010", _lazily("train_runs", "read_checkpoint")),
        changed="step_000010/*",
        repair=put_checksums_right,
    ),
    "run folder": Reader(seeds=write_run, read=read_run, needs_all=True),
    "scores": Reader(seeds=write_evaluation, read=read_evaluation, needs_all=True),
}
