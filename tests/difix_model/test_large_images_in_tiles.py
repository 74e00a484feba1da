"""Tiles cover an image, blend without a seam, keep the whole image's colors, and bound the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difix_model import DifixNetwork, DifixPipeline, TilingConfig, WeightsMetadata, save_checkpoint, small_config
from difix_model.identity import start_at_identity
from difix_model.inference.tiling import MAX_UNTILED_PIXELS, blend_weights, plan_tiles


def drawn_pipeline(folder: Path, *, looks_around: bool = True) -> DifixPipeline:
    """A small network of drawn weights that changes images enough for a seam to show, whatever weights are shipped.

    Args:
        folder: Where its checkpoint is written.
        looks_around: Whether the UNet's convolutions and attention see more than their own place.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DifixNetwork(small_config((32, 64)))
        start_at_identity(network)
        torch.nn.init.normal_(network.unet.get_submodule("conv_out").get_parameter("weight"), std=0.01)
        embedding = torch.randn(4, network.config.unet.cross_attention_dim)
        for name, parameter in network.unet.named_parameters():
            if not looks_around and ".attn1.to_out." in name:
                torch.nn.init.zeros_(parameter)
            elif not looks_around and parameter.ndim == 4 and parameter.shape[-1] == 3:
                center = parameter[:, :, 1:2, 1:2].detach().clone()
                parameter.data.zero_()[:, :, 1:2, 1:2] = center
    save_checkpoint(folder, network, text_embedding=embedding, prompt="", metadata=WeightsMetadata(uses_reference=True))
    return DifixPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DifixPipeline:
    return drawn_pipeline(tmp_path_factory.mktemp("drawn"))


