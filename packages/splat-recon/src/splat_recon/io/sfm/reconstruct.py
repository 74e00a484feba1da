"""Photos or a video without cameras -> a COLMAP folder, with COLMAP's own pipeline."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from media_files.photos import RAW_SUFFIXES
from media_files.videos import VIDEO_SUFFIXES
from splat_recon.errors import InputError
from splat_recon.io.images import list_photos
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.sfm.colmap_photos import photos_for_colmap
from splat_recon.io.sfm.config import SfmConfig
from splat_recon.io.sfm.plan import Plan, make_plan, photo_facts
from splat_recon.io.sfm.report import (
    NUM_WEAKEST,
    REPORT_FILE,
    SfmResult,
    advice_on,
    advice_without_model,
    size_advice,
    view_qualities,
    write_report,
)
from splat_recon.io.sfm.video_frames import extract_frames, measure_motion, pick_frames

MIN_PHOTOS = 3
"""Fewer photos than this give no model worth training on."""

WORKSPACE = ".sfm"
"""Folder inside the scene folder that holds what an interrupted run goes on from."""

COLMAP_THREAD = "colmap"
"""Name of the thread that runs COLMAP's steps."""

CANCEL_S = 20.0
"""Seconds that a cancelled step is waited for."""

WEAK_PEAK = 0.004
"""Contrast from which SIFT takes features where those of COLMAP's default (0.0067) lead to no model."""

GOOD_FRACTION = 0.5
"""A mapping that registers less than this part of the photos lets `auto` try the other one."""

_log = logging.getLogger(__name__)


def reconstruct(images: Path | str, out: Path | str, config: SfmConfig | None = None) -> SfmResult:
    """Find the cameras of photos and write an undistorted COLMAP folder that `read_scene` reads.

    Focal lengths start from the photos' EXIF data where there is any. Photos are used as they are stored: the EXIF
    orientation is not applied. The log tells which step is running. An interrupted run (Ctrl-C, a power cut) leaves
    its features and matches in ``.sfm`` in the folder; the same call goes on from there.

    Args:
        images: Folder of photos, subfolders included, or a video.
        out: Folder to write ``images/``, ``sparse/0/`` and ``sfm_report.json`` to; must hold neither a model nor photos
            in ``images/``.
        config: Settings; the defaults where None.

    Raises:
        InputError: There are too few photos, one is corrupt, sizes differ although one camera is to be shared, the
            photos do not match each other, or the folder cannot be written.
    """
    started = time.monotonic()
    images, out, config = Path(images), Path(out), config or SfmConfig()
    is_video = images.is_file()
    if not images.exists() and images.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(f"there is no video {images}")
    if is_video and images.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{images} is neither a folder of photos nor a video ({', '.join(VIDEO_SUFFIXES)})")
    names = [] if is_video else _listed(images)
    if not is_video and config.fps is not None:
        _log.warning("fps is for videos: all photos of %s are used", images)
    device = _device(config.device)
    _check_out(images, out)
    workspace = out / WORKSPACE
    try:
        _prepare(workspace, images, names, config)
        if is_video:
            images, names = workspace / "frames", _frames(images, workspace, config)
        plan = _plan(images, names, config, is_video=is_video)
        images, renamed = photos_for_colmap(images, names, workspace / "photos")
        names = [renamed[name] for name in names]
        plan = replace(plan, groups=tuple(tuple(renamed[name] for name in group) for group in plan.groups))
        models, used = _models(images, names, workspace, plan, config, device)
        best = models[0]
        _write_undistorted(best, images, workspace, out, config)
        result = _result(models, names, plan, used, device, time.monotonic() - started, config.max_size)
        write_report(out / REPORT_FILE, result)
        (out / "sparse").mkdir(exist_ok=True)
        # The model comes last: a folder that has one is finished.
        (workspace / "model").replace(out / "sparse" / "0")
        shutil.rmtree(workspace)
    except InputError:
        shutil.rmtree(workspace, ignore_errors=True)
        raise
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error}") from None
    return result


