"""`splat-recon sfm`: photos without cameras to a scene folder."""

from __future__ import annotations

from splat_recon import run_folder
from splat_recon.errors import InputError
from splat_recon_app import cli
from splat_recon_app.console import console, logging_to


def sfm(args: cli.Sfm) -> int:
    """Find cameras and points, undistort, write."""
    if not args.images.is_dir():
        raise InputError(f"there is no folder of photos {args.images}")
    existed = args.out.exists()
    run_folder.check_writable(args.out)
    with logging_to(None), console.status("matching photos and finding cameras"):
        from splat_recon.io.sfm import SfmConfig, reconstruct

        try:
            found = reconstruct(args.images, args.out, SfmConfig(single_camera=args.shared_camera))
        except InputError:
            if not existed and not any(args.out.iterdir()):
                args.out.rmdir()
            raise
    console.print(
        f"{len(found.registered)} of {found.num_photos} photos have a camera, {found.num_points} points, "
        f"mean error {found.mean_reprojection_error_px:.2f} px"
    )
    print(args.out)
    return 0
