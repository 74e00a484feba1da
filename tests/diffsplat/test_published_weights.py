"""Repositories of the published layout load through every path, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsplat import DiffSplatPipeline, GenerationConfig, InputError
from diffsplat.checkpoints import PUBLISHED, read_state, weight_files
from diffsplat.hub import tag_files
from support.tiny_diffsplat import write_base, write_repository, write_weights

STEPS = GenerationConfig(num_steps=2, seed=3)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Folder of weights and base model, by model."""
    found = {}
    for name in PUBLISHED:
        root, base = tmp_path_factory.mktemp(f"{name}_weights"), tmp_path_factory.mktemp(f"{name}_base") / "base"
        write_repository(root, name)
        write_repository(root, name, image=True, shards=3)
        write_base(base, name)
        found[name] = (root, base)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_generates_from_text(repositories, name):
    root, base = repositories[name]
    pipe = DiffSplatPipeline.from_pretrained(root, base=base)
    splats = pipe(["a red ball", "a blue box"], STEPS)
    assert [splat.prompt for splat in splats] == ["a red ball", "a blue box"]
    assert [splat.seed for splat in splats] == [3, 4]
    for splat in splats:
        assert splat.gaussians.xyz.shape == (1, 4 * 16 * 16, 3)
        assert torch.isfinite(splat.gaussians.xyz).all()
    # What stands beside it in a batch does not change an object.
    (alone,) = pipe(["a blue box"], STEPS, seeds=[4])
    torch.testing.assert_close(alone.gaussians.xyz, splats[1].gaussians.xyz, atol=1e-4, rtol=1e-4)
    (other,) = pipe(["a blue box"], STEPS, seeds=[5])
    assert float((other.gaussians.xyz - alone.gaussians.xyz).abs().max()) > 1e-3


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_with_shards_generates_from_an_image(repositories, name):
    root, base = repositories[name]
    pipe = DiffSplatPipeline.from_pretrained(root, image=True, base=base)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (splat,) = pipe([""], STEPS, images=image)
    (other,) = pipe([""], STEPS, images=1 - image)
    assert float((splat.gaussians.rgb - other.gaussians.rgb).abs().max()) > 1e-3
    with pytest.raises(InputError, match="needs an image"):
        pipe(["a ball"], STEPS)


def test_a_hub_repository_loads_offline_from_its_cache(repositories, tmp_path, monkeypatch):
    root, base = repositories["sd15"]
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="diffsplat download --model sd15"):
        DiffSplatPipeline.from_pretrained("sd15")
    for hub_id, folder in (("chenguolin/DiffSplat", root), (PUBLISHED["sd15"].base, base)):
        cached = tmp_path / f"models--{hub_id.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
    by_tag = DiffSplatPipeline.from_pretrained("sd15")
    by_id = DiffSplatPipeline.from_pretrained("chenguolin/DiffSplat")
    by_folder = DiffSplatPipeline.from_pretrained(root, base=base)
    found = [pipe(["a red ball"], STEPS)[0].gaussians.xyz for pipe in (by_tag, by_id, by_folder)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_controlnet_and_elevations(repositories):
    root, base = repositories["sd15"]
    pipe = DiffSplatPipeline.from_pretrained(root, control="depth", base=base)
    maps = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (one,) = pipe(["a ball"], STEPS, control=maps)
    (two,) = pipe(["a ball"], STEPS, control=1 - maps)
    assert float((one.gaussians.rgb - two.gaussians.rgb).abs().max()) > 1e-4
    with pytest.raises(InputError, match="go together"):
        pipe(["a ball"], STEPS)
    with pytest.raises(InputError, match="sd15 with a text only"):
        DiffSplatPipeline.from_pretrained(root, control="depth", image=True, base=base)
    pipe = DiffSplatPipeline.from_pretrained(root, image=True, elevest=True, base=base)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (splat,) = pipe([""], STEPS, images=image)
    assert splat.elevation_deg == pytest.approx(float(pipe.elevation_of(image)))
    assert -12 <= splat.elevation_deg <= 40
    assert torch.allclose(splat.T_world_cam[:, 1, 3], torch.tensor(1.4 * torch.pi / 180 * 0 + 1.4) *
                          torch.sin(torch.deg2rad(torch.tensor(splat.elevation_deg))), atol=1e-4)  # fmt: skip


def test_precision_offloading_and_dropped_text_encoders(repositories):
    root, base = repositories["sd15"]
    pipe = DiffSplatPipeline.from_pretrained(root, base=base, dtype=torch.bfloat16, offload=True)
    text, negative = pipe.encode_text(["a red ball"]), pipe.encode_text([""])
    pipe.drop_text_encoders()
    (splat,) = pipe(["a red ball"], STEPS, text=text, negative=negative)
    assert splat.gaussians.xyz.dtype == torch.float32
    (exact,) = DiffSplatPipeline.from_pretrained(root, base=base)(["a red ball"], STEPS)
    assert float((splat.gaussians.xyz - exact.gaussians.xyz).abs().mean()) < 0.1
    with pytest.raises(InputError, match="text encoders"):
        pipe(["a red ball"], STEPS)


@pytest.mark.parametrize("scheduler", ["sde-dpmsolver++", "dpmsolver++", "ddim"])
def test_settings_have_an_effect(repositories, scheduler):
    root, base = repositories["sd15"]
    pipe = DiffSplatPipeline.from_pretrained(root, base=base)
    plain = pipe(["a ball"], GenerationConfig(num_steps=3, scheduler=scheduler))[0].gaussians.xyz
    changes: tuple[dict[str, Any], ...] = (
        {"guidance": 3.0},
        {"triangle_guidance": True},
        {"negative_prompt": "box"},
        {"elevation_deg": 25.0},
        {"distance": 1.6},
        {"num_steps": 2},
    )
    for changed in changes:
        config = GenerationConfig(**{"num_steps": 3, "scheduler": scheduler, **changed})
        other = pipe(["a ball"], config)[0].gaussians.xyz
        assert float((other - plain).abs().max()) > 1e-5, changed


def edited(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "edited"))


