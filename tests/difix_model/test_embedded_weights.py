"""The weights that come with the package: small, documented, and harmless to a clean image."""

import json

import torch

from difix_model import DifixPipeline
from difix_model.formats.sources import WEIGHTS_FOLDER
from difix_model.gate.config import gate_from

MAX_BYTES = 20_000_000


def smooth_image(height: int, width: int) -> torch.Tensor:
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(3))
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return image.clamp(0, 1)[0].movedim(0, -1)


def test_they_are_small_and_say_where_they_come_from() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.iterdir()) < MAX_BYTES
    metadata = json.loads((WEIGHTS_FOLDER / "config.json").read_text(encoding="utf-8"))["metadata"]
    assert metadata["license"] == "Apache-2.0"
    assert gate_from(metadata["gate"]) is not None
    card = (WEIGHTS_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card
    assert "reference" in card


def test_they_leave_a_clean_image_almost_alone() -> None:
    pipe = DifixPipeline.from_pretrained()
    rendered = smooth_image(70, 90)[None]
    fixed = pipe.fix(rendered, rendered)
    assert fixed.shape == rendered.shape
    assert (fixed - rendered).square().mean().sqrt() < 0.03


def test_they_change_a_foggy_image_and_always_in_the_same_way() -> None:
    pipe = DifixPipeline.from_pretrained()
    rendered = smooth_image(64, 96)[None]
    fog = torch.linspace(0, 0.9, 96)[None, None, :, None]
    foggy = (1 - fog) * rendered
    first, second = (pipe.fix(foggy, gate="off") for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert (first - foggy).abs().max() > 1e-3
