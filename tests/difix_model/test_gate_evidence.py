"""The default gate keeps what is only redrawn, lets through what is put right, and says how much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from difix_model import DifixPipeline, FixedImage, GateConfig, InputError
from difix_model.gate.apply import apply_gate
from difix_model.gate.config import DEFAULT_GATE, EvidenceConfig, chosen_gate, gate_from
from difix_model.gate.evidence import change_evidence
from difix_model.masks import plane


def scenery(seed: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """Broad regions with texture on them, `[1 h w 3]`."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        fraction
        * functional.interpolate(torch.rand(1, 3, *size, generator=generator), size=(height, width), mode="bicubic")
        for fraction, size in ((0.7, (4, 5)), (0.2, (24, 32)), (0.1, (height, width)))
    ]
    return torch.stack(layers).sum(dim=0).clamp(0, 1).movedim(1, -1)


def blurred(rgb: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(rgb.movedim(-1, 1), 5, 1, 2, count_include_pad=False).movedim(1, -1)


def with_noise(rgb: torch.Tensor) -> torch.Tensor:
    return (rgb + 0.08 * torch.randn(rgb.shape, generator=torch.Generator().manual_seed(9))).clamp(0, 1)


def degraded(photo: torch.Tensor) -> torch.Tensor:
    """Fog and misplaced things over most of the image."""
    other = scenery(77, *photo.shape[1:3])
    return torch.lerp(photo, torch.roll(other, 9, dims=2), 0.6)


REDRAWN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "blurred": blurred,
    "sharpened": lambda rgb: (2 * rgb - blurred(rgb)).clamp(0, 1),
    "noise": with_noise,
    "tint": lambda rgb: (rgb * torch.tensor([1.06, 1.0, 0.94]) + 0.02).clamp(0, 1),
    "contrast": lambda rgb: (rgb - 0.5) * 0.9 + 0.5,
    "moved": lambda rgb: torch.roll(rgb, 1, dims=2),
}


@pytest.mark.parametrize("name", REDRAWN)
def test_what_is_only_redrawn_is_kept(name: str) -> None:
    render = scenery(1)
    fixed = REDRAWN[name](render)
    assert (fixed - render).square().mean().sqrt() > 0.01
    result = apply_gate(render, fixed, DEFAULT_GATE, references=scenery(1)).rgb
    assert (result - render).abs().max() < 0.005


def test_an_invented_object_in_a_good_render_is_kept_out() -> None:
    render = scenery(2)
    fixed = render.clone()
    fixed[:, 20:38, 30:52] = 1 - fixed[:, 20:38, 30:52]
    assert (apply_gate(render, fixed, DEFAULT_GATE).rgb - render).abs().max() < 0.02


def test_what_puts_a_bad_render_right_comes_through() -> None:
    photo = scenery(3)
    render = degraded(photo)
    for fixed in (photo, blurred(photo), torch.lerp(render, photo, 0.7)):
        result = apply_gate(render, fixed, DEFAULT_GATE, references=photo, with_weight=True)
        gained, possible = ((image - photo).square().mean().sqrt() for image in (result.rgb, fixed))
        before = (render - photo).square().mean().sqrt()
        assert before - gained > 0.8 * (before - possible)
        assert result.weight is not None
        assert result.weight.mean() > 0.7


def test_colors_that_leave_the_reference_are_not_let_through() -> None:
    render = scenery(4)
    away = (render * 0.4 + 0.6 * scenery(5) * torch.tensor([1.0, 0.2, 0.2])).clamp(0, 1)
    trusted = [
        change_evidence(render, away, EvidenceConfig(), references=references).confidence.mean()
        for references in (None, away, render)
    ]
    assert trusted[0] > 0.5
    assert trusted[1] == pytest.approx(trusted[0])
    assert trusted[2] < 0.02


def test_evidence_is_per_image_and_independent_of_the_resolution() -> None:
    photos = torch.cat([scenery(6), scenery(7)])
    renders = torch.cat([degraded(photos[:1]), photos[1:]])
    fixed = torch.cat([photos[:1], with_noise(photos[1:])])
    together = change_evidence(renders, fixed, EvidenceConfig()).confidence
    alone = torch.cat(
        [change_evidence(renders[i : i + 1], fixed[i : i + 1], EvidenceConfig()).confidence for i in range(2)]
    )
    torch.testing.assert_close(together, alone)
    assert together[0].mean() > 0.7
    assert together[1].max() < 0.02

    def larger(rgb: torch.Tensor) -> torch.Tensor:
        return rgb.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)

    again = change_evidence(larger(renders[:1]), larger(fixed[:1]), EvidenceConfig()).confidence
    assert again.mean() == pytest.approx(float(together[0].mean()), abs=0.02)


