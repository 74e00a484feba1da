"""Which layout a scene folder has: the one place that looks at a folder and says what program made it.

Layouts that are read have a name in `Layout`. Of those that are not, the common ones are recognized as well, so that
the message can say what to export in their place. Only names of files and the beginnings of some are looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from colmap_models import find_model, has_model, has_parts
from splat_recon.errors import InputError
from splat_render.files.folders import newest_splat

TRANSFORMS_FILE = "transforms.json"
"""nerfstudio's and instant-ngp's file."""

SPLIT_FILES = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
"""Files of the synthetic NeRF scenes, which Blender scripts write."""

CAMERAS_FILE = "cameras.json"
"""A list of cameras in an output folder of the 3D Gaussian Splatting code."""

POLYCAM_FOLDER = "keyframes"
"""What Polycam's raw export unpacks to."""

RECORD3D_FOLDERS = ("", "EXR_RGBD", "rgbd")
"""Where an export of Record3D keeps `metadata.json` and `rgb/`."""

RECORD3D_FILE = "metadata.json"
"""Poses and intrinsics of Record3D."""

HEAD_BYTES = 4096
"""How much of a file is looked at."""


class Layout(StrEnum):
    """Layouts of scene folders that are read."""

    COLMAP = "COLMAP"
    TRANSFORMS = "transforms.json"
    BLENDER = "transforms_train.json"
    GAUSSIAN_SPLATTING = "3D Gaussian Splatting output"
    POLYCAM = "Polycam"
    RECORD3D = "Record3D"


@dataclass(frozen=True, kw_only=True)
class _Foreign:
    """A layout that is recognized, and not read."""

    name: str
    found: Callable[[Path], bool]
    advice: str


def scene_layout(folder: Path) -> Layout:
    """Which of the layouts that are read a folder has; the first one of `Layout` where it has several.

    Raises:
        InputError: It has none. Where another program's layout is recognized, the sentence names it and what to export.
    """
    if (layout := layout_of(folder)) is not None:
        return layout
    check_scene_folder(folder)
    for foreign in () if has_parts(folder) else FOREIGN:
        if foreign.found(folder):
            raise InputError(f"{folder} is {foreign.name}, which is not read: {foreign.advice}")
    inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and layout_of(path) is not None]
    if inside:
        raise InputError(
            f"{folder} is no scene folder, but its subfolder {inside[0]} is one: give {folder / inside[0]}"
        )
    find_model(folder)
    raise InputError(f"{folder} is no scene folder: expected COLMAP's images/ and sparse/0/")


def check_scene_folder(folder: Path) -> None:
    """Refuse what is no folder, before anything heavy is loaded.

    Raises:
        InputError: There is none, or it is a file; the sentence says what to give in its place.
    """
    if folder.is_dir():
        return
    if not folder.exists():
        raise InputError(
            f"there is no folder {folder}, so it is no scene folder: expected COLMAP's images/ and sparse/0/ in it, "
            f"or a {TRANSFORMS_FILE}"
        )
    advice = next((text for endings, text in FILES if folder.suffix.lower() in endings), FILE_ADVICE)
    raise InputError(f"{folder} is a file and no scene folder: {advice.format(folder=folder.parent)}")


def layout_of(folder: Path) -> Layout | None:
    """Which of the layouts that are read a folder has, or None."""
    if not folder.is_dir():
        return None
    return next((layout for layout, found in _READ.items() if found(folder)), None)


def polycam_folders(folder: Path) -> tuple[Path, Path] | None:
    """The photos and cameras of a Polycam export, the corrected ones where there are any."""
    for place in (folder / POLYCAM_FOLDER, folder):
        for prefix in ("corrected_", ""):
            photos, cameras = place / f"{prefix}images", place / f"{prefix}cameras"
            if photos.is_dir() and any(cameras.glob("*.json")):
                return photos, cameras
    return None


def record3d_folder(folder: Path) -> Path | None:
    """The folder in a Record3D export that has the poses and the photos."""
    for name in RECORD3D_FOLDERS:
        place = folder / name
        if (place / "rgb").is_dir() and (place / RECORD3D_FILE).is_file():
            return place
    return None


def _is_splatting_output(folder: Path) -> bool:
    return _head(folder / CAMERAS_FILE).lstrip("\ufeff \t\r\n").startswith("[") or (
        (folder / "cfg_args").is_file() and newest_splat(folder) is not None
    )


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda folder: any(any(folder.glob(pattern)) for pattern in patterns)


def _has_all(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).exists() for name in names)


def _has_metashape(folder: Path) -> bool:
    return _has("*.psx", "*.psz")(folder) or any(
        "<document" in head and "<chunk" in head for head in map(_head, folder.glob("*.xml"))
    )


def _has_reality_scan(folder: Path) -> bool:
    if _has("*.rcproj", "*.rsproj", "*.rcalign")(folder):
        return True
    return any(
        head.startswith("#") and {"x", "y", "alt", "heading"} <= set(head.splitlines()[0].lstrip("#").split(","))
        for head in map(_head, folder.glob("*.csv"))
    ) or any("xcr:" in head for head in map(_head, list(folder.glob("*.xmp"))[:1]))


