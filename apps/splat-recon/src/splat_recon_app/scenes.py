"""Reading scenes as the flags say, and `splat-recon convert`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from commands import console, ended, logging_to
from output_files import check_inputs_kept
from splat_recon import InputError, run_folder
from splat_recon.io.layouts import check_scene_folder
from splat_recon_app.data_flags import AS_FOUND, Convert, SceneFlags

if TYPE_CHECKING:
    from splat_recon import Scene, Split, View


MAX_SHOWN = 8
"""Training photos that results are shown on, where none is held out."""


def scene_of(folder: Path, max_size: int | None, flags: SceneFlags) -> Scene:
    """A scene in COLMAP's frame."""
    from splat_recon import read_scene
    from splat_recon.io.undistort import default_cache_folder

    cache = flags.photo_cache or (default_cache_folder() if flags.keep_undistorted else None)
    return read_scene(
        folder,
        max_size=max_size,
        images=flags.images,
        model=flags.sparse_model,
        photo_bytes=int(flags.photo_memory * 2**30),
        cache_folder=cache,
    )


def read_scene_and_split(
    scene_folder: Path, split: str, sparse: int | None, max_size: int | None, flags: SceneFlags = AS_FOUND
) -> tuple[Scene, Split]:
    """The normalized scene of a folder and its split, both checked."""
    from splat_recon import make_split, normalized

    scene = normalized(scene_of(scene_folder, max_size, flags))
    return scene, make_split(scene.names, split, sparse=sparse, scene_folder=scene_folder)


def read_training_scene(
    scene_folder: Path, split: str, sparse: int | None, max_size: int | None, flags: SceneFlags = AS_FOUND
) -> tuple[Scene, Split]:
    """The same, with the points that two of the training photos see, and a word on how many these are."""
    from splat_recon import with_training_points

    scene, chosen = read_scene_and_split(scene_folder, split, sparse, max_size, flags)
    scene, points = with_training_points(scene, chosen.train)
    points.log()
    if not points.may_leak:  # Warnings are on the screen already.
        console.print(points.sentence())
    return scene, chosen


def shown_views(scene: Scene, split: Split) -> tuple[Sequence[View], Literal["test", "train"]]:
    """The photos that results are shown on, and their side: those held out, or where there are none some others."""
    if split.test:
        return scene.select(split.test), "test"
    from report_pages import spread

    photos = scene.select(split.train)
    return [photos[index] for index in spread(len(photos), MAX_SHOWN)], "train"


def convert(args: Convert) -> int:
    """Write a scene in another form."""
    check_scene_folder(args.scene)
    if args.out.is_dir() and any(args.out.iterdir()):
        raise InputError(f"{args.out} is not empty: choose another --out")
    with run_folder.writable(args.out), logging_to(None), console.status("converting"):
        from splat_recon import write_scene, write_transforms

        scene = scene_of(args.scene, args.max_size or None, args)
        check_inputs_kept([args.out / "scene"], scene.sources)
        write = write_scene if args.to == "colmap" else write_transforms
        write(args.out, scene)
    ended(args.out, "splat-recon", "train", "--scene", args.out, "--out", args.out.with_name(f"{args.out.name}-run"))
    return 0
