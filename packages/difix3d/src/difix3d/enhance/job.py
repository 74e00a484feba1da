"""Which frames are to be enhanced, and which captured photos each of them is fixed with.

Frames of a splat are rendered when they are wanted, so that a film of any length is never in memory; everything behind
that, from streaming to resuming, is the same as for a video.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difix3d.enhance.config import EnhanceConfig
from difix3d.enhance.references import PosedPhotos, photos_of
from difix3d.errors import InputError
from difix_model.references.camera_poses import CameraPoses, find_poses, read_poses
from difix_model.references.choice import ReferenceConfig, choose_references
from difix_model.references.similarity import THUMBNAIL_SIDE
from difix_model.video.job import VideoJob, plan_video
from media_files.video_encoder import PictureFormat
from media_files.videos import TimedFrame
from splat_recon.errors import InputError as SplatInputError
from splat_recon.film import depth_range, digests
from splat_recon.geometry.camera_paths import CameraPathConfig, camera_path
from splat_recon.io.camera_files import CameraFile, read_camera_file
from splat_recon.io.images import to_u8
from splat_recon.io.own_runs import cameras_of_run
from splat_recon.scene.downscale import limited_size
from splat_recon.splat_model import SplatModel
from splat_render.cameras import Camera
from splat_render.device import chosen_device

FPS = 24.0
"""Frames per second of a film of a splat, where nothing says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplatJob(VideoJob):
    """A film of a splat: frames that are rendered as they are read."""

    splats: SplatModel
    """What is seen."""

    cameras: tuple[Camera, ...]
    """One per frame, in the splat's world."""

    @property
    def num_frames(self) -> int:
        """One per camera."""
        return len(self.cameras)

    def frames(self, skip: int = 0) -> Iterator[TimedFrame]:
        """Render the frames, one at a time."""
        for index in range(skip, len(self.cameras)):
            rgb_u8 = to_u8(self.splats.render(self.cameras[index]).rgb)
            yield TimedFrame(rgb=rgb_u8, pts=index, duration=1)

    def picture_format(self) -> PictureFormat:
        """How the pictures of a video are coded."""
        first = self.cameras[0]
        return PictureFormat.for_new_video(self.out, first.width, first.height, self.rate)

    def identity(self) -> dict[str, Any]:
        """What the frames depend on beside the file."""
        first = self.cameras[0]
        return {**digests(self.splats.gaussians, self.cameras), "size": [first.width, first.height]}


def plan_enhancement(config: EnhanceConfig, *, uses_reference: bool) -> VideoJob:
    """Find out what is to be done and check it, before anything is fixed.

    Args:
        uses_reference: Whether the weights know references.

    Raises:
        InputError: Anything is absent, unreadable or would be overwritten.
    """
    if not config.source.exists():
        raise InputError(f"there is no {config.source}: give a splat, a folder of renders or a video")
    job, poses = _splat_job(config) if config.of_splat else _frames_job(config)
    how = _method(config, poses, uses_reference)
    if how == "none":
        return job
    assert config.captured is not None
    if how == "similarity":
        return replace(job, references=_by_similarity(job, photos_of(config.captured), config.num_references))
    assert poses is not None
    return replace(job, references=PosedPhotos.of_scene(config.captured).nearest(poses, config.num_references))


def _splat_job(config: EnhanceConfig) -> tuple[SplatJob, np.ndarray]:
    source = config.cameras or config.scene or cameras_of_run(config.source)
    if source is None:
        raise InputError(f"from where is {config.source} to be seen? Name its photos with --scene, or --cameras")
    given = read_camera_file(source)
    splats = SplatModel.of_file(config.source, which=config.which, device=chosen_device(config.device))
    cameras = tuple(_sized(camera, config.max_size) for camera in _film(config, given, splats))
    sizes = {(camera.width, camera.height) for camera in cameras}
    job = SplatJob(
        source=config.source,
        images=(),
        out=config.out,
        references=(),
        info=None,
        rate=Fraction(config.fps or given.fps or FPS).limit_denominator(100_000),
        splats=splats,
        cameras=cameras,
    )
    # The same rules for names of results as for folders of images.
    if config.out.suffix and not job.writes_video and "%" not in config.out.name:
        raise InputError(f"{config.out} cannot hold the result: name a video (.mp4), a folder, or frames/%05d.png")
    if len(sizes) > 1 and job.writes_video:
        raise InputError(f"the cameras have {len(sizes)} sizes, and a video has one: write a folder of frames")
    return job, np.stack([camera.T_world_cam for camera in cameras])