def _has_own_run(folder: Path) -> bool:
    return (folder / "checkpoints").is_dir() and (folder / "config.json").is_file()


_READ: dict[Layout, Callable[[Path], bool]] = {
    Layout.COLMAP: has_model,
    Layout.TRANSFORMS: lambda folder: (folder / TRANSFORMS_FILE).is_file(),
    Layout.BLENDER: lambda folder: any((folder / name).is_file() for name in SPLIT_FILES),
    Layout.GAUSSIAN_SPLATTING: _is_splatting_output,
    Layout.POLYCAM: lambda folder: polycam_folders(folder) is not None,
    Layout.RECORD3D: lambda folder: record3d_folder(folder) is not None,
}

_AS_COLMAP = "export its cameras and points as a COLMAP model (cameras.txt, images.txt, points3D.txt)"
_OR_SFM = "or reconstruct its photos with `splat-recon sfm`"

FILE_ADVICE = "give the folder it lies in, {folder}"
"""What to do with a file of a scene."""

FILES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".zip", ".gz", ".tar", ".7z", ".rar"), "unpack it and give the folder"),
    ((".r3d",), "export it from Record3D as EXR + RGB, and give that folder"),
    ((".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"), "reconstruct it first with `splat-recon sfm`"),
    ((".psx", ".psz"), "export its cameras from Metashape in the format Colmap, and give that folder"),
    ((".rsproj", ".rcproj"), "export its registration in the format COLMAP, and give that folder"),
    ((".ply", ".spz", ".splat"), "it is a splat or points; give the photos and cameras"),
)
"""What to do with files that people give for scenes, by their endings."""

FOREIGN: tuple[_Foreign, ...] = (
    _Foreign(
        name="a Metashape project or export",
        found=_has_metashape,
        advice="choose File > Export > Export Cameras in Metashape and the file type Colmap, and give that folder",
    ),
    _Foreign(
        name="an export of RealityScan (RealityCapture)",
        found=_has_reality_scan,
        advice="export the registration in the format COLMAP, with undistorted images, and give that folder",
    ),
    _Foreign(
        name="a Record3D capture as .r3d",
        found=_has("*.r3d"),
        advice="export it as EXR + RGB (a folder with rgb/ and metadata.json), and give that folder",
    ),
    _Foreign(
        name="a scene in LLFF's layout (poses_bounds.npy)",
        found=_has("poses_bounds.npy"),
        advice=f"give the COLMAP model it was made from (sparse/0), {_OR_SFM}",
    ),
    _Foreign(
        name="a scene in the layout of DTU and NeuS (cameras_sphere.npz)",
        found=_has("cameras_sphere.npz", "cameras.npz", "cameras_large.npz"),
        advice=f"convert it to transforms.json, {_OR_SFM}",
    ),
    _Foreign(
        name="a scene in NSVF's layout (pose/ and rgb/)",
        found=_has_all("pose", "rgb"),
        advice=f"convert it to transforms.json, {_OR_SFM}",
    ),
    _Foreign(
        name="a scene in MVSNet's layout (cams/)",
        found=lambda folder: any((folder / "cams").glob("*_cam.txt")),
        advice=f"give the COLMAP model it was made from, {_OR_SFM}",
    ),
    _Foreign(
        name="a scene in Nerfies' layout (dataset.json and camera/)",
        found=_has_all("dataset.json", "camera"),
        advice=f"convert it to transforms.json, {_OR_SFM}",
    ),
    _Foreign(
        name="a project of Meshroom (AliceVision)",
        found=_has("*.mg", "cameras.sfm", "sfm.abc", "*.sfm"),
        advice=f"{_AS_COLMAP}, {_OR_SFM}",
    ),
    _Foreign(name="a scene of OpenMVG", found=_has("sfm_data.json", "sfm_data.bin"), advice=f"{_AS_COLMAP}, {_OR_SFM}"),
    _Foreign(
        name="a project of OpenSfM or OpenDroneMap",
        found=_has("reconstruction.json", "opensfm/reconstruction.json"),
        advice=f"export it with `opensfm export_colmap`, {_OR_SFM}",
    ),
    _Foreign(
        name="a project of Pix4D",
        found=_has("*calibrated_camera_parameters.txt", "*.p4d", "*.opf"),
        advice=f"{_AS_COLMAP}, {_OR_SFM}",
    ),
    _Foreign(name="a model of VisualSFM", found=_has("*.nvm"), advice=f"{_AS_COLMAP}, {_OR_SFM}"),
    _Foreign(name="a Bundler model", found=_has("bundle.out", "bundle/bundle.out"), advice=f"{_AS_COLMAP}, {_OR_SFM}"),
    _Foreign(
        name="the output of a nerfstudio training",
        found=_has("nerfstudio_models", "dataparser_transforms.json"),
        advice="give the scene it was trained on, and the splat as `ns-export gaussian-splat` writes it",
    ),
    _Foreign(
        name="the output of a gsplat training", found=_has("ckpts/*.pt"), advice="give the scene it was trained on"
    ),
    _Foreign(
        name="the run folder of a training",
        found=_has_own_run,
        advice="give the scene it was trained on, or the run by --run where a command has that flag",
    ),
)
"""Layouts that are recognized by their files; the first that fits is named."""
