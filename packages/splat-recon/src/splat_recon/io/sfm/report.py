"""How good a reconstruction is, in numbers, and what to do where it is bad."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from output_files import write_text_whole
from splat_recon.io.pycolmap_import import pycolmap

REPORT_FILE = "sfm_report.json"
"""Name of the report in the scene folder."""

NUM_WEAKEST = 5
"""How many of the weakest views are named."""

FEW_POINTS = 50
"""A view with fewer points than this hangs by a thread."""

LARGE_ERROR_PX = 1.5
"""A mean reprojection error beyond this says that something moved, is blurred, or is not the lens it is taken for."""

SHORT_TRACK = 2.8
"""Points that are seen in fewer photos than this, in the mean, come from photos too far apart."""

SMALL_SIZE = 800
"""Matched at fewer pixels on their longer side, photos lose features that tie them to each other."""

FOCAL_RANGE = (0.35, 4.0)
"""Focal lengths as parts of the longer side that lenses have; others come from a calibration that went wrong."""


@dataclass(frozen=True, kw_only=True)
class ViewQuality:
    """How well one photo is tied to the others."""

    name: str
    """The photo."""

    num_points: int
    """Points of the model that it shows."""

    mean_error_px: float
    """Mean distance between those points' projections and where they were seen, in pixels of the photo as given."""


@dataclass(frozen=True, kw_only=True)
class SfmResult:
    """What `reconstruct` found."""

    num_photos: int
    """Photos in the folder, or frames taken from the video."""

    registered: tuple[str, ...]
    """Names of those that have a camera now, sorted."""

    unregistered: tuple[str, ...]
    """Names of the others, sorted."""

    num_points: int
    """Points of the model."""

    mean_reprojection_error_px: float
    """Mean over the points of their mean distance from where they were seen, in pixels of the photos as given."""

    mean_track_length: float
    """Photos that show a point, in the mean."""

    model_sizes: tuple[int, ...]
    """Photos of the models that COLMAP found, the largest first; that one was kept."""

    cameras: tuple[str, ...]
    """The estimated cameras, as COLMAP writes them."""

    weakest: tuple[ViewQuality, ...]
    """The views with the fewest points, the weakest first."""

    views: tuple[ViewQuality, ...]
    """All registered views, by name."""

    choices: Mapping[str, str]
    """What was chosen for cameras, matching, mapping and device, and why."""

    advice: tuple[str, ...]
    """What to do where the result is bad; empty where it is good."""

    seconds: float
    """How long it took."""

    def to_dict(self) -> dict[str, Any]:
        """As in the report file."""
        return {"num_registered": len(self.registered), **asdict(self)}


def view_qualities(reconstruction: pycolmap.Reconstruction) -> list[ViewQuality]:
    """All registered views, by name."""
    found = []
    for image in reconstruction.images.values():
        if not image.has_pose:
            continue
        seen = [point for point in image.points2D if point.has_point3D()]
        error = 0.0
        if seen:
            p_world = np.array([reconstruction.points3D[point.point3D_id].xyz for point in seen])
            pose = np.asarray(image.cam_from_world().matrix())
            projected = np.asarray(
                reconstruction.cameras[image.camera_id].img_from_cam(p_world @ pose[:, :3].T + pose[:, 3])
            )
            distance = np.linalg.norm(projected - np.array([point.xy for point in seen]), axis=1)
            error = float(distance[np.isfinite(distance)].mean()) if np.isfinite(distance).any() else 0.0
        found.append(ViewQuality(name=image.name, num_points=len(seen), mean_error_px=error))
    return sorted(found, key=lambda view: view.name)


