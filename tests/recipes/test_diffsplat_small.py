"""The recipe of a small DiffSplat runs from nothing to a stack that generates, and goes on where it stood."""

from __future__ import annotations

import json
import shlex

import numpy as np
import torch

from diffsplat import ActiveGaussians, DiffSplatPipeline, GeneratedSplat, GenerationConfig
from diffsplat_small.__main__ import main
from diffsplat_small.judging import color_of, held_out_prompts, overlap_with, seen
from diffsplat_small.stages import NEVER_SHOWN, TEXT_OBJECTS
from synthetic_objects import intrinsics, orbit_rig, ray_cast, sample_object


def test_a_few_steps_end_in_a_stack_that_generates(tmp_path, capsys):
    command = ["--out", str(tmp_path), *shlex.split("--steps 2 1 1 2 --num-objects 8 16 --num-prompts 2")]
    main(command)
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "weights")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["prompts"]["num_prompts"] == 2
    assert 0 <= figures["prompts"]["named"]["color_right"] <= 1
    images = figures["images"]
    assert images["mean of the others"]["psnr"] > images["made of another's image"]["psnr"]
    size = sum(path.stat().st_size for path in (tmp_path / "weights").rglob("*") if path.is_file())
    assert size < 20e6
    pipe = DiffSplatPipeline.from_pretrained(tmp_path / "weights")
    (splat,) = pipe(["a red ball on a blue box"], GenerationConfig(num_steps=2))
    with_image = DiffSplatPipeline.from_pretrained(tmp_path / "weights", image=True)
    pictures = torch.ones(2, 3, 64, 64)
    pictures[1, :, 20:40, 20:40] = 0
    one, other = with_image(["", ""], GenerationConfig(num_steps=2), images=pictures, seeds=[0, 0])
    assert not torch.equal(one.gaussians.xyz, other.gaussians.xyz)
    assert splat.gaussians.xyz.shape == (1, 4 * 64 * 64, 3)
    before = (tmp_path / "weights" / "base" / "text_encoder" / "model.safetensors").read_bytes()
    main(command)
    assert (tmp_path / "weights" / "base" / "text_encoder" / "model.safetensors").read_bytes() == before


def splat_from_maps(generated) -> GeneratedSplat:
    """Gaussians on what four cameras see of an object."""
    poses, K = orbit_rig(10), intrinsics(64)
    maps = [ray_cast(generated, pose, K, 64, 64, samples=1) for pose in poses]
    xyz = torch.from_numpy(np.concatenate([one.points[one.mask > 0] for one in maps])).float()
    rgb = torch.from_numpy(np.concatenate([one.rgb[one.mask > 0] for one in maps])).float()
    gaussians = ActiveGaussians(
        xyz=xyz[None], rgb=rgb[None], scales=torch.full_like(xyz, 0.008)[None],
        quats_wxyz=torch.tensor([1.0, 0, 0, 0]).expand(1, len(xyz), 4), opacities=torch.ones(1, len(xyz)),
    )  # fmt: skip
    return GeneratedSplat(
        prompt=generated.caption, gaussians=gaussians, T_world_cam=torch.from_numpy(poses).float(), elevation_deg=10.0,
        seed=0,
    )  # fmt: skip


def test_the_rule_finds_true_objects_right_and_others_wrong():
    objects = held_out_prompts(12, NEVER_SHOWN, ["matte", "metal"])
    assert len({one.caption for one in objects}) == 12
    right_colors, right_shapes, wrong_shapes = [], [], []
    for generated in objects:
        splat = splat_from_maps(generated)
        rgb, opaque = seen(splat)
        part = generated.parts[0]
        right_colors.append(color_of(rgb, opaque, part.material, 10.0) == part.color)
        right_shapes.append(overlap_with(part.shape, opaque, 10.0) >= 0.6)
        other = "ring" if part.shape != "ring" else "capsule"
        wrong_shapes.append(overlap_with(other, opaque, 10.0) >= 0.6)
    assert np.mean(right_colors) >= 0.9
    assert np.mean(right_shapes) >= 0.8
    assert np.mean(wrong_shapes) <= 0.2
    nothing = torch.zeros(4, 64, 64, dtype=torch.bool)
    assert color_of(torch.ones(4, 3, 64, 64), nothing, "matte", 10.0) is None


def test_no_training_shows_what_the_held_out_prompts_name():
    shown = {
        (part.color, part.shape) for seed in range(400) for part in sample_object(seed, TEXT_OBJECTS.objects).parts
    }
    assert len(NEVER_SHOWN) == 15
    assert not shown & set(NEVER_SHOWN)
    assert len(shown) == 62