def _check_out(images: Path, out: Path) -> None:
    """Refuse a folder in which something would be replaced: a model, or the photos themselves."""
    if (out / "sparse" / "0").exists():
        raise InputError(f"{out} holds a model already: choose another folder or remove {out / 'sparse'}")
    source, target = images.resolve(), (out / "images").resolve()
    if target == source or target in source.parents:
        raise InputError(f"the photos are in {target}, where undistorted ones would replace them: choose another --out")
    interrupted = (out / WORKSPACE).is_dir()
    if not interrupted and target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty, and undistorted photos would be mixed into it: choose another --out")


def _listed(images: Path) -> list[str]:
    names = list_photos(images)
    raw = [path for path in images.rglob("*") if path.suffix.lower() in RAW_SUFFIXES and not path.name.startswith(".")]
    said = f"its {len(raw)} {raw[0].suffix} files are not read: convert them to JPEG" if raw else ""
    if len(names) < MIN_PHOTOS:
        hint = f"; {said}" if raw else ""
        raise InputError(f"{images} holds {len(names)} photos: at least {MIN_PHOTOS} that overlap are needed{hint}")
    if raw:
        _log.warning("%s: %s", images, said)
    return names


def _device(device: str) -> pycolmap.Device:
    if device == "cuda" and not pycolmap.has_cuda:
        raise InputError(
            "this pycolmap was built without CUDA: use --device cpu, or install a build with CUDA in its place"
        )
    if device == "cpu" or not pycolmap.has_cuda:
        return pycolmap.Device.cpu
    import torch

    # A build with CUDA says nothing about the machine it runs on.
    return pycolmap.Device.cuda if device == "cuda" or torch.cuda.is_available() else pycolmap.Device.cpu


def _prepare(workspace: Path, images: Path, names: Sequence[str], config: SfmConfig) -> None:
    """Keep the workspace of an interrupted run with the same photos and settings; start anew otherwise."""
    files = [images / name for name in names] or [images]
    inputs = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    state: dict[str, Any] = {"inputs": inputs, "config": asdict(config), "version": pycolmap.__version__}
    state = json.loads(json.dumps(state))
    path = workspace / "state.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = None
    if before == state:
        _log.warning("going on with the interrupted run in %s", workspace)
        for name in ("models", "models_weak", "model", "undistorted"):
            shutil.rmtree(workspace / name, ignore_errors=True)
        return
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    path.write_text(json.dumps(state), encoding="utf-8")


def _frames(video: Path, workspace: Path, config: SfmConfig) -> list[str]:
    folder, done = workspace / "frames", workspace / "frames.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    _log.info("measuring sharpness and motion of %s", video)
    motion = measure_motion(video)
    picked = pick_frames(motion, step=config.motion_step, max_frames=config.max_frames, fps=config.fps)
    if len(picked) < MIN_PHOTOS:
        raise InputError(f"video {video} gives {len(picked)} frames that differ: at least {MIN_PHOTOS} are needed")
    _log.info("taking %d of %d frames", len(picked), len(motion.path))
    shutil.rmtree(folder, ignore_errors=True)
    names = extract_frames(video, folder, picked)
    done.write_text(json.dumps(names), encoding="utf-8")
    return names


def _plan(images: Path, names: Sequence[str], config: SfmConfig, *, is_video: bool) -> Plan:
    problems: list[str] = []
    facts = photo_facts(images, names, problems)
    try:
        plan = make_plan(facts, config, is_video=is_video)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError.from_problems(f"photos {images}", problems)
    for what, why in plan.reasons.items():
        _log.info("%s: %s", what, why)
    if plan.matching == "exhaustive" and len(names) > config.exhaustive_limit and config.matching == "auto":
        _log.warning("%s; --matching sequential is quicker where the names follow the camera", plan.reasons["matching"])
    return plan


def _models(
    images: Path, names: Sequence[str], workspace: Path, plan: Plan, config: SfmConfig, device: pycolmap.Device
) -> tuple[list[pycolmap.Reconstruction], str]:
    """The models from large to small, and the mapping that made them."""
    pycolmap.set_random_seed(config.seed)
    database = workspace / "database.db"
    try:
        models, used = _attempt(database, images, names, workspace / "models", plan, config, device, weak=False)
        if not models:
            _log.warning("no cameras were found: trying again with weaker features")
            again = workspace / "weak_features.db"
            models, used = _attempt(again, images, names, workspace / "models_weak", plan, config, device, weak=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"COLMAP cannot reconstruct {images}: {error}") from None
    if not models:
        raise InputError(_why_no_model(database, len(names), config.max_size))
    return models, used