def _film(config: EnhanceConfig, given: CameraFile, splats: SplatModel) -> list[Camera]:
    if config.path == "given":
        return given.cameras
    if len(given.cameras) < 2:
        raise InputError(f"a path needs two cameras, got {len(given.cameras)}: use --path given, or name other cameras")
    cameras = [splats.near(camera) for camera in given.cameras]
    near, far = depth_range(splats.gaussians, cameras)
    path = camera_path(cameras, CameraPathConfig(kind=config.path, num_frames=config.frames), near=near, far=far)
    return [splats.in_world(camera) for camera in path]


def _sized(camera: Camera, max_size: int | None) -> Camera:
    return camera if max_size is None else camera.resized(*limited_size(camera.width, camera.height, max_size))


def _frames_job(config: EnhanceConfig) -> tuple[VideoJob, np.ndarray | None]:
    for name, value, default in (("frames", config.frames, None), ("max_size", config.max_size, None)):
        if value != default:
            raise InputError(f"--{name.replace('_', '-')} is for splats: {config.source} is rendered already")
    job = plan_video(config.source, config.out, rate=config.fps)
    return job, _frame_poses(config, job)


def _frame_poses(config: EnhanceConfig, job: VideoJob) -> np.ndarray | None:
    """Where rendered frames were seen from: by their names, otherwise by their order; None if that is not known."""
    listed = None
    if config.cameras is not None:
        listed = _listed_poses(config.cameras)
    elif job.images and config.captured is not None:
        listed = find_poses(job.images[0].parent)
    if listed is None:
        return None
    by_name = [listed.of(image) for image in job.images]
    if job.images and all(pose is not None for pose in by_name):
        return np.stack([pose for pose in by_name if pose is not None])
    if config.cameras is None:
        return None
    if job.num_frames != len(listed.T_world_cam):
        raise InputError(
            f"{config.cameras} lists {len(listed.T_world_cam)} cameras and does not name the {job.num_frames} frames "
            f"of {config.source}: give one camera per frame, or cameras that name them"
        )
    return np.stack(list(listed.T_world_cam.values()))


def _listed_poses(path: Path) -> CameraPoses:
    """Poses of every file with cameras, and of lists of poses alone."""
    try:
        file = read_camera_file(path)
    except SplatInputError:
        return read_poses(path)
    poses = {name: camera.T_world_cam for name, camera in zip(file.names, file.cameras, strict=True)}
    return CameraPoses(source=path, T_world_cam=poses)


def _method(config: EnhanceConfig, poses: np.ndarray | None, uses_reference: bool) -> str:
    if config.references == "none" or (config.references == "auto" and (config.captured is None or not uses_reference)):
        return "none"
    if config.captured is None:
        raise InputError(f"references by {config.references} are chosen among photos: name them with --scene")
    if not config.captured.is_dir():
        raise InputError(f"there is no folder {config.captured}: expected captured photos")
    if not uses_reference:
        raise InputError("these weights know no references: use --references none, or others with --model")
    if config.references == "pose" and poses is None:
        raise InputError(f"nothing says from where the frames of {config.source} were seen: name --cameras")
    if config.references == "similarity" or poses is None:
        return "similarity"
    return "pose" if config.references == "pose" or find_poses(config.captured) is not None else "similarity"


def _by_similarity(job: VideoJob, photos: Sequence[Path], count: int) -> tuple[tuple[Path, ...], ...]:
    """For every frame the photos that look most alike; for a film its frames are read once more, as thumbnails."""
    config = ReferenceConfig(by="similarity", num_references=count)
    folder = photos[0].parent
    if job.images:
        return choose_references(job.images, folder, config).references
    with tempfile.TemporaryDirectory() as kept:
        thumbnails = []
        for index, frame in enumerate(job.frames()):
            thumbnail = Image.fromarray(frame.rgb)
            thumbnail.thumbnail((4 * THUMBNAIL_SIDE, 4 * THUMBNAIL_SIDE), Image.Resampling.BOX)
            thumbnails.append(Path(kept) / f"{index:06d}.png")
            thumbnail.save(thumbnails[-1])
        return choose_references(thumbnails, folder, config).references
