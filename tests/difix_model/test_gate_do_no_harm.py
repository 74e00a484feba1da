"""The gate: its limits, its neutral settings, and that images do not influence each other."""

import pytest
import torch

from difix_model import GateConfig
from difix_model.gate import apply as apply_module
from difix_model.gate.apply import apply_gate
from difix_model.gate.config import EvidenceConfig


def images(seed: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rendered = torch.rand(count, 16, 20, 3, generator=generator)
    return rendered, (rendered + 0.2 * torch.randn(rendered.shape, generator=generator)).clamp(0, 1)


def test_neutral_settings_return_the_fix_and_strength_zero_the_render() -> None:
    rendered, fixed = images(0)
    torch.testing.assert_close(apply_gate(rendered, fixed, GateConfig()).rgb, fixed)
    torch.testing.assert_close(apply_gate(rendered, fixed, GateConfig(strength=0.0)).rgb, rendered)


def test_no_channel_changes_by_more_than_the_limit() -> None:
    rendered, fixed = images(1)
    gated = apply_gate(rendered, fixed, GateConfig(max_change=0.05)).rgb
    assert (gated - rendered).abs().max() <= 0.05 + 1e-6
    assert ((gated - rendered) * (fixed - rendered)).min() >= -1e-6


def test_small_changes_are_distrusted_in_proportion() -> None:
    rendered = torch.full((1, 16, 16, 3), 0.5)
    fixed = rendered + 0.01
    gated = apply_gate(rendered, fixed, GateConfig(trusted_change=0.04)).rgb
    torch.testing.assert_close(gated - rendered, torch.full_like(rendered, 0.0025), rtol=1e-3, atol=1e-6)
    large = rendered + 0.1
    torch.testing.assert_close(apply_gate(rendered, large, GateConfig(trusted_change=0.04)).rgb, large)


def test_dark_things_are_not_brightened_unless_the_opacity_shows_a_hole() -> None:
    columns = torch.tensor([0.02] * 20 + [0.15] * 20 + [0.3] * 20)
    rendered = columns.reshape(1, 1, 60, 1).expand(1, 20, 60, 3)
    brighter = rendered + 0.4
    config = GateConfig(dark_level=0.2)
    kept = (apply_gate(rendered, brighter, config).rgb - rendered)[0, 10, [10, 30, 50], 0]
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.2, 0.4]))
    darker = rendered * 0.5
    torch.testing.assert_close(apply_gate(rendered, darker, config).rgb, darker)
    torch.testing.assert_close(apply_gate(rendered, brighter, config, alpha=torch.zeros(1, 20, 60)).rgb, brighter)


def test_detail_strength_keeps_the_coarse_change() -> None:
    rendered, fixed = images(2)
    gated = apply_gate(rendered, fixed, GateConfig(detail_strength=0.0, blur_radius=3)).rgb
    change, coarse = fixed - rendered, gated - rendered
    assert coarse.std() < 0.5 * change.std()
    torch.testing.assert_close(coarse[:, 5:-5, 5:-5].mean(), change[:, 5:-5, 5:-5].mean(), rtol=0.5, atol=5e-3)


def test_images_of_a_batch_are_gated_one_by_one() -> None:
    config = GateConfig(strength=0.7, detail_strength=0.5, max_change=0.2, trusted_change=0.1)
    rendered, fixed = images(3, count=3)
    together = apply_gate(rendered, fixed, config).rgb
    alone = torch.cat([apply_gate(rendered[i : i + 1], fixed[i : i + 1], config).rgb for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_where_nothing_was_rendered_the_fix_stands() -> None:
    rendered, fixed = images(4)
    alpha = torch.ones(rendered.shape[:3])
    alpha[:, :, :10] = 0
    gated = apply_gate(rendered, fixed, GateConfig(strength=0.0), alpha=alpha).rgb
    torch.testing.assert_close(gated[:, :, :10], fixed[:, :, :10])
    torch.testing.assert_close(gated[:, :, 10:], rendered[:, :, 10:])


@pytest.mark.parametrize(
    ("field", "value"),
    [("strength", 1.1), ("detail_strength", -1), ("max_change", 0), ("blur_radius", 0), ("dark_level", 2)],
)
def test_settings_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        GateConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("in_place", [False, True])
def test_bands_of_rows_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch, in_place: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    rendered = torch.rand(2, 41, 20, 3, generator=generator)
    fixed = (rendered + 0.3 * torch.randn(2, 41, 20, 3, generator=generator)).clamp(0, 1)
    alpha, mask = torch.rand(2, 2, 41, 20, generator=generator)
    config = GateConfig(
        detail_strength=0.3,
        blur_radius=3,
        trusted_change=0.5,
        max_change=0.2,
        evidence=EvidenceConfig(low_coverage=0.0),
    )
    whole = apply_gate(rendered, fixed, config, strength=0.9, mask=mask, alpha=alpha, with_weight=True)
    monkeypatch.setattr(apply_module, "PIXELS_AT_ONCE", 4 * 20)
    given = fixed.clone()
    banded = apply_gate(
        rendered, given, config, strength=0.9, mask=mask, alpha=alpha, with_weight=True, in_place=in_place
    )
    torch.testing.assert_close(banded.rgb, whole.rgb)
    torch.testing.assert_close(banded.weight, whole.weight)
    assert float((whole.rgb - rendered).abs().max()) > 0.02
    assert torch.equal(given, fixed) != in_place