def _attempt(
    database: Path,
    images: Path,
    names: Sequence[str],
    folder: Path,
    plan: Plan,
    config: SfmConfig,
    device: pycolmap.Device,
    *,
    weak: bool,
) -> tuple[list[pycolmap.Reconstruction], str]:
    """Features, matches and models, with weak features or without."""
    _extract(database, images, plan, config, device, weak=weak)
    _match(database, plan, config, device, weak=weak)
    models = _mapped(database, images, folder, plan.mapping, config, device)
    used = plan.mapping
    fraction = models[0].num_reg_images() / len(names) if models else 0.0
    if config.mapping == "auto" and fraction < GOOD_FRACTION:
        other = "global" if used == "incremental" else "incremental"
        _log.warning("%s mapping registers %.0f%% of the photos: trying %s mapping", used, 100 * fraction, other)
        others = _mapped(database, images, folder, other, config, device)
        if others and (not models or others[0].num_reg_images() > models[0].num_reg_images()):
            models, used = others, other
    return models, used


def _extract(
    database: Path, images: Path, plan: Plan, config: SfmConfig, device: pycolmap.Device, *, weak: bool
) -> None:
    _log.info("extracting features of %d photos", sum(map(len, plan.groups)))
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = config.num_threads, device == pycolmap.Device.cuda
    options.max_image_size, options.sift.max_num_features = config.max_size, config.max_features
    if weak:
        options.sift.peak_threshold = WEAK_PEAK
    known: dict[str, int] = {}
    if database.is_file():
        with pycolmap.Database.open(database) as opened:
            known = {image.name: image.camera_id for image in opened.read_all_images()}
    for group in plan.groups:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = config.camera_model
        cameras = {known[name] for name in group if name in known}
        left = [name for name in group if name not in known]
        if not left:
            continue
        if cameras:
            # A group that was interrupted goes on with its camera.
            reader.existing_camera_id = cameras.pop()
        _cancellable(
            lambda token, left=left, reader=reader: pycolmap.extract_features(
                database,
                images,
                image_names=left,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
                device=device,
                cancellation_token=token,
            )
        )


def _match(database: Path, plan: Plan, config: SfmConfig, device: pycolmap.Device, *, weak: bool) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = config.num_threads, device == pycolmap.Device.cuda
    # Once two photos' geometry is known, weak features that agree with it are matched as well.
    options.guided_matching = weak
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = config.seed
    _log.info("matching photos, %s", plan.matching)
    arguments: dict[str, Any] = {"matching_options": options, "verification_options": verification, "device": device}
    match: Callable[..., None] = pycolmap.match_exhaustive
    if plan.matching == "sequential":
        match, pairing = pycolmap.match_sequential, pycolmap.SequentialPairingOptions()
        pairing.overlap, pairing.quadratic_overlap = config.overlap, True
        arguments["pairing_options"] = pairing
    _cancellable(lambda token: match(database, **arguments, cancellation_token=token))


def _mapped(
    database: Path, images: Path, models_folder: Path, mapping: str, config: SfmConfig, device: pycolmap.Device
) -> list[pycolmap.Reconstruction]:
    _log.info("reconstructing, %s", mapping)
    folder = models_folder / mapping
    folder.mkdir(parents=True)
    if mapping == "incremental":
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = config.num_threads, config.seed
        # A model of few photos is better than none, and the user is told how many it has.
        options.min_model_size = MIN_PHOTOS
        run: Callable[..., Any] = lambda token: pycolmap.incremental_mapping(  # noqa: E731
            database, images, folder, options=options, cancellation_token=token
        )
    else:
        with pycolmap.Database.open(database) as opened:
            calibrated = all(camera.has_prior_focal_length for camera in opened.read_all_cameras())
        if not calibrated:
            # Global mapping relies on focal lengths: without EXIF data they come from the pairs.
            pycolmap.calibrate_view_graph(database)
        global_options = pycolmap.GlobalPipelineOptions()
        global_options.num_threads, global_options.random_seed = config.num_threads, config.seed
        global_options.min_model_size = MIN_PHOTOS
        global_options.mapper.bundle_adjustment.ceres.use_gpu = device == pycolmap.Device.cuda
        global_options.mapper.global_positioning.use_gpu = device == pycolmap.Device.cuda
        run = lambda _: pycolmap.global_mapping(database, images, folder, options=global_options)  # noqa: E731
    models: Mapping[int, pycolmap.Reconstruction] = _cancellable(run)
    found = [model for model in models.values() if model.num_reg_images() >= MIN_PHOTOS]
    return sorted(found, key=lambda model: (model.num_reg_images(), model.num_points3D()), reverse=True)