def test_strength_mask_and_weight_agree() -> None:
    render, fixed = scenery(8), degraded(scenery(8))
    mask = torch.zeros(render.shape[:3])
    mask[:, :, 64:] = 1
    found = apply_gate(render, fixed, None, strength=0.5, mask=mask, with_weight=True)
    assert torch.equal(found.rgb[:, :, :64], render[:, :, :64])
    torch.testing.assert_close(found.rgb[:, :, 64:], torch.lerp(render, fixed, 0.5)[:, :, 64:])
    torch.testing.assert_close(found.weight, 0.5 * mask, atol=1e-4, rtol=0)
    assert apply_gate(render, fixed, None).weight is None
    unchanged = apply_gate(render, render, None, with_weight=True).weight
    assert unchanged is not None
    assert not unchanged.any()


def test_what_is_transparent_may_be_changed_and_thin_places_are_kept() -> None:
    render = scenery(9)
    fixed = with_noise(render)
    alpha = torch.ones(render.shape[:3])
    alpha[:, :, :30], alpha[:, :, 30:60] = 0, 0.6
    result = apply_gate(render, fixed, DEFAULT_GATE, alpha=alpha).rgb
    torch.testing.assert_close(result[:, :, :30], fixed[:, :, :30])
    assert (result - render)[:, :, 30:].abs().max() < 0.005


def test_where_a_gate_comes_from() -> None:
    small = gate_from({"trusted_change": 0.02})
    careful = gate_from({"evidence": {"low_coverage": 0.1}})
    assert careful is not None
    assert careful.evidence == EvidenceConfig(low_coverage=0.1)
    assert gate_from(None) is None
    assert chosen_gate("checkpoint", small) is small
    assert chosen_gate("auto", small) is chosen_gate("auto", None) is DEFAULT_GATE
    assert chosen_gate("auto", careful) is careful
    assert chosen_gate("off", small) is None
    own = GateConfig(strength=0.5)
    assert chosen_gate(own, small) is own
    for settings in ({"evidence": {"no": 1}}, {"strength": 2}, {"evidence": {"cells": 0}}):
        with pytest.raises(InputError, match="gate of these weights"):
            gate_from(settings)


@pytest.mark.parametrize(
    "fields", [{"low_change": 0.1}, {"high_coverage": 2.0}, {"hysteresis": -1.0}, {"palette_drift": 0.0}, {"cells": 0}]
)
def test_evidence_out_of_range_is_named(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields)).split("_")[-1]):
        EvidenceConfig(**fields)  # type: ignore[arg-type]


def test_masks_of_every_kind_are_planes() -> None:
    values = np.zeros((16, 24), dtype=bool)
    values[4:9] = True
    expected = torch.from_numpy(values).float()
    gray = (values * 255).astype(np.uint8)
    for given in (values, gray, torch.from_numpy(values), values.astype(np.float32), Image.fromarray(gray)):
        torch.testing.assert_close(plane(given, 16, 24, "mask"), expected)
    torch.testing.assert_close(plane(Image.fromarray(gray).convert("1"), 16, 24, "mask"), expected)
    assert plane(gray, 32, 48, "mask").mean() == pytest.approx(float(expected.mean()), abs=0.02)
    with pytest.raises(InputError, match="a mask of 24x16 does not fit an image of 16x24"):
        plane(gray, 24, 16, "mask")
    with pytest.raises(InputError, match="the mask cannot be used"):
        plane("white", 24, 16, "mask")


def test_the_pipeline_restricts_by_mask_and_says_how_much(checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[:, 20:] = 255
    free = pipe(pixels)
    found = pipe.fix_images([pixels, pixels], mask=[mask, None])
    assert found[0].weight is not None
    assert found[1].weight is not None
    assert all(isinstance(result, FixedImage) for result in found)
    np.testing.assert_array_equal(found[0].image[:, :20], pixels[:, :20])
    np.testing.assert_array_equal(found[0].image[:, 20:], free[:, 20:])
    np.testing.assert_array_equal(found[1].image, free)
    assert not found[0].weight[:, :20].any()
    assert found[0].weight[:, 20:].min() > 0.99
    with pytest.raises(InputError, match="one mask per image: got 2 images, 1"):
        pipe([pixels, pixels], mask=[mask])


def test_an_alpha_channel_counts_as_opacity(checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder)
    pipe.gate = GateConfig(strength=0.0)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:, :20, 3] = 1
    (result,) = pipe.fix_images(pixels)
    assert result.weight is not None
    np.testing.assert_array_equal(result.image[:, 20:], pixels[:, 20:])
    assert result.weight[:, :20].min() > 0.9
    (opaque,) = pipe.fix_images(pixels, alpha=np.full((24, 40), 255, np.uint8))
    assert opaque.weight is not None
    assert opaque.weight.max() < 1e-3
