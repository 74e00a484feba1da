"""`splat-recon export`: what is trained, or a splat file, as a splat file of any format or as a page."""

from __future__ import annotations

from pathlib import Path

from commands import console, ended, logging_to
from output_files import check_inputs_kept, check_writable, write_text_whole
from splat_recon import InputError, run_folder
from splat_recon.io.own_runs import is_splat_run
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.sources import opened
from splat_render.files.folders import splat_file

PAGE_ENDINGS = (".html", ".htm")
"""Of names that ask for a page."""


def export(args: cli.Export) -> int:
    """Write a splat file, or a page."""
    from splat_render.files.formats import ending_of

    is_page = args.out.suffix.lower() in PAGE_ENDINGS
    if not is_page:
        ending_of(args.out)
    if args.out.is_dir():
        raise InputError(f"--out {args.out} is a folder: name a file in it")
    is_run = is_splat_run(args.splat)
    source = None if is_run else splat_file(args.splat, args.which)
    check_inputs_kept([args.out], [] if source is None else [source])
    check_writable(args.out.parent)
    with logging_to(None):
        if is_page:
            _write_page(args)
        elif source is None:
            _export(RunFolder(args.splat), args.out, background_shell=args.background_shell)
        else:
            _convert(source, args.out, background_shell=args.background_shell)
    if is_page:
        console.print("Open it in a browser: it needs nothing beside it, and no server.", highlight=False)
        ended(args.out, "python", "-m", "webbrowser", args.out)
    else:
        ended(args.out, "splat-recon", "export", "--splat", args.out, "--to", args.out.with_name("scene.html"))
    return 0


def _write_page(args: cli.Export) -> None:
    from splat_recon.pages.scene_page import scene_page

    with console.status("writing"):
        found = opened(args.splat, args.which, cameras=args.cameras, device="cpu")
        name = args.splat.resolve().name
        page = scene_page(
            found.splats.gaussians,
            found.cameras,
            title=name,
            background=found.splats.background,
            near_plane=found.splats.config.near,
        )
        write_text_whole(args.out, page)
    console.print(f"{len(found.splats.gaussians):,} Gaussians; view-dependent color is left out", highlight=False)


def _export(run: RunFolder, target: Path, *, background_shell: bool) -> None:
    from splat_recon import SplatModel, export_splats

    _, T_scene_colmap = run_folder.read_cameras(run)
    splats = SplatModel.newest(run.checkpoints)
    export_splats(
        target,
        splats.gaussians,
        T_scene_colmap,
        antialiased=splats.config.antialiased,
        background=splats.background,
        near_plane=None if splats.training is None else splats.training.render_near,
        background_shell=background_shell,
    )


def _convert(source: Path, target: Path, *, background_shell: bool) -> None:
    from dataclasses import replace

    from splat_render import read_splats, write_splats
    from splat_render.files.background import BLACK
    from splat_render.shell import with_shell

    with console.status("converting"):
        content = read_splats(source)
        if background_shell:
            content = replace(content, gaussians=with_shell(content.gaussians, content.background or BLACK))
        write_splats(target, content)
    console.print(f"{len(content.gaussians):,} Gaussians, SH degree {content.gaussians.sh_degree_max}")
