"""Memory that runs out: fewer images at a time, then tiles, then smaller tiles, then one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix_model import DifixPipeline, InputError, TilingConfig
from difix_model.inference.memory import NotEnoughMemoryError, is_out_of_memory

ERRORS: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "python": MemoryError,
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
}


def limited(pipe: DifixPipeline, max_pixels: int, error: Callable[[], BaseException] = MemoryError) -> list[int]:
    """Let the network fail above a number of pixels; returns the pixels of every call, of all views."""
    fix_targets = pipe.network.fix_targets
    seen: list[int] = []

    def checked(x: torch.Tensor, reference_z: Any, **kwargs: Any) -> torch.Tensor:
        num_views = 1 if reference_z is None else 1 + reference_z.shape[1]
        seen.append(x.shape[0] * x.shape[2] * x.shape[3] * num_views)
        if seen[-1] > max_pixels:
            raise error()
        return fix_targets(x, reference_z, **kwargs)

    # Whole images take the runner's call, tiles with shared statistics the network's own.
    pipe.runner._fix_targets = checked
    pipe.network.fix_targets = checked  # type: ignore[method-assign]
    return seen


@pytest.fixture
def pipe(checkpoint_folder: Path) -> DifixPipeline:
    return DifixPipeline.from_pretrained(checkpoint_folder, batch_size=8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize("kind", sorted(ERRORS))
def test_the_batch_is_halved_until_it_fits(pipe: DifixPipeline, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    images = [noise(32, 40, seed=i) for i in range(9)]
    expected = pipe(images)
    seen = limited(pipe, 3 * 32 * 40, ERRORS[kind])
    with caplog.at_level(logging.WARNING):
        fixed = pipe(images)
    assert [pixels // (32 * 40) for pixels in seen] == [8, 4, 2, 2, 2, 2, 1]
    assert caplog.messages == [
        "out of memory with 8 times 40x32 at a time: going on with 4",
        "out of memory with 4 times 40x32 at a time: going on with 2",
    ]
    for one, other in zip(expected, fixed, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    seen.clear()
    caplog.clear()
    pipe(images)
    assert max(seen) == 2 * 32 * 40, "what fits is remembered"
    assert not caplog.messages


def test_then_come_tiles_that_shrink(
    pipe: DifixPipeline, checkpoint_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, references = [noise(300, 400), noise(300, 400, seed=1)], [noise(300, 400, seed=2)] * 2
    seen = limited(pipe, 2 * 220 * 220)
    with caplog.at_level(logging.WARNING):
        fixed = pipe(images, references)
    assert caplog.messages == [
        "out of memory with 2 times 400x304 with 1 reference at a time: going on with 1",
        "out of memory with 400x304 with 1 reference: going on in tiles of at most half as many pixels",
    ]
    largest = max(pixels for pixels in seen if pixels <= 2 * 220 * 220)
    assert largest == 2 * 184 * 232, "two rows and two columns of tiles"
    direct = DifixPipeline.from_pretrained(checkpoint_folder, tiling=TilingConfig(tile_size=256, overlap=64))
    for one, other in zip(fixed, direct(images, references), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def test_several_steps_down_and_the_finished_images_are_kept(
    pipe: DifixPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = noise(96, 96), noise(420, 440)
    expected = pipe(small)
    seen = limited(pipe, 140 * 140)
    with caplog.at_level(logging.WARNING):
        fixed = pipe([small, large])
    assert seen.count(96 * 96) == 1, "the small image is not run again"
    np.testing.assert_allclose(fixed[0], expected, atol=1e-5, rtol=0)
    assert fixed[1].shape == large.shape
    assert np.isfinite(fixed[1]).all()
    assert sum("half as many pixels" in message for message in caplog.messages) >= 2
    assert max(pixels for pixels in seen if pixels <= 140 * 140) > 96 * 96


def test_at_the_smallest_tile_it_is_one_sentence(pipe: DifixPipeline) -> None:
    limited(pipe, 100)
    with pytest.raises(NotEnoughMemoryError, match=r"not enough memory even for 128x128 .*bfloat16") as caught:
        pipe(noise(300, 300))
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_encoding_a_reference_may_run_out_of_memory_as_well(
    pipe: DifixPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    image, reference = noise(200, 200), noise(200, 200, seed=1)
    encode = pipe.network.encode_latents

    def checked(x: torch.Tensor) -> torch.Tensor:
        if x[0, 0].numel() > 150 * 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(x)

    pipe.runner._encode_latents = checked
    with caplog.at_level(logging.WARNING):
        assert pipe(image, reference).shape == image.shape
    assert len(caplog.messages) == 1
    assert "tiles" in caplog.messages[0]


def test_other_errors_are_not_taken_for_it(pipe: DifixPipeline) -> None:
    limited(pipe, 0, lambda: RuntimeError("expected scalar type Half"))
    with pytest.raises(RuntimeError, match="Half"):
        pipe(noise(16, 16))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert pipe.runner.budget.max_pixels is None
