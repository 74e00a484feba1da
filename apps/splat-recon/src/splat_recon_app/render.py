"""`splat-recon render`: films and frames along a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from commands.logs import logging_to
from commands.progress import console, progress_bar
from splat_recon import run_folder
from splat_recon.errors import InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli

if TYPE_CHECKING:
    from splat_recon.io.camera_files import CameraFile
    from splat_recon.splat_model import SplatModel
    from splat_render.cameras import Camera

FPS = 24.0
"""Frames per second, where nothing says otherwise."""


def render(args: cli.Render) -> int:
    """Render a film."""
    is_video = args.out.suffix.lower() == ".mp4"
    _check_out(args, is_video)
    if args.run is not None:
        run_folder.read_settings(RunFolder(args.run))
    from splat_recon.film import Film, write_frames, write_videos

    with logging_to(None):
        given = _given(args)
        splats, cameras, colmap_unit = _opened(args, given)
        path = _path(args, splats, cameras)
        run_folder.check_writable(args.out.parent) if is_video else run_folder.check_own(args.out)
        with progress_bar() as bar:
            task = bar.add_task("rendering", total=len(path), note="frames")
            film = Film(
                render=splats.render,
                cameras=path,
                shown=args.shown,
                depth_unit=colmap_unit,
                on_frame=lambda: bar.advance(task),
            )
            if is_video:
                fps = args.fps or (given.fps if given else None) or FPS
                written = write_videos(args.out, film, fps=fps)
            else:
                num_rendered = write_frames(args.out, film, _record(args, splats, path), overwrite=args.overwrite)
                console.print(f"{num_rendered} of {len(path)} frames were rendered now")
                written = [args.out]
    for file in written:
        print(file)
    return 0


def _check_out(args: cli.Render, is_video: bool) -> None:
    if is_video:
        if args.out.is_dir():
            raise InputError(f"--out {args.out} is a folder: name a file in it")
    elif args.out.suffix or args.out.is_file():
        raise InputError(f"--out {args.out}: a video's name must end in .mp4; a folder of frames has no ending")


def _given(args: cli.Render) -> CameraFile | None:
    if args.cameras is None:
        return None
    from splat_recon.io.camera_files import read_camera_file

    return read_camera_file(args.cameras)


def _opened(args: cli.Render, given: CameraFile | None) -> tuple[SplatModel, list[Camera], float]:
    """The splats, the cameras in their frame, and the length of COLMAP's unit in it."""
    from splat_recon.splat_model import SplatModel
    from splat_render.device import chosen_device
    from splat_render.poses import decompose_similarity, transform_camera

    cameras = [] if given is None else given.cameras
    colmap_unit = 1.0
    if args.splats is not None:
        splats = SplatModel.of_file(args.splats, device=chosen_device(args.device))
        cameras = [splats.near(camera) for camera in cameras]
        splats = splats.without_offset()
    else:
        from splat_recon.splat_model import SplatModel

        run = RunFolder(args.run or Path())
        captured, T_scene_colmap = run_folder.read_cameras(run)
        colmap_unit = float(decompose_similarity(T_scene_colmap)[0])
        cameras = [transform_camera(T_scene_colmap, camera) for camera in cameras] or list(captured.values())
        splats = SplatModel.newest(run.checkpoints, device=chosen_device(args.device))
    return (splats if args.background is None else splats.over(args.background)), cameras, colmap_unit


def _path(args: cli.Render, splats: SplatModel, cameras: list[Camera]) -> list[Camera]:
    from splat_recon.film import depth_range
    from splat_recon.geometry.camera_paths import CameraPathConfig, camera_path

    if args.path == "given":
        path = cameras
    elif len(cameras) < 2:
        raise InputError(f"a path needs two cameras, got {len(cameras)}: use --path given, or name others by --cameras")
    else:
        config = CameraPathConfig(kind=args.path, num_frames=args.frames, frames_per_view=args.frames_per_view)
        near, far = depth_range(splats.gaussians, cameras)
        path = camera_path(cameras, config, near=near, far=far)
    sized = [_limited(camera, args.max_size) for camera in path]
    sizes = {(camera.width, camera.height) for camera in sized}
    if args.out.suffix.lower() == ".mp4" and len(sizes) > 1:
        raise InputError(f"the cameras have {len(sizes)} sizes, and a video has one: render a folder of frames")
    return sized


def _limited(camera: Camera, max_size: int | None) -> Camera:
    longer = max(camera.width, camera.height)
    if max_size is None or longer <= max_size:
        return camera
    scale = max_size / longer
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def _record(args: cli.Render, splats: SplatModel, path: list[Camera]) -> dict[str, object]:
    """What the frames depend on, short enough to be compared and read."""
    from splat_recon.film import digests

    return {
        "source": str(args.run or args.splats),
        **digests(splats.gaussians, path),
        "path": args.path,
        "size": [path[0].width, path[0].height],
        "background": list(splats.background),
    }
