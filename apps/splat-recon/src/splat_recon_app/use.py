"""`splat-recon eval`, `render` and `export`: what a finished or unfinished run is used for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splat_recon import run_folder
from splat_recon.errors import InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.console import console, logging_to, progress_bar

if TYPE_CHECKING:
    from splat_recon.evaluate import Evaluation, Render
    from splat_recon.scene.scene import View
    from splat_recon.trained import TrainedSplats


def score(render: Render, views: Sequence[View], images: Path, where: str) -> Evaluation:
    """Score renders, print the means, and write each render beside its photo."""
    from splat_recon.evaluate import evaluate
    from splat_recon.io.images import write_beside
    from splat_recon.metrics import make_lpips

    def write(view: View, rendered) -> None:
        write_beside((images / view.name).with_suffix(".png"), rendered, view.rgb_u8)
        bar.advance(task)

    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(views), note="render | photo")
        scores = evaluate(render, views, lpips=make_lpips(device=where), on_view=write)
    perceptual = "" if scores.lpips is None else f"  LPIPS {scores.lpips:.3f}"
    console.print(f"{len(views)} views: PSNR {scores.psnr:.2f} dB  SSIM {scores.ssim:.3f}{perceptual}")
    return scores


def evaluate_run(args: cli.Eval) -> int:
    """Score a run on one side of its split."""
    from splat_recon_app.train import read_scene_and_split

    run = RunFolder(args.run)
    settings = run_folder.read_settings(run)
    run_folder.check_writable(run.path)
    scene_folder = args.scene or Path(settings["scene"])
    if not scene_folder.is_dir():
        raise InputError(f"the run's scene folder {scene_folder} is not there: name it with --scene")
    from splat_recon.device import chosen_device

    with logging_to(run.log):
        splats = _splats(run, chosen_device(args.device))
        scene, split = read_scene_and_split(scene_folder, settings["split"], settings["sparse"], settings["max_size"])
        run_folder.check_same_scene(run, scene.name, scene.names, scene.T_scene_colmap)
        views = scene.select(split.test if args.split == "test" else split.train)
        scores = score(lambda camera: splats.render(camera).rgb, views, run.images, splats.device)
    content = scores.to_dict(step=splats.step, split=args.split, num_gaussians=len(splats.gaussians))
    run_folder.write_json(run.metrics(args.split), content)
    print(run.metrics(args.split))
    return 0


def render_run(args: cli.Render) -> int:
    """Render a video through the training cameras, in the order of their names."""
    run = RunFolder(args.run)
    run_folder.read_settings(run)
    cameras, _ = run_folder.read_cameras(run)
    if len(cameras) < 2:
        raise InputError(f"{args.run} was trained on one view: a path needs two cameras")
    _check_file(args.out, ".mp4")
    from splat_recon.device import chosen_device

    with logging_to(None):
        splats = _splats(run, chosen_device(args.device))
        from splat_recon.geometry.trajectories import interpolated
        from splat_recon.io.images import to_u8
        from splat_recon.io.video import write_video

        path = interpolated([camera.T_world_cam for camera in cameras.values()], args.frames_per_view)
        first = next(iter(cameras.values()))
        with progress_bar() as bar:
            task = bar.add_task("rendering", total=len(path), note="frames")

            def frames():
                for T_world_cam in path:
                    yield to_u8(splats.render(first.with_pose(T_world_cam)).rgb)
                    bar.advance(task)

            write_video(args.out, frames(), fps=args.fps)
    print(args.out)
    return 0


def export_run(args: cli.Export) -> int:
    """Write a PLY file."""
    run = RunFolder(args.run)
    run_folder.read_settings(run)
    _check_file(args.out, ".ply")
    with logging_to(None):
        from splat_recon.trained import export_ply

        _, T_scene_colmap = run_folder.read_cameras(run)
        export_ply(args.out, _splats(run, "cpu").gaussians, T_scene_colmap)
    print(args.out)
    return 0


def _check_file(path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise InputError(f"--out {path}: the file's name must end in {suffix}")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file in it")
    run_folder.check_writable(path.parent)


def _splats(run: RunFolder, where: str) -> TrainedSplats:
    from splat_recon.checkpoint import newest_checkpoint
    from splat_recon.trained import TrainedSplats

    newest = newest_checkpoint(run.checkpoints)
    if newest is None:
        raise InputError(f"{run.path} holds no whole checkpoint: train first")
    return TrainedSplats.load(newest, device=where)
