"""Gaussians of a scene written as files in COLMAP's frame."""

from pathlib import Path

import numpy as np

from splat_render.files.background import BACKGROUND, BLACK, Background
from splat_render.files.formats import SplatFile, write_splats
from splat_render.files.near_plane import near_comments
from splat_render.files.ply import write_ply
from splat_render.files.world_offset import OFFSET, offset_for
from splat_render.gaussians import Gaussians
from splat_render.poses import decompose_similarity, inverse
from splat_render.shell import with_shell
from splat_render.transform import transformed


def export_ply(
    path: Path,
    gaussians: Gaussians,
    T_scene_colmap: np.ndarray,
    *,
    background: Background = BLACK,
    near_plane: float | None = None,
) -> None:
    """`export_splats` for the layout that everything reads."""
    content = _in_world(gaussians, T_scene_colmap, antialiased=False, background=background, near_plane=near_plane)
    lines = [*OFFSET.comments(content.offset), *BACKGROUND.comments(background), *near_comments(content.near_plane)]
    write_ply(path, content.gaussians, comments=lines)


def export_splats(
    path: Path,
    gaussians: Gaussians,
    T_scene_colmap: np.ndarray,
    *,
    antialiased: bool = False,
    background: Background = BLACK,
    near_plane: float | None = None,
    background_shell: bool = False,
) -> None:
    """Write Gaussians in COLMAP's frame, where the photos' own cameras are, in the format that the name asks for.

    Where that frame's origin is far from the scene, positions are written less an offset that the file names
    (`splat_render.files.world_offset`): float32 would round them.

    Args:
        path: The file; .ply, .compressed.ply, .spz or .splat.
        gaussians: In the scene's frame.
        T_scene_colmap: Similarity from COLMAP's frame to the scene's.
        antialiased: Whether they were trained with antialiased rendering, which the file says.
        background: The color that they were trained before, which the file says; sRGB in [0, 1].
        near_plane: The nearest depth at which they are to be drawn, in the scene's units, which PLY files say
            (`TrainConfig.render_near`); None: any.
        background_shell: Whether a far shell of Gaussians shows that color (`splat_render.shell`), for viewers that do
            not read what the file says.

    Raises:
        InputError: The file cannot be written, or its ending is another.
    """
    if background_shell:
        gaussians = with_shell(gaussians, background)
    content = _in_world(
        gaussians, T_scene_colmap, antialiased=antialiased, background=background, near_plane=near_plane
    )
    write_splats(path, content)


def _in_world(
    gaussians: Gaussians,
    T_scene_colmap: np.ndarray,
    *,
    antialiased: bool,
    background: Background,
    near_plane: float | None,
) -> SplatFile:
    """In COLMAP's frame, less an offset where its origin is far away."""
    T_colmap_scene = inverse(T_scene_colmap)
    # The scene's own unit is the distance of its cameras from what they look at.
    unit = decompose_similarity(T_colmap_scene)[0]
    offset = offset_for(T_colmap_scene[:3, 3], unit)
    T_colmap_scene[:3, 3] -= offset
    return SplatFile(
        gaussians=transformed(gaussians.detach().to("cpu"), T_colmap_scene),
        antialiased=antialiased,
        offset=offset,
        background=background,
        near_plane=None if near_plane is None else near_plane * unit,
    )