def _cancellable(run: Callable[[Any], Any]) -> Any:
    """Run one of COLMAP's steps in a thread, so that a signal ends it soon and not when it is over."""
    token, outcome = pycolmap.CancellationToken(), {}

    def work() -> None:
        try:
            outcome["result"] = run(token)
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name=COLMAP_THREAD, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except BaseException:
        # Most steps end with the photo or pair they are at; global mapping cannot be told to.
        token.cancel()
        thread.join(CANCEL_S)
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def colmap_runs() -> bool:
    """Whether a step of COLMAP's goes on after it was stopped.

    The process is then to leave by `os._exit`: COLMAP aborts when its libraries are taken down under it.
    """
    return any(thread.name == COLMAP_THREAD for thread in threading.enumerate())


def _why_no_model(database: Path, num_photos: int, max_size: int) -> str:
    with pycolmap.Database.open(database) as opened:
        longest = max((max(camera.width, camera.height) for camera in opened.read_all_cameras()), default=0)
        _, geometries = opened.read_two_view_geometries()
        num_pairs = opened.num_matched_image_pairs()
    names = [pycolmap.TwoViewGeometryConfiguration(geometry.config).name for geometry in geometries]
    verified = [name for name in names if name not in ("UNDEFINED", "DEGENERATE", "WATERMARK")]
    return advice_without_model(num_photos, verified, num_pairs, size_advice(longest, max_size))


def _write_undistorted(
    best: pycolmap.Reconstruction, images: Path, workspace: Path, out: Path, config: SfmConfig
) -> None:
    _log.info("undistorting %d photos", best.num_reg_images())
    model, undistorted = workspace / "best", workspace / "undistorted"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    best.write(model)
    _cancellable(
        lambda token: pycolmap.undistort_images(
            undistorted, model, images, jpeg_quality=95, num_threads=config.num_threads, cancellation_token=token
        )
    )
    (workspace / "model").mkdir()
    for path in sorted((undistorted / "sparse").iterdir()):
        if path.is_file():
            path.replace(workspace / "model" / path.name)
    shutil.copytree(undistorted / "images", out / "images", dirs_exist_ok=True)


def _result(
    models: Sequence[pycolmap.Reconstruction],
    names: Sequence[str],
    plan: Plan,
    used: str,
    device: pycolmap.Device,
    seconds: float,
    max_size: int,
) -> SfmResult:
    best, sizes = models[0], tuple(model.num_reg_images() for model in models)
    views = view_qualities(best)
    registered = tuple(view.name for view in views)
    unregistered = tuple(sorted(set(names) - set(registered)))
    why_mapping = plan.reasons["mapping"] if used == plan.mapping else f"{plan.mapping} registered too few photos"
    return SfmResult(
        num_photos=len(names),
        registered=registered,
        unregistered=unregistered,
        num_points=best.num_points3D(),
        mean_reprojection_error_px=best.compute_mean_reprojection_error(),
        mean_track_length=best.compute_mean_track_length(),
        model_sizes=sizes,
        cameras=tuple(f"{camera.model_name} {camera.params_to_string()}" for camera in best.cameras.values()),
        weakest=tuple(sorted(views, key=lambda view: (view.num_points, view.name))[:NUM_WEAKEST]),
        views=tuple(views),
        choices={
            "cameras": plan.reasons["cameras"],
            "matching": f"{plan.matching} ({plan.reasons['matching']})",
            "mapping": f"{used} ({why_mapping})",
            "device": device.name,
        },
        advice=tuple(advice_on(best, views, unregistered, sizes, max_size)),
        seconds=seconds,
    )
