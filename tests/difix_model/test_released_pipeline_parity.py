"""The released pipeline's call, case by case, against its recorded outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from difix_model import ReleasedPipeline, load_released
from difix_model.diffusers import DifixPipeline

pytestmark = pytest.mark.reference


@pytest.fixture(scope="session")
def cases(reference_data: Path) -> dict[str, dict]:
    manifest = json.loads((reference_data / "model_manifest.json").read_text())
    return {
        name.removeprefix("pipeline/"): case
        for name, case in manifest["cases"].items()
        if name.startswith("pipeline/") and "defect" not in name
    }


@pytest.fixture(scope="session")
def samples(reference_data: Path) -> dict[str, dict]:
    manifest = json.loads((reference_data / "model_manifest.json").read_text())
    return {
        name.removeprefix("sample/"): case for name, case in manifest["cases"].items() if name.startswith("sample/")
    }


@pytest.fixture(scope="session")
def data(reference_data: Path) -> dict[str, Tensor]:
    return load_file(reference_data / "pipeline/pipeline.safetensors")


@pytest.fixture(scope="session")
def pipelines(reference_data: Path) -> dict[bool, ReleasedPipeline]:
    loaded = {mv: load_released(reference_data / "hf_repo_tiny", reference_attention=mv) for mv in (False, True)}
    return {mv: ReleasedPipeline(each.network, each.text_encoder) for mv, each in loaded.items()}


def open_rgb(reference_data: Path, name: str) -> Image.Image:
    return Image.open(reference_data / "images" / f"{name}.png").convert("RGB")


def recovered_generators(noise: Tensor, up_to: int) -> list[torch.Generator]:
    """Find the seeds of a list of generators, which the manifest does not record, from what they drew."""
    generators = []
    for drawn in noise:
        matching = (
            seed
            for seed in range(up_to)
            if torch.equal(torch.randn(drawn.shape, generator=torch.Generator().manual_seed(seed)), drawn)
        )
        generators.append(torch.Generator().manual_seed(next(matching)))
    return generators


def arguments(name: str, case: dict, data: dict[str, Tensor], reference_data: Path) -> dict:
    """Build a case's arguments from the manifest, in which images and tensors stand by their type's name."""
    kwargs = {"num_inference_steps": 1, "timesteps": [199], "guidance_scale": 0.0} | case["kwargs"]
    image, reference = open_rgb(reference_data, "input"), open_rgb(reference_data, "ref")
    pair = [image, open_rgb(reference_data, "input2")]
    kwargs["image"] = {"Image": image, "list": pair, "Tensor": data["tensor_input01"]}[kwargs["image"]]
    seed = case["generator_seed"]
    kwargs["generator"] = (
        recovered_generators(data[f"{name}.posterior_noise"], seed + 1000)
        if kwargs.get("generator") == "list"
        else torch.Generator().manual_seed(seed)
    )
    if "ref_image" in kwargs:
        kwargs["ref_image"] = reference
    if "prompt_embeds" in kwargs:
        kwargs["prompt_embeds"] = data["prompt_embeds"]
    if kwargs["timesteps"] == "NoneType":
        kwargs["timesteps"] = None
    return kwargs


def test_every_case(
    cases: dict[str, dict], data: dict[str, Tensor], pipelines: dict[bool, ReleasedPipeline], reference_data: Path
) -> None:
    assert cases
    differences = {}
    for name, case in cases.items():
        kwargs = arguments(name, case, data, reference_data)
        kwargs["last_skips_for_all"] = isinstance(kwargs["generator"], list)
        images = pipelines[case["mv_unet"]](**kwargs).images
        if f"{name}.out" in data:
            actual = torch.as_tensor(images)
            assert actual.shape == data[f"{name}.out"].shape, name
            differences[name] = float((actual - data[f"{name}.out"]).abs().max()) / 1e-4
        else:
            files = sorted((reference_data / "images").glob(f"pipe_{name}.out*.png"))
            assert len(files) == len(images), name
            for file, image in zip(files, images, strict=True):
                levels = np.abs(np.asarray(image, int) - np.asarray(Image.open(file).convert("RGB"), int))
                differences[name] = float(levels.max())
    assert not {name: difference for name, difference in differences.items() if not difference <= 1.0}


def test_every_single_step_case_through_the_pipeline_of_this_package(
    cases: dict[str, dict], data: dict[str, Tensor], reference_data: Path
) -> None:
    folder = reference_data / "hf_repo_tiny"
    differences = {}
    for name, case in cases.items():
        kwargs = arguments(name, case, data, reference_data)
        prompt = kwargs["prompt"] if isinstance(kwargs.get("prompt"), str) else None
        single = kwargs["num_inference_steps"] == 1 and len(kwargs["timesteps"] or ()) == 1
        if not single or kwargs["guidance_scale"] > 1.0 or isinstance(kwargs.get("prompt"), list):
            continue
        pipe = DifixPipeline.from_pretrained(folder, uses_reference=case["mv_unet"], prompt=prompt)
        images = pipe(**kwargs).images
        if f"{name}.out" in data:
            differences[name] = float((torch.as_tensor(images) - data[f"{name}.out"]).abs().max()) / 1e-4
        else:
            files = sorted((reference_data / "images").glob(f"pipe_{name}.out*.png"))
            levels = [
                np.abs(np.asarray(image, int) - np.asarray(Image.open(file).convert("RGB"), int)).max()
                for file, image in zip(files, images, strict=True)
            ]
            differences[name] = float(max(levels))
    assert len(differences) >= 2, "too few of the recorded cases are single steps"
    assert not {name: difference for name, difference in differences.items() if not difference <= 1.0}


def test_images_with_own_generators_do_not_mix(
    cases: dict[str, dict], data: dict[str, Tensor], pipelines: dict[bool, ReleasedPipeline], reference_data: Path
) -> None:
    name, case = next((name, case) for name, case in cases.items() if case["kwargs"].get("generator") == "list")
    kwargs = arguments(name, case, data, reference_data)
    together = pipelines[False](**kwargs).images
    kwargs = arguments(name, case, data, reference_data)
    for index, (image, generator) in enumerate(zip(kwargs["image"], kwargs["generator"], strict=True)):
        prompt = kwargs["prompt"][index]
        alone = pipelines[False](**kwargs | {"image": image, "generator": generator, "prompt": prompt}).images
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)


def test_sampling_of_the_inference_script(
    samples: dict[str, dict], pipelines: dict[bool, ReleasedPipeline], reference_data: Path
) -> None:
    assert samples
    references = {"sample_noref": None, "sample_ref": "ref", "sample_ref_other_size": "ref_other_size"}
    for name, case in samples.items():
        reference = references[name]
        height, width = case["model_hw"]
        out = pipelines[reference is not None].sample(
            open_rgb(reference_data, "input"),
            width=width,
            height=height,
            ref_image=None if reference is None else open_rgb(reference_data, reference),
            generator=torch.Generator().manual_seed(case["torch_manual_seed"]),
        )
        expected = Image.open(reference_data / "images" / f"{name}.out.png").convert("RGB")
        assert list(out.size) == case["out_size"]
        assert np.abs(np.asarray(out, int) - np.asarray(expected, int)).max() <= 1
