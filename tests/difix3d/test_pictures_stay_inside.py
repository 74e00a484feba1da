"""The pictures of a run: one file for every photo, inside the folder, whatever the photos are called."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from difix3d.report.pictures import write_comparison
from difix3d.report.results import VariantResult
from splat_recon import Evaluation
from support.hostile_names import HOSTILE, files_outside
from support.posed_scenes import orbit_scene


def test_every_held_out_photo_has_its_pictures_inside_the_folder(tmp_path: Path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "up.png").write_bytes(b"a photo of the user's")
    names = [*HOSTILE, str(tmp_path / "beside" / "up.png")]
    scene = orbit_scene(len(names), width=4, height=3)
    views = [replace(view, name=name) for view, name in zip(scene.views, names, strict=True)]
    renders = {name: np.full((3, 4, 3), index, np.uint8) for index, name in enumerate(names)}
    scores = Evaluation(psnr=0.0, ssim=0.0, lpips=None, per_view={})
    result = VariantResult(name="loop", evaluation=scores, renders_u8=renders, num_gaussians=0)
    before = files_outside(tmp_path, tmp_path / "images")
    write_comparison(tmp_path / "images", views, [result], names)
    assert files_outside(tmp_path, tmp_path / "images") == before
    for folder in ("photo", "loop"):
        assert len(list((tmp_path / "images" / folder).glob("*.png"))) == len(names)
    # Names that are fine, in a folder or not, are easily found again.
    assert (tmp_path / "images" / "loop" / "first_a.png").is_file()
