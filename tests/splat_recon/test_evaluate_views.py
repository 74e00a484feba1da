import numpy as np
import pytest
import torch

from image_metrics import MAX_PSNR
from splat_recon import View
from splat_recon.evaluate import evaluate
from splat_render import Camera


def _view(name: str, value: int, mask: np.ndarray | None = None) -> View:
    K = np.array([[20.0, 0, 10], [0, 20, 8], [0, 0, 1]])
    camera = Camera(T_world_cam=np.eye(4), K=K, width=20, height=16)
    return View(name=name, camera=camera, rgb_u8=np.full((16, 20, 3), value, np.uint8), mask=mask)


def test_scores_per_view_and_their_means():
    seen = []
    found = evaluate(
        lambda camera: torch.full((16, 20, 3), 0.2),
        [_view("a", 51), _view("b", 102)],
        lpips=lambda rendered, photo: float((rendered - photo).abs().mean()),
        on_view=lambda view, rendered: seen.append((view.name, float(rendered.max()))),
    )
    assert found.per_view["a"].psnr == MAX_PSNR
    assert found.per_view["b"].psnr == pytest.approx(-20 * np.log10(0.2), abs=1e-4)
    assert found.psnr == pytest.approx((found.per_view["a"].psnr + found.per_view["b"].psnr) / 2)
    assert found.lpips == pytest.approx(0.1, abs=1e-6)
    assert seen == [("a", pytest.approx(0.2)), ("b", pytest.approx(0.2))]


def test_masked_pixels_do_not_count():
    mask = np.ones((16, 20), dtype=bool)
    mask[:, 10:] = False
    rendered = torch.full((16, 20, 3), 0.2)
    rendered[:, 10:] = 1.0
    assert evaluate(lambda camera: rendered, [_view("a", 51, mask)]).psnr == MAX_PSNR
    assert evaluate(lambda camera: rendered, [_view("a", 51)]).psnr < 10


def test_no_views_is_an_error():
    with pytest.raises(ValueError, match="at least one view"):
        evaluate(lambda camera: torch.zeros(16, 20, 3), [])


def test_metrics_json_has_the_agreed_form():
    found = evaluate(lambda camera: torch.full((16, 20, 3), 0.2), [_view("a", 51)])
    content = found.to_dict(step=5, split="test", num_gaussians=9)
    assert set(content) == {"step", "split", "num_gaussians", "psnr", "ssim", "lpips", "flip", "per_view"}
    assert content["lpips"] is None
    assert set(content["per_view"]["a"]) == {"psnr", "ssim", "lpips", "flip"}
