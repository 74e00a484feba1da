"""`splat-recon export`: what is trained, or a splat file, as a splat file of any format."""

from __future__ import annotations

from pathlib import Path

from commands.logs import logging_to
from commands.progress import console
from output_files import check_inputs_kept
from splat_recon import run_folder
from splat_recon.errors import InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli


def export(args: cli.Export) -> int:
    """Write a splat file."""
    from splat_render.files.formats import ending_of

    ending_of(args.out)
    if args.out.is_dir():
        raise InputError(f"--out {args.out} is a folder: name a file in it")
    if args.run is not None:
        run_folder.read_settings(RunFolder(args.run))
    check_inputs_kept([args.out], [] if args.splats is None else [args.splats])
    run_folder.check_writable(args.out.parent)
    with logging_to(None):
        if args.splats is not None:
            _convert(args.splats, args.out, background_shell=args.background_shell)
        else:
            _export(RunFolder(args.run or Path()), args.out, background_shell=args.background_shell)
    print(args.out)
    return 0


def _export(run: RunFolder, target: Path, *, background_shell: bool) -> None:
    from splat_recon.export import export_splats
    from splat_recon.splat_model import SplatModel

    _, T_scene_colmap = run_folder.read_cameras(run)
    splats = SplatModel.newest(run.checkpoints)
    export_splats(
        target,
        splats.gaussians,
        T_scene_colmap,
        antialiased=splats.config.antialiased,
        background=splats.background,
        background_shell=background_shell,
    )


def _convert(source: Path, target: Path, *, background_shell: bool) -> None:
    from dataclasses import replace

    from splat_render.files.background import BLACK
    from splat_render.files.formats import read_splats, write_splats
    from splat_render.shell import with_shell

    with console.status("converting"):
        content = read_splats(source)
        if background_shell:
            content = replace(content, gaussians=with_shell(content.gaussians, content.background or BLACK))
        write_splats(target, content)
    console.print(f"{len(content.gaussians):,} Gaussians, SH degree {content.gaussians.sh_degree_max}")
