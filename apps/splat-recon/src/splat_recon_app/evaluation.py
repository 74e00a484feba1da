"""Scores: of a training at its end, and `splat-recon eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import console, ended, logging_to, progress_bar
from splat_recon import InputError, run_folder
from splat_recon.io.layouts import check_scene_folder
from splat_recon.io.own_runs import is_splat_run
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.data_flags import SceneFlags
from splat_recon_app.scenes import read_scene_and_split, scene_of

if TYPE_CHECKING:
    from splat_recon import Evaluation, Scene, SplatModel, Split, View
    from splat_recon.evaluate import Render
    from splat_render import Camera


def score(splats: SplatModel, views: Sequence[View], run: RunFolder, *, names: Sequence[str], split: str) -> None:
    """Score renders on photos and write the figures, each render beside its photo, and all on a contact sheet.

    Where exposures were learned, scores of renders whose colors were first aligned to each photo are added: they say
    how good the shapes are, and stand beside the plain scores.

    Args:
        names: Names of all views of the scene, of which those of the pictures are made.
        split: Which side the photos are of, for the names of the files.
    """
    files = run_folder.picture_names(names)

    def render(camera: Camera) -> Any:
        return splats.render(camera).rgb

    scores = _scored(render, views, run, files, splats.device, split)
    perceptual = "" if scores.lpips is None else f"  LPIPS {scores.lpips:.3f}"
    flip = "" if scores.flip is None else f"  FLIP {scores.flip:.3f}"
    console.print(f"{len(views)} views: PSNR {scores.psnr:.2f} dB  SSIM {scores.ssim:.3f}{flip}{perceptual}")
    content = scores.to_dict(step=splats.step, split=split, num_gaussians=len(splats.gaussians))
    content["pictures"] = {view.name: files[view.name] for view in views}
    if splats.training is not None and splats.training.appearance is not None:
        content["color_corrected"] = _color_corrected(render, views)
    run_folder.write_json(run.scores(split), content)


def _scored(
    render: Render, views: Sequence[View], run: RunFolder, files: Mapping[str, str], device: str, split: str
) -> Evaluation:
    from image_metrics import make_lpips
    from splat_recon.evaluate import evaluate
    from splat_recon.io.images import read_photo, write_beside, write_photo
    from splat_recon.pages.contact_sheet import contact_sheet

    def file(view: View) -> Path:
        return run.images / files[view.name]

    def write(view: View, rendered) -> None:
        write_beside(file(view), rendered, view.rgb_u8)
        bar.advance(task)

    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(views), note="render | photo")
        scores = evaluate(render, views, lpips=make_lpips(device=device), on_view=write)
    # The renders stand on the left of the files that were just written.
    sheet = contact_sheet(views, lambda view: read_photo(file(view))[0][:, : view.camera.width], scores)
    write_photo(run.contact_sheet(split), sheet)
    return scores


def _color_corrected(render: Render, views: Sequence[View]) -> dict[str, Any]:
    from splat_recon.per_photo.color_alignment import color_corrected_scores

    scores = color_corrected_scores(render, views)
    psnr = sum(score.psnr for score in scores.values()) / len(scores)
    ssim = sum(score.ssim for score in scores.values()) / len(scores)
    console.print(f"with colors aligned to each photo: PSNR {psnr:.2f} dB  SSIM {ssim:.3f}")
    per_view = {name: {"psnr": score.psnr, "ssim": score.ssim} for name, score in scores.items()}
    return {"psnr": psnr, "ssim": ssim, "per_view": per_view}


def evaluate(args: cli.Eval) -> int:
    """Score a run or a splat file on photos."""
    run = _score_run(args, args.splat) if is_splat_run(args.splat) else _score_file(args)
    film = run.path / "film.mp4"
    scene = () if args.scene is None else ("--scene", args.scene)
    ended(run.scores(args.side), "difix3d-enhance", "--splat", args.splat, *scene, "--out", film)
    return 0


def _score_run(args: cli.Eval, folder: Path) -> RunFolder:
    if (args.out, args.split, args.max_size) != (None, "auto", None):
        raise InputError("--out, --split and --max-size are for a splat file: a run has its own")
    run = RunFolder(folder)
    settings = run_folder.read_settings(run)
    run_folder.check_own(run.path)
    scene_folder = args.scene or Path(settings["scene"])
    if not scene_folder.is_dir():
        raise InputError(f"the run's scene folder {scene_folder} is not there: name it with --scene")
    from splat_recon import SplatModel
    from splat_render import chosen_device

    with logging_to(run.log):
        splats = SplatModel.newest(run.checkpoints, device=chosen_device(args.device))
        flags = SceneFlags(images=settings.get("images", "auto"), sparse_model=settings.get("sparse_model"))
        scene, split = read_scene_and_split(
            scene_folder, settings["split"], settings["sparse"], settings["max_size"], flags
        )
        run_folder.check_same_scene(run, scene.name, scene.names, scene.T_scene_colmap)
        run_folder.check_same_split(run, split.train)
        run_folder.check_outputs(run, scene)
        score(splats, _views(scene, split, args.side), run, names=scene.names, split=args.side)
    if args.side == "test":
        from splat_recon import write_report

        write_report(run)
    return run


def _score_file(args: cli.Eval) -> RunFolder:
    if args.scene is None or args.out is None:
        raise InputError(f"{args.splat} needs --scene, with the photos, and --out, for the scores")
    folder, scene_folder = args.out, args.scene
    run = RunFolder(folder)
    if run.config.exists() or run.checkpoints.exists():
        raise InputError(f"{folder} holds a run, whose scores would be lost: choose another --out")
    check_scene_folder(scene_folder)
    run_folder.check_apart(run, scene_folder)
    from splat_recon import SplatModel, make_split
    from splat_render import chosen_device

    with logging_to(None):
        splats = SplatModel.of_file(args.splat, which=args.which, device=chosen_device(args.device))
        # Splat files are in COLMAP's frame, so the scene stays there.
        scene = scene_of(scene_folder, args.max_size, SceneFlags())
        split = None if args.side == "all" else make_split(scene.names, args.split, scene_folder=scene_folder)
        run_folder.check_outputs(run, scene)
        run_folder.check_own(run.path)
        score(splats, _views(scene, split, args.side), run, names=scene.names, split=args.side)
    return run


def _views(scene: Scene, split: Split | None, side: str) -> Sequence[View]:
    if split is None or side == "all":
        return scene.views
    chosen = scene.select(split.test if side == "test" else split.train)
    if not chosen:
        raise InputError("no photo was held out: --side train scores those that were trained on")
    return chosen