def advice_on(
    reconstruction: pycolmap.Reconstruction,
    views: Sequence[ViewQuality],
    unregistered: Sequence[str],
    model_sizes: Sequence[int],
    max_size: int,
) -> list[str]:
    """What to do where a reconstruction is bad, the cheapest first; nothing where it is good."""
    advice = []
    longest = max(max(camera.width, camera.height) for camera in reconstruction.cameras.values())
    if (unregistered or len(model_sizes) > 1) and (size := size_advice(longest, max_size)):
        advice.append(f"first of all, {size}")
    if len(model_sizes) > 1:
        sizes = ", ".join(map(str, model_sizes))
        advice.append(
            f"the photos fall into {len(model_sizes)} models of {sizes} photos, and only the largest is kept: take "
            "photos that connect the parts, or reconstruct each part by itself"
        )
    if unregistered:
        shown = ", ".join(unregistered[:5]) + (", ..." if len(unregistered) > 5 else "")
        advice.append(
            f"{len(unregistered)} of {len(unregistered) + len(views)} photos have no camera ({shown}): take photos "
            "between them and the others (film slower), or try splat-recon sfm --max-features 8000"
        )
    error = reconstruction.compute_mean_reprojection_error()
    if error > LARGE_ERROR_PX:
        advice.append(
            f"the mean reprojection error is {error:.2f} px: leave blurred photos out, see that nothing moves, and try "
            "splat-recon sfm with another lens (--camera-model OPENCV), or --camera-mode per-image if the zoom changed"
        )
    track = reconstruction.compute_mean_track_length()
    if track < SHORT_TRACK:
        advice.append(
            f"points are seen in {track:.1f} photos in the mean: take photos closer "
            "to each other, each showing more than half of what the one before shows"
        )
    thin = [view.name for view in views if view.num_points < FEW_POINTS]
    if thin:
        advice.append(
            f"photos with fewer than {FEW_POINTS} points: {len(thin)} ({', '.join(thin[:5])}); their cameras are "
            "uncertain, for blank walls, sky and blur give no features"
        )
    for camera in reconstruction.cameras.values():
        part = camera.mean_focal_length() / max(camera.width, camera.height)
        if not FOCAL_RANGE[0] <= part <= FOCAL_RANGE[1]:
            advice.append(
                f"camera {camera.camera_id} has a focal length of {part:.2f} times its longer side, which few lenses "
                "have: use splat-recon sfm --camera-mode shared if one camera took all, and photos with EXIF data"
            )
            break
    return advice


def size_advice(longest_px: int, max_size: int) -> str:
    """What to do where photos were matched at so small a size that features were lost; else nothing.

    Args:
        max_size: Longer side at which photos are matched at most, in pixels.
    """
    if max_size >= min(SMALL_SIZE, longest_px):
        return ""
    return f"leave --max-size: at {max_size} pixels photos have less in common than at their own {longest_px}"


def advice_without_model(num_photos: int, configurations: Sequence[str], num_pairs: int, size: str = "") -> str:
    """Why no cameras were found, as far as the matches tell, and what to do.

    Args:
        configurations: COLMAP's name for the geometry of each verified pair.
        size: What `size_advice` says; it comes first, since it asks for no new photos.
    """
    wish = (
        "take photos that overlap by more than half, of something with texture that does not move, from places that "
        "differ (turning on the spot is not enough)"
    )
    if size:
        wish = f"first of all, {size}; then, {wish}"
    if not configurations:
        return f"no cameras could be found for the {num_photos} photos: {num_pairs} pairs compared, none alike: {wish}"
    turned = sum(name in ("PANORAMIC", "PLANAR_OR_PANORAMIC") for name in configurations)
    if turned > 0.7 * len(configurations):
        return (
            f"no cameras could be found for the {num_photos} photos: {turned} of {len(configurations)} matching pairs "
            f"are taken from one place or show a flat thing, so no pair is there to start with: {wish}"
        )
    return (
        f"no cameras could be found for the {num_photos} photos: {len(configurations)} pairs match, but none gives a "
        f"pair to start with: {wish}; splat-recon sfm with --max-features 8000 or --camera-model OPENCV may help"
    )


def write_report(path: Path, result: SfmResult) -> None:
    """Write the report as JSON."""
    write_text_whole(path, json.dumps(result.to_dict(), indent=2) + "\n")


def summary(result: SfmResult) -> list[str]:
    """The report for people, a line each."""
    points = [view.num_points for view in result.views]
    lines = [
        f"{len(result.registered)} of {result.num_photos} photos have a camera, {result.num_points} points, "
        f"mean error {result.mean_reprojection_error_px:.2f} px, mean track {result.mean_track_length:.1f} photos, "
        f"{statistics.median(points):.0f} points per photo, {result.seconds:.0f} s"
    ]
    lines += [f"{what}: {choice}" for what, choice in result.choices.items()]
    weakest = ", ".join(
        f"{view.name} ({view.num_points} points, {view.mean_error_px:.2f} px)" for view in result.weakest
    )
    return [*lines, f"weakest views: {weakest}", *(f"advice: {one}" for one in result.advice)]
