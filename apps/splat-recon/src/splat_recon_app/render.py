"""`splat-recon render`: films and frames along a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands import console, ended, logging_to, progress_bar
from output_files import check_writable
from splat_recon import InputError, run_folder
from splat_recon_app import cli
from splat_recon_app.sources import opened

if TYPE_CHECKING:
    from splat_recon import SplatModel
    from splat_render import Camera

FPS = 24.0
"""Frames per second, where nothing says otherwise."""


def render(args: cli.Render) -> int:
    """Render a film."""
    is_video = args.out.suffix.lower() == ".mp4"
    _check_out(args, is_video)
    from splat_recon import Film, write_frames, write_videos

    with logging_to(None):
        found = opened(args.splat, args.which, cameras=args.cameras, device=args.device)
        if not found.cameras:
            raise InputError(
                f"from where is {args.splat} to be seen? Name --cameras: a scene folder, or a cameras.json"
            )
        splats = found.splats if args.background is None else found.splats.over(args.background)
        path = _path(args, splats, list(found.cameras.values()))
        check_writable(args.out.parent) if is_video else run_folder.check_own(args.out)
        with progress_bar() as bar:
            task = bar.add_task("rendering", total=len(path), note="frames")
            film = Film(
                render=splats.render,
                cameras=path,
                shown=args.shown,
                depth_unit=found.colmap_unit,
                on_frame=lambda: bar.advance(task),
            )
            if is_video:
                written = write_videos(args.out, film, fps=args.fps or found.fps or FPS)
            else:
                num_rendered = write_frames(args.out, film, _record(args, splats, path), overwrite=args.overwrite)
                console.print(f"{num_rendered} of {len(path)} frames were rendered now")
                written = [args.out]
    for file in written[:-1]:
        print(file)
    fixed = args.out.with_name(f"{args.out.stem}_fixed{args.out.suffix}")
    if "rgb" in args.shown:
        ended(written[-1], "difix-fix", "--input", args.out, "--out", fixed)
    else:
        ended(written[-1], "splat-recon", "view", "--splat", args.splat, extra="viewer")
    return 0


def _check_out(args: cli.Render, is_video: bool) -> None:
    if is_video:
        if args.out.is_dir():
            raise InputError(f"--out {args.out} is a folder: name a file in it")
    elif args.out.suffix or args.out.is_file():
        raise InputError(f"--out {args.out}: a video's name must end in .mp4; a folder of frames has no ending")


def _path(args: cli.Render, splats: SplatModel, cameras: list[Camera]) -> list[Camera]:
    from splat_recon import CameraPathConfig, camera_path
    from splat_recon.film import depth_range

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
        "source": str(args.splat),
        **digests(splats.gaussians, path),
        "path": args.path,
        "size": [path[0].width, path[0].height],
        "background": list(splats.background),
    }
