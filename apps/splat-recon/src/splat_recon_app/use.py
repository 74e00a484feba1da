"""`splat-recon eval` and `export`: what a finished or unfinished run is scored on and written as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splat_recon import run_folder
from splat_recon.errors import InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.console import console, logging_to, progress_bar
from splat_recon_app.data_flags import SceneFlags

if TYPE_CHECKING:
    from splat_recon.evaluate import Evaluation, Render
    from splat_recon.scene.scene import View
    from splat_recon.trained import TrainedSplats


def score(render: Render, views: Sequence[View], run: RunFolder, where: str, split: str = "test") -> Evaluation:
    """Score renders, print the means, write each render beside its photo, and all of them on a contact sheet."""
    from splat_recon.contact_sheet import contact_sheet
    from splat_recon.evaluate import evaluate
    from splat_recon.io.images import read_photo, write_beside, write_photo
    from splat_recon.metrics import make_lpips

    def file(view: View) -> Path:
        return (run.images / view.name).with_suffix(".png")

    def write(view: View, rendered) -> None:
        write_beside(file(view), rendered, view.rgb_u8)
        bar.advance(task)

    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(views), note="render | photo")
        scores = evaluate(render, views, lpips=make_lpips(device=where), on_view=write)
    # The renders stand on the left of the files that were just written.
    sheet = contact_sheet(views, lambda view: read_photo(file(view))[0][:, : view.camera.width], scores)
    write_photo(run.contact_sheet(split), sheet)
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
        splats = trained_splats(run, chosen_device(args.device))
        flags = SceneFlags(images=settings.get("images", "auto"), model=settings.get("model"))
        scene, split = read_scene_and_split(
            scene_folder, settings["split"], settings["sparse"], settings["max_size"], flags
        )
        run_folder.check_same_scene(run, scene.name, scene.names, scene.T_scene_colmap)
        views = scene.select(split.test if args.split == "test" else split.train)
        scores = score(lambda camera: splats.render(camera).rgb, views, run, splats.device, args.split)
    content = scores.to_dict(step=splats.step, split=args.split, num_gaussians=len(splats.gaussians))
    run_folder.write_json(run.metrics(args.split), content)
    if args.split == "test":
        from splat_recon.report import write_report

        write_report(run)
    print(run.metrics(args.split))
    return 0


def export(args: cli.Export) -> int:
    """Write a splat file."""
    from splat_recon.io.formats import ending_of

    ending_of(args.out)
    if args.out.is_dir():
        raise InputError(f"--out {args.out} is a folder: name a file in it")
    if args.run is not None:
        run_folder.read_settings(RunFolder(args.run))
    run_folder.check_writable(args.out.parent)
    with logging_to(None):
        if args.splats is not None:
            _convert(args.splats, args.out)
        else:
            from splat_recon.trained import export_splats

            run = RunFolder(args.run or Path())
            _, T_scene_colmap = run_folder.read_cameras(run)
            splats = trained_splats(run, "cpu")
            export_splats(args.out, splats.gaussians, T_scene_colmap, antialiased=splats.config.antialiased)
    print(args.out)
    return 0


def _convert(source: Path, target: Path) -> None:
    from splat_recon.io.formats import read_splats, write_splats

    with console.status("converting"):
        content = read_splats(source)
        write_splats(target, content)
    console.print(f"{len(content.gaussians):,} Gaussians, SH degree {content.gaussians.sh_degree_max}")


def trained_splats(run: RunFolder, where: str) -> TrainedSplats:
    """The newest Gaussians of a run.

    Raises:
        InputError: The run holds no whole checkpoint.
    """
    from splat_recon.checkpoint import newest_checkpoint
    from splat_recon.trained import TrainedSplats

    newest = newest_checkpoint(run.checkpoints)
    if newest is None:
        raise InputError(f"{run.path} holds no whole checkpoint: train first")
    return TrainedSplats.load(newest, device=where)
