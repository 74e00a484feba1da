"""Photos without cameras -> a COLMAP folder, with COLMAP's own pipeline on the CPU."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splat_recon.errors import InputError
from splat_recon.io.images import list_photos, read_photo
from splat_recon.io.pycolmap_import import pycolmap

MIN_PHOTOS = 3
"""Fewer photos than this give no model worth training on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SfmConfig:
    """How photos become cameras and points."""

    single_camera: bool = True
    """All photos were taken by one camera at one zoom: they share intrinsics. Photos must then have one size."""

    camera_model: str = "SIMPLE_RADIAL"
    """COLMAP's camera model; distortion is taken out afterwards."""

    max_features: int = 4000
    """SIFT features per photo."""

    max_size: int = 1600
    """Photos are matched at no more than this many pixels on their longer side."""

    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which pairs are compared: all, neighbours in name order, or all up to `exhaustive_limit` photos."""

    exhaustive_limit: int = 150
    """Most photos of which `auto` compares all pairs."""

    num_threads: int = -1
    """Threads; -1 takes all cores."""

    seed: int = 0
    """Seed of everything random in COLMAP."""

    def __post_init__(self) -> None:
        for name in ("max_features", "max_size", "exhaustive_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.camera_model not in pycolmap.CameraModelId.__members__ or self.camera_model == "INVALID":
            raise ValueError(f"camera_model must be one of COLMAP's camera models, got {self.camera_model}")


@dataclass(frozen=True, kw_only=True)
class SfmResult:
    """What `reconstruct` found."""

    num_photos: int
    """Photos in the folder."""

    registered: tuple[str, ...]
    """Names of those that have a camera now, sorted."""

    num_points: int
    """Points of the model."""

    mean_reprojection_error_px: float
    """Mean distance between points and their observations, in pixels of the photos as they were given."""

    num_models: int
    """Models that COLMAP found; the one with the most photos was kept."""


def reconstruct(images: Path | str, out: Path | str, config: SfmConfig | None = None) -> SfmResult:
    """Find the cameras of photos and write an undistorted COLMAP folder that `read_scene` reads.

    Focal lengths start from the photos' EXIF data where there is any. Photos are used as they are stored: the EXIF
    orientation is not applied. The log tells which step is running.

    Args:
        images: Folder of photos, subfolders included.
        out: Folder to write ``images/`` and ``sparse/0/`` to; must not hold a model yet.
        config: Settings; the defaults where None.

    Raises:
        InputError: There are too few photos, one is corrupt, sizes differ although one camera is to be shared, the
            photos do not match each other, or the folder cannot be written.
    """
    images, out, config = Path(images), Path(out), config or SfmConfig()
    names = _checked_photos(images, config)
    if (out / "sparse" / "0").exists():
        raise InputError(f"{out} holds a model already: choose another folder or remove {out / 'sparse'}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".sfm-") as workspace:
            models = _models(images, names, Path(workspace), config)
            best = _best(models, len(names))
            _write_undistorted(best, images, Path(workspace), out)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error}") from None
    registered = sorted(image.name for image in best.images.values() if image.has_pose)
    return SfmResult(
        num_photos=len(names),
        registered=tuple(registered),
        num_points=best.num_points3D(),
        mean_reprojection_error_px=best.compute_mean_reprojection_error(),
        num_models=len(models),
    )


def _checked_photos(images: Path, config: SfmConfig) -> list[str]:
    names = list_photos(images)
    if len(names) < MIN_PHOTOS:
        raise InputError(f"{images} holds {len(names)} photos: at least {MIN_PHOTOS} that overlap are needed")
    problems: list[str] = []
    sizes: dict[tuple[int, int], str] = {}
    for name in names:
        try:
            height, width, _ = read_photo(images / name)[0].shape
        except InputError as error:
            problems.append(str(error))
        else:
            sizes.setdefault((width, height), name)
    if config.single_camera and len(sizes) > 1:
        found = ", ".join(f"{width}x{height} ({name})" for (width, height), name in list(sizes.items())[:4])
        problems.append(f"photos of one shared camera must have one size, these have {found}: let each have its own")
    if problems:
        raise InputError.from_problems(f"photos {images}", problems)
    return names


def _models(
    images: Path, names: Sequence[str], workspace: Path, config: SfmConfig
) -> Mapping[int, pycolmap.Reconstruction]:
    database = workspace / "database.db"
    pycolmap.set_random_seed(config.seed)
    _log.info("extracting features of %d photos", len(names))
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads, extraction.use_gpu, extraction.max_image_size = config.num_threads, False, config.max_size
    extraction.sift.max_num_features = config.max_features
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = config.camera_model
    mode = pycolmap.CameraMode.SINGLE if config.single_camera else pycolmap.CameraMode.AUTO
    try:
        pycolmap.extract_features(
            database,
            images,
            image_names=list(names),
            camera_mode=mode,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        _match(database, len(names), config)
        _log.info("reconstructing")
        mapping = pycolmap.IncrementalPipelineOptions()
        mapping.num_threads, mapping.random_seed = config.num_threads, config.seed
        # A model of few photos is better than none, and the user is told how many it has.
        mapping.min_model_size = MIN_PHOTOS
        return pycolmap.incremental_mapping(database, images, workspace, options=mapping)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"COLMAP cannot reconstruct {images}: {error}") from None


def _match(database: Path, num_photos: int, config: SfmConfig) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = config.num_threads, False
    exhaustive = config.matching == "exhaustive"
    if config.matching == "auto":
        exhaustive = num_photos <= config.exhaustive_limit
    _log.info("matching %s", "all pairs of photos" if exhaustive else "photos that follow each other by name")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = config.seed
    match = pycolmap.match_exhaustive if exhaustive else pycolmap.match_sequential
    match(database, matching_options=options, verification_options=verification, device=pycolmap.Device.cpu)


def _best(models: Mapping[int, pycolmap.Reconstruction], num_photos: int) -> pycolmap.Reconstruction:
    if not models:
        raise InputError(
            f"no cameras could be found for the {num_photos} photos: take photos that overlap by more than half, of "
            "something with texture that does not move, from places that differ (turning on the spot is not enough)"
        )
    ranked = sorted(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()), reverse=True)
    best = ranked[0]
    if len(ranked) > 1:
        sizes = ", ".join(str(model.num_reg_images()) for model in ranked)
        _log.warning("the photos fall into %d models of %s photos: the largest is kept", len(ranked), sizes)
    if best.num_reg_images() < num_photos:
        _log.warning("%d of %d photos could be registered", best.num_reg_images(), num_photos)
    return best


def _write_undistorted(best: pycolmap.Reconstruction, images: Path, workspace: Path, out: Path) -> None:
    _log.info("undistorting %d photos", best.num_reg_images())
    model, undistorted = workspace / "best", workspace / "undistorted"
    model.mkdir()
    best.write(model)
    pycolmap.undistort_images(undistorted, model, images, jpeg_quality=95)
    target = out / "sparse" / "0"
    target.mkdir(parents=True)
    for path in sorted((undistorted / "sparse").iterdir()):
        if path.is_file():
            shutil.move(path, target / path.name)
    shutil.copytree(undistorted / "images", out / "images", dirs_exist_ok=True)