def test_missing_parts_are_named(repositories, tmp_path):
    root, base = repositories["sd15"]
    copy = edited(root, tmp_path)
    spec = PUBLISHED["sd15"]
    ema = copy / spec.text_tag / "checkpoints" / "013020" / "unet_ema"
    with pytest.raises(InputError, match="no iteration 000007, only 013020"):
        DiffSplatPipeline.from_pretrained(copy, base=base, iteration=7)
    weights = ema / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
        DiffSplatPipeline.from_pretrained(copy, base=base)
    weights.rename(ema / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only"):
        DiffSplatPipeline.from_pretrained(copy, base=base)
    shutil.rmtree(copy / spec.text_tag)
    with pytest.raises(InputError, match=f"{spec.text_tag}.*diffsplat download --model sd15"):
        DiffSplatPipeline.from_pretrained(copy, base=base)
    with pytest.raises(InputError, match="vae"):
        DiffSplatPipeline.from_pretrained(root, base=tmp_path / "edited")
    with pytest.raises(InputError, match="has no ControlNet"):
        DiffSplatPipeline.from_pretrained("default", control="depth")
    with pytest.raises(InputError, match="no folder"):
        DiffSplatPipeline.from_pretrained(tmp_path / "nothing")


def test_shards_and_wrong_weights_are_refused(repositories, tmp_path):
    root, base = repositories["sd15"]
    copy = edited(root, tmp_path)
    folder = copy / PUBLISHED["sd15"].image_tag / "checkpoints" / "013020" / "unet_ema"
    assert len(weight_files(folder)) == 3
    removed = weight_files(folder)[1]
    removed.unlink()
    with pytest.raises(InputError, match=removed.name):
        DiffSplatPipeline.from_pretrained(copy, image=True, base=base)
    text = copy / PUBLISHED["sd15"].text_tag / "checkpoints" / "013020" / "unet_ema"
    state = read_state(weight_files(text))
    del state["conv_in.bias"]
    state["more"] = torch.zeros(1)
    holder = torch.nn.Module()
    for name, value in state.items():
        holder.register_buffer(name.replace(".", "/"), value)
    from safetensors.torch import save_file

    save_file(state, text / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError, match=r"conv_in\.bias is missing; more is unexpected"):
        DiffSplatPipeline.from_pretrained(copy, base=base)
    (text / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no configuration"):
        DiffSplatPipeline.from_pretrained(copy, base=base)


def test_the_latest_iteration_counts(repositories, tmp_path):
    root, base = repositories["sd15"]
    copy = edited(root, tmp_path)
    pipe = DiffSplatPipeline.from_pretrained(copy, base=base)
    later = copy / PUBLISHED["sd15"].text_tag / "checkpoints" / "020000"
    shutil.copytree(later.parent / "013020", later)
    with torch.no_grad():
        next(pipe.parts.denoiser.parameters()).add_(1)
    write_weights(later / "unet_ema", pipe.parts.denoiser.network, stem="diffusion_pytorch_model")
    newest = next(DiffSplatPipeline.from_pretrained(copy, base=base).parts.denoiser.parameters())
    older = next(DiffSplatPipeline.from_pretrained(copy, base=base, iteration=13020).parts.denoiser.parameters())
    assert torch.allclose(newest, older + 1)


def test_only_weights_and_configurations_are_fetched():
    patterns = tag_files(["tag"])
    assert all(pattern.endswith((".safetensors", ".json")) for pattern in patterns)
    assert json.dumps(patterns).count("tag/checkpoints/") == len(patterns)
