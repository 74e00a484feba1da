"""Ragged batches give what single images give; references are encoded once; only the render is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from difix_model import DifixPipeline
from difix_model.inference.reference_cache import ReferenceCache


@pytest.fixture
def pipe(checkpoint_folder: Path) -> DifixPipeline:
    return DifixPipeline.from_pretrained(checkpoint_folder)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


class Counter:
    """Batch sizes of the calls of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.batches: list[int] = []
        self.handle = module.register_forward_hook(lambda _, inputs, __: self.batches.append(inputs[0].shape[0]))


@pytest.fixture
def encoded(pipe: DifixPipeline) -> Iterator[Counter]:
    counter = Counter(pipe.network.vae.encoder.conv_in)
    yield counter
    counter.handle.remove()


@pytest.fixture(scope="module")
def trained_pipes() -> tuple[DifixPipeline, DifixPipeline]:
    """Two with trained weights, without their gate: random weights blow rounding up to more than 1e-5."""
    pipes = DifixPipeline.from_pretrained("default"), DifixPipeline.from_pretrained("default", cache_bytes=0)
    for pipe in pipes:
        pipe.gate = "off"
        pipe.batch_size = 1
    return pipes


SIZES = [(16, 24), (17, 9), (13, 22), (24, 16), (8, 8), (1, 3)]


@settings(max_examples=8, deadline=None)
@given(
    ragged=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 3)), min_size=1, max_size=7),
    batch_size=st.integers(1, 8),
)
def test_ragged_batches_equal_single_images(trained_pipes: Any, ragged: list[Any], batch_size: int) -> None:
    pipe, alone = trained_pipes
    pipe.batch_size = batch_size
    images = [noise(*size, seed=i) for i, (size, _) in enumerate(ragged)]
    references = [[noise(20, 30, seed=100 + i + r) for r in range(count)] for i, (_, count) in enumerate(ragged)]
    together = pipe(images, references)
    for image, own, fixed in zip(images, references, together, strict=True):
        assert fixed.shape == image.shape
        np.testing.assert_allclose(fixed, alone(image, own), atol=1e-5, rtol=0)


def test_sizes_that_pad_to_the_same_size_share_a_batch(pipe: DifixPipeline, encoded: Counter) -> None:
    pipe([noise(16, 24), noise(15, 20), noise(9, 17), noise(17, 24)])
    assert sorted(encoded.batches) == [1, 3]


def test_a_repeated_reference_is_encoded_once(pipe: DifixPipeline, encoded: Counter) -> None:
    image, reference = noise(16, 24), noise(30, 20, seed=1)
    first = pipe(image, reference)
    assert encoded.batches == [1, 1], "the reference and the render"
    encoded.batches.clear()
    again = pipe(image, reference.copy())
    assert encoded.batches == [1], "the render alone"
    assert np.array_equal(first, again)
    pipe.fix(torch.from_numpy(image)[None], torch.from_numpy(reference)[None])
    assert encoded.batches == [1, 1]
    pipe.runner.cache.clear()
    encoded.batches.clear()
    assert np.array_equal(pipe(image, reference), first)
    assert encoded.batches == [1, 1]


def test_one_reference_for_many_frames_is_encoded_once(pipe: DifixPipeline, encoded: Counter) -> None:
    reference = noise(16, 24, seed=9)
    pipe([noise(16, 24, seed=i) for i in range(4)], [[reference, reference]] * 4)
    assert encoded.batches == [1, 4]


def test_what_is_kept_depends_on_content_size_and_weights(pipe: DifixPipeline, encoded: Counter) -> None:
    image, reference = noise(16, 24), noise(16, 24, seed=1)
    pipe(image, reference)
    reference[3, 4, 1] = 1 - reference[3, 4, 1]
    encoded.batches.clear()
    changed = pipe(image, reference)
    assert encoded.batches == [1, 1], "a reference changed in place is another reference"
    encoded.batches.clear()
    pipe(noise(24, 24), reference)
    assert encoded.batches == [1, 1], "another size needs another latent"
    with torch.no_grad():
        pipe.network.vae.encoder.conv_in.weight.mul_(1.5)
    encoded.batches.clear()
    other = pipe(image, reference)
    assert encoded.batches == [1, 1], "other weights make other latents"
    assert np.abs(other - changed).max() > 1e-3


def test_without_room_nothing_is_kept(checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder, cache_bytes=0)
    counter = Counter(pipe.network.vae.encoder.conv_in)
    image, reference = noise(16, 24), noise(16, 24, seed=1)
    first = pipe(image, reference)
    assert np.array_equal(pipe(image, reference), first)
    assert counter.batches == [1, 1, 1, 1]
    assert len(pipe.runner.cache) == 0


def test_the_cache_stays_within_its_bound_and_forgets_the_oldest() -> None:
    cache = ReferenceCache(max_bytes=3 * 16)
    large = torch.arange(100.0)
    for number in range(3):
        cache.put(number, large[4 * number :][:4].reshape(1, 2, 2))
    kept = cache.get(0)
    assert kept is not None
    assert kept.untyped_storage().nbytes() == 16, "a copy, so that the batch it came from can go"
    cache.put(3, large[:4].reshape(1, 2, 2))
    assert cache.get(1) is None, "0 was used since"
    assert cache.get(0) is not None
    assert (len(cache), cache.num_bytes) == (3, 48)
    cache.put("too large", large.reshape(1, 10, 10))
    assert cache.get("too large") is None
    cache.put(0, large[:4].reshape(1, 2, 2))
    assert (len(cache), cache.num_bytes) == (3, 48)
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)
    with pytest.raises(ValueError, match="max_bytes"):
        ReferenceCache(max_bytes=-1)


def test_only_the_render_is_decoded_and_only_its_skips_are_read(pipe: DifixPipeline) -> None:
    decoder = pipe.network.vae.decoder
    names = ("conv_in", "skip_conv_1", "skip_conv_4")
    counters = [Counter(module) for module in map(decoder.get_submodule, names)]
    pipe([noise(16, 24, seed=i) for i in range(3)], [[noise(16, 24, seed=5), noise(16, 24, seed=6)]] * 3)
    assert [counter.batches for counter in counters] == [[3], [3], [3]]


def test_every_attention_runs_through_sdpa(pipe: DifixPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models.attention_processor import Attention

    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(args)
        return sdpa(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    attentions = [name for name, module in pipe.network.named_modules() if isinstance(module, Attention)]
    with_unet = [name for name in attentions if name.startswith("unet")]
    image, reference = noise(16, 24), noise(16, 24, seed=1)
    pipe(image, reference)
    assert len(with_unet) > 0
    encoder_attentions = len([name for name in attentions if "encoder" in name and "decoder" not in name])
    assert len(calls) == len(attentions) + encoder_attentions, "the reference passes the encoder as well"