def smooth_image(height: int, width: int, seed: int = 0) -> Tensor:
    """A batch of one with soft blobs and some noise: on it a seam shows."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.rand(1, 3, height // 32, width // 32, generator=generator)
    image = torch.nn.functional.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=False)
    return (image + 0.01 * torch.randn(image.shape, generator=generator)).clamp(0, 1).movedim(1, -1)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 300).map(lambda n: 8 * n), tile_size=st.integers(128, 1100), fraction=st.floats(0, 0.5))
def test_tiles_cover_an_axis_with_weights_that_sum_to_one(length: int, tile_size: int, fraction: float) -> None:
    overlap = int(fraction * tile_size)
    plan = plan_tiles(length, 8, tile_size=tile_size, overlap=overlap, multiple=8)
    assert plan.height <= min(length, tile_size)
    assert plan.height % 8 == 0
    assert all(top % 8 == 0 for top in plan.tops)
    assert plan.tops[0] == 0
    assert plan.tops[-1] + plan.height == length
    for before, after in zip(plan.tops, plan.tops[1:], strict=False):
        assert before < after <= before + plan.height - overlap
    weights = blend_weights(length, plan.height, plan.tops)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(length))
    for top, weight in zip(plan.tops, weights, strict=True):
        assert not weight[:top].any()
        assert not weight[top + plan.height :].any()


def test_which_images_are_tiled() -> None:
    default = TilingConfig()
    assert default.wanted_tile_size(1080, 1920) is None
    assert MAX_UNTILED_PIXELS < 2160 * 3840
    assert default.wanted_tile_size(2160, 3840) == 1024
    assert TilingConfig(tile_size=512).wanted_tile_size(512, 513) == 512
    assert TilingConfig(tile_size=512).wanted_tile_size(512, 512) is None
    wrong: dict[str, Any]
    for wrong in ({"tile_size": 64}, {"tile_size": 256, "overlap": 129}, {"overlap": -1}):
        with pytest.raises(ValueError, match="tiling"):
            TilingConfig(**wrong)


def seam(image: Tensor, columns: list[int]) -> float:
    """How much larger the steps from column to column are at tile borders than elsewhere."""
    steps = image.diff(dim=-2).abs().mean(dim=(0, 1, 3))
    at_borders = torch.zeros(len(steps), dtype=torch.bool)
    at_borders[[column - 1 for column in columns]] = True
    return float(steps[at_borders].mean() / steps[~at_borders].mean())


@pytest.mark.parametrize("with_reference", [False, True])
def test_no_seam_at_tile_borders(pipe: DifixPipeline, with_reference: bool) -> None:
    width = 384
    image = smooth_image(128, width)
    reference = image.flip(2) if with_reference else None
    pipe.runner.tiling = TilingConfig()
    whole = pipe.fix(image, reference)
    measured = {}
    for overlap in (0, 32, 64):
        pipe.runner.tiling = TilingConfig(tile_size=128, overlap=overlap)
        tiled = pipe.fix(image, reference)
        plan = plan_tiles(128, width, tile_size=128, overlap=overlap, multiple=8)
        borders = sorted({side for left in plan.lefts for side in (left, left + plan.width)} - {0, width})
        assert len(borders) >= 2
        measured[overlap] = (seam(tiled, borders) / seam(whole, borders), seam(tiled - whole, borders))
    for overlap in (32, 64):
        assert measured[overlap][0] <= 1.02, "the image has no larger steps at borders than when it is run whole"
        assert measured[overlap][1] <= 1.6, "nor has what tiling changed in it"
    assert measured[0][0] > 1.03, "without an overlap the seam is there, and this measure finds it"
    assert measured[0][1] > 4


def test_tiles_share_their_statistics(tmp_path: Path) -> None:
    """Where nothing but the norms looks beyond a tile, sharing what they see takes a third of the error away."""
    pipe = drawn_pipeline(tmp_path / "drawn", looks_around=False)
    image = smooth_image(192, 256, seed=3)
    image[:, :, 128:] *= 0.4
    pipe.runner.tiling = TilingConfig()
    whole = pipe.fix(image)
    error = {}
    for shared in (False, True):
        pipe.runner.tiling = TilingConfig(tile_size=128, overlap=32, shared_statistics=shared)
        error[shared] = float((pipe.fix(image) - whole).square().mean().sqrt())
    assert 0 < error[True] < 0.67 * error[False], error
    assert not any(module._forward_hooks for module in pipe.network.modules()), "hooks are taken off"


def test_a_tiled_image_is_the_same_in_any_batch(pipe: DifixPipeline) -> None:
    pipe.runner.tiling = TilingConfig(tile_size=128, overlap=32)
    images = [smooth_image(*size, seed=i)[0].numpy() for i, size in enumerate([(130, 200), (96, 96), (140, 190)])]
    references = [[images[1], images[0]], [], [images[2]]]
    results = {}
    for batch_size in (1, 3):
        pipe.batch_size = batch_size
        results[batch_size] = pipe(images, references)
    for one, three, image in zip(results[1], results[3], images, strict=True):
        assert one.shape == image.shape
        np.testing.assert_allclose(one, three, atol=1e-5, rtol=0)


def test_tiles_see_their_part_of_the_reference(checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(
        checkpoint_folder, tiling=TilingConfig(tile_size=128, overlap=0, shared_statistics=False)
    )
    image, reference = smooth_image(128, 256), smooth_image(64, 96, seed=1)
    changed = reference.clone()
    changed[:, :, 80:] = 1 - changed[:, :, 80:]
    difference = (pipe.fix(image, changed) - pipe.fix(image, reference)).abs().amax(dim=(0, 1, 3))
    assert float(difference[:128].max()) < 1e-6, "the left tile sees the left half, which is the same"
    assert float(difference[128:].max()) > 1e-3


PEAK = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
from conftest import random_network
from difix_model.formats.checkpoint import Checkpoint
from difix_model.config import tiny_config
from difix_model.pipeline import DifixPipeline
from difix_model.inference.tiling import TilingConfig
torch.set_num_threads(1)
side, gate = int(sys.argv[2]), sys.argv[3]
checkpoint = Checkpoint(network=random_network(tiny_config()), text_embedding=torch.zeros(7, 16), prompt="p")
pipe = DifixPipeline(checkpoint, batch_size=1, tiling=TilingConfig(tile_size=512, overlap=32, shared_statistics=False))
image = np.zeros((side, side, 3), np.uint8)
image[::2] = 200
pipe(image[:64, :64], gate=gate)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fixed = pipe(image, gate=gate)
assert fixed.shape == image.shape
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))
"""


@pytest.mark.slow
def test_the_memory_of_a_large_image_is_that_of_a_tile_and_the_image() -> None:
    """Peak resident memory over the start, in own processes; "the image" is its floats, in and out."""

    def peak(side: int, gate: str) -> int:
        command = [sys.executable, "-c", PEAK, str(Path(__file__).parent), str(side), gate]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    one_tile, image = peak(512, "off"), 4096 * 4096 * 3 * (4 + 4)
    for gate in ("off", "auto"):
        large = peak(4096, gate)
        said = f"gate {gate}: {large / 2**20:.0f} MiB, one tile {one_tile / 2**20:.0f}, image {image / 2**20:.0f}"
        assert large <= 1.5 * (one_tile + image), said
