"""`splat-recon sfm`: photos or a video without cameras to a scene folder."""

from __future__ import annotations

from commands import console, ended, exit_code, left, logging_to, messages_to
from splat_recon import InputError, run_folder
from splat_recon_app.data_flags import Sfm


def sfm(args: Sfm) -> int:
    """Find cameras and points, undistort, write, report."""
    if not args.images.exists():
        raise InputError(f"there is no folder of photos or video {args.images}")
    reading = console.status("reading photos")
    with (
        run_folder.writable(args.out),
        logging_to(None),
        reading as status,
        messages_to(status.update, "splat_recon.io.sfm"),
    ):
        from splat_recon import reconstruct
        from splat_recon.io.sfm.reconstruct import colmap_runs
        from splat_recon.io.sfm.report import summary

        try:
            found = reconstruct(args.images, args.out, args.config)
        except KeyboardInterrupt as interrupt:
            console.print("stopped: the same command goes on from here")
            return left(exit_code(interrupt), at_once=colmap_runs())
    for line in summary(found):
        console.print(line, highlight=False)
    run = args.out.with_name(f"{args.out.resolve().name}-run")
    ended(args.out, "difix3d-train", "--scene", args.out, "--out", run)
    return 0
