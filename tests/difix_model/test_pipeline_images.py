"""Images in, images out: kinds, sizes, batches, references, strength."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from difix_model import Checkpoint, DifixNetwork, DifixPipeline, InputError, tiny_config
from difix_model.images import cropped, from_network, padded, to_bytes, to_network, to_rgb


@pytest.fixture(scope="module")
def pipe(checkpoint_folder: Path) -> DifixPipeline:
    return DifixPipeline.from_pretrained(checkpoint_folder)


def noise_u8(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["pil", "bytes", "float32", "float64", "tensor_u8", "tensor"])
def test_the_same_kind_and_size_comes_out(pipe: DifixPipeline, kind: str) -> None:
    pixels = noise_u8(21, 35)
    unit = pixels.astype(np.float32) / 255
    kinds: dict[str, Any] = {
        "pil": Image.fromarray(pixels),
        "bytes": pixels,
        "float32": unit,
        "float64": unit.astype(np.float64),
        "tensor_u8": torch.from_numpy(pixels),
        "tensor": torch.from_numpy(unit),
    }
    given_image = kinds[kind]
    fixed: Any = pipe(given_image)
    assert isinstance(fixed, Image.Image) == (kind == "pil")
    assert kind == "pil" or type(fixed) is type(given_image)
    if isinstance(fixed, Image.Image):
        assert fixed.size == (35, 21)
        assert fixed.mode == "RGB"
    else:
        assert fixed.shape == given_image.shape
        assert fixed.dtype == given_image.dtype
    expected = pipe.fix(torch.from_numpy(unit)[None])[0].numpy()
    values = np.asarray(fixed, dtype=np.float64)
    if kind in ("pil", "bytes", "tensor_u8"):
        values = values / 255
    assert np.abs(values - expected).max() <= 0.5 / 255 + 1e-4
    assert np.abs(values - unit).max() > 0.01, "the network of this test changes what it gets"


def test_lists_keep_their_order_whatever_the_sizes(pipe: DifixPipeline) -> None:
    images = [
        Image.fromarray(noise_u8(*size, seed=i)) for i, size in enumerate([(16, 24), (17, 9), (16, 24), (24, 16)])
    ]
    references = [Image.fromarray(noise_u8(30, 20, seed=9)), None, None, [noise_u8(16, 24), noise_u8(8, 8)]]
    together = pipe(images, references)
    for image, reference, fixed in zip(images, references, together, strict=True):
        alone = pipe(image, reference)
        assert fixed.size == image.size
        assert np.abs(np.asarray(alone, int) - np.asarray(fixed, int)).max() <= 1


def test_references_influence_the_result_and_are_resized(pipe: DifixPipeline) -> None:
    image = noise_u8(16, 24).astype(np.float32) / 255
    reference = noise_u8(40, 50, seed=1).astype(np.float32) / 255
    without, with_one, with_two = pipe(image), pipe(image, reference), pipe(image, [reference, 1 - reference])
    assert np.abs(without - with_one).max() > 1e-3
    assert np.abs(with_two - with_one).max() > 1e-3


def test_strength_blends_with_the_input(pipe: DifixPipeline) -> None:
    image = noise_u8(16, 24).astype(np.float32) / 255
    half = pipe(image, strength=0.5)
    np.testing.assert_allclose(half, (image + pipe(image)) / 2, atol=1e-5)
    np.testing.assert_allclose(pipe(image, strength=0.0), image, atol=1e-6)
    with pytest.raises(InputError, match="strength"):
        pipe(image, strength=1.5)


def test_several_references_as_a_tensor(pipe: DifixPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    rendered = torch.rand(3, 13, 21, 3, generator=generator)
    references = torch.rand(3, 2, 16, 16, 3, generator=generator)
    fixed = pipe.fix(rendered, references)
    assert fixed.shape == rendered.shape
    assert float(fixed.min()) >= 0
    assert float(fixed.max()) <= 1
    torch.testing.assert_close(pipe.fix(rendered, references[:, 0]), pipe.fix(rendered, references[:, :1]))
    torch.testing.assert_close(pipe.fix(rendered[1:2], references[1:2]), fixed[1:2], atol=1e-3, rtol=0)


def test_alpha_is_kept(pipe: DifixPipeline) -> None:
    pixels = noise_u8(16, 24, channels=4)
    pixels[2:5, 3:9, 3] = 0
    for given_image in (Image.fromarray(pixels), pixels, torch.from_numpy(pixels)):
        fixed = np.asarray(pipe(given_image))
        assert np.array_equal(fixed[..., 3], pixels[..., 3])
        seen = pixels[..., 3] > 0
        assert 0 < seen.sum() < seen.size
        assert np.array_equal(fixed[seen][:, :3], pipe(np.ascontiguousarray(pixels[..., :3]))[seen])
        assert np.array_equal(fixed[~seen], pixels[~seen]), "what cannot be seen stays as it was"


def test_other_pil_modes_become_rgb() -> None:
    gray = noise_u8(16, 24)[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    for image in (
        Image.fromarray(gray),
        Image.fromarray(gray).convert("P"),
        Image.fromarray(gray.astype(np.uint16) * 257),
    ):
        rgb, _ = to_rgb(image)
        np.testing.assert_array_equal(to_bytes(rgb).numpy(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays_of_every_depth_come_back_as_they_were(pipe: DifixPipeline, dtype: Any, channels: int | None) -> None:
    scale = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    unit = noise_u8(13, 22, channels=channels or 1).astype(np.float64) / 255
    image = (unit * scale).round().astype(dtype) if scale > 1 else unit.astype(dtype)
    image = image[..., 0] if channels is None else image
    for given_image in (image, torch.from_numpy(image)):
        fixed: Any = pipe(given_image)
        assert type(fixed) is type(given_image)
        assert (fixed.shape, fixed.dtype) == (given_image.shape, given_image.dtype)
        unchanged = np.asarray(pipe(given_image, strength=0.0))
        np.testing.assert_allclose(unchanged, image, atol=1e-6 if dtype == np.float32 else 0, rtol=0)
    gray = channels in (None, 1, 2)
    rgb = np.repeat(unit[..., :1], 3, axis=-1) if gray else unit[..., :3]
    expected = pipe.fix(torch.from_numpy(rgb).float()[None])[0].numpy()
    expected = expected @ np.array([[0.299], [0.587], [0.114]]) if gray else expected
    result = np.asarray(pipe(image), np.float64).reshape(13, 22, -1)[..., : expected.shape[-1]] / scale
    seen = unit[..., -1] > 0 if channels in (2, 4) else np.ones((13, 22), bool)
    assert np.abs(result - expected)[seen].max() <= 0.5 / (scale if scale > 1 else np.inf) + 1e-4


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "I", "RGB", "RGBA"])
def test_pil_modes_are_kept(pipe: DifixPipeline, mode: str, tmp_path: Path) -> None:
    deep = noise_u8(13, 22)[..., 0].astype(np.uint16) * 257
    image = (
        Image.fromarray(deep.astype(np.int32) if mode == "I" else deep)
        if mode.startswith("I")
        else Image.fromarray(noise_u8(13, 22, channels=4)).convert(mode)
    )
    fixed = pipe(image)
    assert (fixed.mode, fixed.size) == ("I;16" if mode == "I" else mode, image.size)
    assert np.array_equal(np.asarray(pipe(image, strength=0.0)), np.asarray(image))
    fixed.save(tmp_path / "fixed.png")
    with Image.open(tmp_path / "fixed.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(fixed))
    if mode == "I;16":
        assert len(np.unique(np.asarray(fixed) % 257)) > 1, "more than 8 bits come out"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (7, 8)])
def test_images_of_a_few_pixels_are_padded(pipe: DifixPipeline, size: tuple[int, int]) -> None:
    image = noise_u8(*size)
    fixed = pipe(image, noise_u8(9, 4, seed=1))
    assert fixed.shape == image.shape
    height, width = (-side % 8 for side in size)
    whole = pipe(np.pad(image, ((0, height), (0, width), (0, 0)), mode="edge"))
    assert np.array_equal(pipe(image), whole[: size[0], : size[1]])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 16, 24), np.float32), "1 to 4 channels"),
        (np.zeros((1, 16, 24, 3), np.float32), "1 to 4 channels"),
        (np.zeros((16, 24, 3), np.int32), "uint16 or float"),
        (np.zeros((16, 24, 3), np.uint32), "uint16 or float"),
        (np.zeros((16, 24, 3), bool), "uint16 or float"),
        (np.full((16, 24), "a"), "uint16 or float"),
        (np.full((16, 24, 3), 255.0), r"in \[0, 1\]"),
        (np.full((16, 24, 3), -0.9), r"in \[0, 1\]"),
        (np.full((16, 24, 3), np.nan), r"in \[0, 1\]"),
        (np.zeros((0, 24, 3), np.uint8), "24x0"),
        (Image.new("RGB", (0, 4)), "0x4"),
        (Image.new("F", (8, 8), 255), r"in \[0, 1\]"),
        ("photo.png", "PIL image"),
    ],
)
def test_what_cannot_be_an_image_is_refused(pipe: DifixPipeline, image, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipe(image)


def test_numbers_of_images_and_references_must_agree(pipe: DifixPipeline) -> None:
    image = noise_u8(16, 24)
    with pytest.raises(InputError, match="one reference per image"):
        pipe([image, image], [image])
    with pytest.raises(InputError, match="one reference per image"):
        pipe.fix(torch.zeros(2, 16, 24, 3), torch.zeros(1, 16, 24, 3))
    assert pipe([]) == []


def test_weights_without_references_refuse_them(text_embedding: torch.Tensor) -> None:
    network = DifixNetwork(tiny_config(reference_attention=False))
    pipe = DifixPipeline(Checkpoint(network=network, text_embedding=text_embedding, prompt="p"))
    assert not pipe.uses_reference
    with pytest.raises(InputError, match="know no references"):
        pipe(noise_u8(16, 24), noise_u8(16, 24))


def test_another_prompt_needs_an_encoder(checkpoint_folder: Path) -> None:
    assert DifixPipeline.from_pretrained(checkpoint_folder, prompt="remove degradation").prompt == "remove degradation"
    with pytest.raises(InputError, match="no text encoder"):
        DifixPipeline.from_pretrained(checkpoint_folder, prompt="add degradation")


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 4, 8]))
def test_padding_and_range_round_trips(height: int, width: int, multiple: int) -> None:
    rgb = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(0))
    x = padded(to_network(rgb), multiple)
    assert x.shape[-2] % multiple == x.shape[-1] % multiple == 0
    assert float(x.min()) >= -1
    torch.testing.assert_close(from_network(cropped(x, height, width)), rgb, atol=1e-6, rtol=0)


def test_results_are_deterministic(pipe: DifixPipeline) -> None:
    assert np.array_equal(pipe(noise_u8(16, 24)), pipe(noise_u8(16, 24)))


def test_half_precision(checkpoint_folder: Path, pipe: DifixPipeline) -> None:
    half = DifixPipeline.from_pretrained(checkpoint_folder, dtype=torch.bfloat16)
    image = torch.rand(1, 16, 24, 3, generator=torch.Generator().manual_seed(0))
    fixed = half.fix(image, image.flip(2))
    assert fixed.dtype == torch.float32
    assert float((fixed - pipe.fix(image, image.flip(2))).abs().mean()) < 0.05
