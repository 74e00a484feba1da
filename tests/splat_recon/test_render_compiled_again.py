"""Kernels give the same bits when they were just compiled as when they come from numba's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import hashlib
import torch
from splat_recon.config import TrainConfig
from splat_recon.gaussians.initialize import from_points
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from splat_recon.scene.normalize import normalized
from splat_recon.scene.synthetic import SyntheticConfig, generate_scene
from support.splat_scenes import watched

# Round Gaussians, as at the start of a training: their rotations have no gradient but what rounding leaves.
scene = normalized(generate_scene(1, SyntheticConfig(width=128, height=96)))
gaussians = watched(from_points(scene.points, 1.0, TrainConfig(), torch.Generator().manual_seed(0)))
output = CpuRasterizer(RenderConfig())(gaussians, scene.views[0].camera, sh_degree=3)
weights = torch.randn(output.rgb.shape, generator=torch.Generator().manual_seed(3))
(output.rgb * weights).sum().backward()
digest = hashlib.sha256()
for tensor in (output.rgb.detach(), *(parameter.grad for parameter in gaussians.parameters().values())):
    digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_bits_do_not_depend_on_the_cache(tmp_path: Path):
    tests = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": tests}
    digests = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout.strip())
    assert list(tmp_path.rglob("*.nbc"))
    assert digests[0] == digests[1]
