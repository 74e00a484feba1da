"""`DifixPipeline` called the diffusers way: what scripts for the released pipeline do, with one changed import."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model import (
    DifixNetwork,
    GateConfig,
    InputError,
    ReleasedPipeline,
    WeightsMetadata,
    save_checkpoint,
    tiny_config,
)
from difix_model import DifixPipeline as OwnPipeline
from difix_model.config import PROMPT
from difix_model.diffusers import DifixPipeline

ONE_STEP = {"num_inference_steps": 1, "timesteps": [199], "guidance_scale": 0.0}


@pytest.fixture(scope="module")
def pipe(published_layout: Path) -> DifixPipeline:
    return DifixPipeline.from_pretrained(
        published_layout, uses_reference=True, torch_dtype=torch.float32, trust_remote_code=True
    )


def photo(seed: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_released_scripts_lines_work(pipe: DifixPipeline) -> None:
    pipe.to("cpu").set_progress_bar_config(disable=True)
    image, reference = photo(0), photo(1)
    fixed = pipe(PROMPT, image=image, ref_image=reference, **ONE_STEP).images[0]
    assert isinstance(fixed, Image.Image)
    assert np.array_equal(np.asarray(fixed), np.asarray(pipe.pipeline(image, reference)))
    assert np.array_equal(
        np.asarray(pipe(prompt=PROMPT, image=image, ref_image=reference).images[0]), np.asarray(fixed)
    )
    assert np.array_equal(
        np.asarray(pipe(PROMPT, image, ref_image=reference, return_dict=False)[0][0]), np.asarray(fixed)
    )
    alone = pipe(PROMPT, image=image, **ONE_STEP).images[0]
    assert np.array_equal(np.asarray(alone), np.asarray(pipe.pipeline(image)))
    assert not np.array_equal(np.asarray(alone), np.asarray(fixed))


def test_a_generator_gives_the_released_pipelines_numbers(pipe: DifixPipeline, published_layout: Path) -> None:
    released = ReleasedPipeline.from_pretrained(published_layout, reference_attention=True)
    arguments = {"image": [photo(0), photo(1)], "ref_image": [photo(2), photo(3)], "output_type": "np", **ONE_STEP}
    expected = released(PROMPT, generator=torch.Generator().manual_seed(5), **arguments).images
    actual = pipe(PROMPT, generator=torch.Generator().manual_seed(5), **arguments).images
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    other = pipe(PROMPT, generator=torch.Generator().manual_seed(6), **arguments).images
    assert np.abs(other - expected).max() > 1e-3


def test_types_of_images_in_and_out(pipe: DifixPipeline) -> None:
    image = photo(0)
    rgb = np.asarray(image, dtype=np.float32) / 255.0
    expected = pipe.pipeline(rgb)
    for given in (image, np.asarray(image), rgb, rgb[None], torch.from_numpy(rgb).permute(2, 0, 1)):
        out = pipe(PROMPT, image=given, output_type="np").images
        assert out.shape == (1, *rgb.shape)
        np.testing.assert_allclose(out[0], expected, atol=1e-5)
    out = pipe([PROMPT, PROMPT], image=torch.from_numpy(rgb).permute(2, 0, 1).expand(2, -1, -1, -1), output_type="pt")
    assert out.images.shape == (2, 3, 24, 40)
    np.testing.assert_allclose(out.images[1].permute(1, 2, 0), expected, atol=1e-5)
    several = pipe(PROMPT, image=[photo(0), photo(1, (33, 19))]).images
    assert [entry.size for entry in several] == [(40, 24), (33, 19)]


def test_what_a_single_step_cannot_do_is_refused_in_a_sentence(pipe: DifixPipeline) -> None:
    refused = [
        ({"num_inference_steps": 4}, "num_inference_steps must be 1"),
        ({"guidance_scale": 7.5}, "guidance_scale must be at most 1"),
        ({"timesteps": [500, 199]}, "one timestep"),
        ({"timesteps": [999]}, "work at timestep 199"),
        ({"timesteps": []}, "one timestep"),
        ({"num_images_per_prompt": 2}, "need a generator"),
        ({"output_type": "latent"}, "need a generator"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"callback": print}, "callback"),
        ({"ip_adapter_image": photo(3), "clip_skip": 2}, "clip_skip, ip_adapter_image"),
        ({"strength": 0.5, "generator": torch.Generator()}, "strength must be 1"),
        ({"image": None}, "an image is needed"),
    ]
    for arguments, message in refused:
        with pytest.raises(InputError, match=message):
            pipe(PROMPT, **{"image": photo(0)} | arguments)
    for generator in (None, torch.Generator().manual_seed(0)):
        with pytest.raises(InputError, match='loaded with the prompt "remove degradation", got "a cat"'):
            pipe("a cat", image=photo(0), generator=generator)
    with pytest.raises(InputError, match="several sizes"):
        pipe(PROMPT, image=[photo(0), photo(1, (33, 19))], output_type="np")
    with pytest.raises(TypeError, match="strenght"):
        pipe.pipeline(photo(0), strenght=0.5)  # type: ignore[call-overload]


def test_arguments_without_effect_are_said(pipe: DifixPipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fixed = pipe(PROMPT, image=photo(0), height=576, width=1024, callback=None).images[0]
    assert fixed.size == (40, 24)
    assert "height, width has no effect" in caplog.text
    with pytest.raises(TypeError, match="revison"):
        DifixPipeline.from_pretrained("default", revison="main")
    with pytest.raises(InputError, match="variant"):
        DifixPipeline.from_pretrained("default", variant="fp16")


def test_our_own_weights_are_called_the_same_way(
    tmp_path: Path, network: DifixNetwork, text_embedding: torch.Tensor
) -> None:
    metadata = WeightsMetadata(gate=GateConfig(trusted_change=0.02, max_change=0.001), timestep=100)
    save_checkpoint(tmp_path, network, text_embedding=text_embedding, prompt=PROMPT, metadata=metadata)
    pipe = DifixPipeline.from_pretrained(tmp_path)
    rgb = np.asarray(photo(0), dtype=np.float32) / 255.0
    fixed = pipe(PROMPT, image=rgb, output_type="np").images[0]
    assert 0 < np.abs(fixed - rgb).max() < 0.01
    assert pipe.pipeline.timestep == 100
    with pytest.raises(InputError, match="work at timestep 100"):
        pipe(PROMPT, image=rgb, timesteps=[199])
    assert tiny_config().unet.cross_attention_dim == text_embedding.shape[-1]


def test_moving_to_another_precision(published_layout: Path) -> None:
    pipe = OwnPipeline.from_pretrained(published_layout, uses_reference=True)
    expected = np.asarray(pipe(photo(0), photo(1)), dtype=int)
    assert len(pipe.runner.cache) == 1
    assert pipe.to("cpu", torch.bfloat16) is pipe
    assert {parameter.dtype for parameter in pipe.network.parameters()} == {torch.bfloat16}
    assert len(pipe.runner.cache) == 0
    assert np.abs(np.asarray(pipe(photo(0), photo(1)), dtype=int) - expected).mean() < 8
