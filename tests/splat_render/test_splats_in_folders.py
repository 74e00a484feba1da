"""Output folders of trainings stand for the splat in them."""

import pytest

from splat_render import InputError, SplatFile, read_splats, write_splats
from splat_render.files.folders import newest_splat
from support.splat_scenes import make_gaussians


def test_the_largest_iteration_is_read(tmp_path):
    for number, count in ((7000, 5), (30000, 7), (900, 3)):
        path = tmp_path / "point_cloud" / f"iteration_{number}" / "point_cloud.ply"
        write_splats(path, SplatFile(gaussians=make_gaussians(count)))
    (tmp_path / "point_cloud" / "iteration_best").mkdir()
    assert len(read_splats(tmp_path).gaussians) == 7


def test_a_runs_own_export_is_read(tmp_path):
    write_splats(tmp_path / "point_cloud.ply", SplatFile(gaussians=make_gaussians(4)))
    assert newest_splat(tmp_path) == tmp_path / "point_cloud.ply"
    assert len(read_splats(tmp_path).gaussians) == 4


def test_a_folder_without_a_splat_is_refused(tmp_path):
    assert newest_splat(tmp_path) is None
    with pytest.raises(InputError, match="is a folder without a splat"):
        read_splats(tmp_path)
