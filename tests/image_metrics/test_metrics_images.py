import logging
import math

import pytest
import torch

import image_metrics as metrics
from image_metrics.lpips import LPIPS_BACKBONES


def test_psnr_of_a_known_error():
    photo = torch.full((12, 12, 3), 0.5)
    assert metrics.psnr(photo + 0.1, photo) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr(photo, photo) == metrics.MAX_PSNR


def test_flip_is_what_one_notices():
    photo = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(0))
    assert metrics.flip(photo, photo) == 0
    black, white = torch.zeros(24, 32, 3), torch.ones(24, 32, 3)
    assert 0.9 < metrics.flip(black, white) <= 1
    near, far = (metrics.flip((photo + shift).clamp(0, 1), photo) for shift in (0.02, 0.2))
    assert 0 < near < far
    # Values beyond [0, 1] are clamped as in the other metrics.
    assert metrics.flip(photo + 5, white) == 0
    mask = torch.ones(24, 32, dtype=torch.bool)
    mask[:, 16:] = False
    half = photo.clone()
    half[:, 24:] = 1 - half[:, 24:]
    # The eye blurs: only what is well inside the mask is free of what is outside.
    assert metrics.flip(half, photo, mask) < 0.2 * metrics.flip(half, photo)


def test_psnr_and_ssim_are_those_of_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    for height, width in ((24, 32), (6, 9)):
        truth = torch.rand(height, width, 3, generator=generator)
        image = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
        one, other = (values.permute(2, 0, 1)[None].double() for values in (image, truth))
        assert metrics.psnr(image, truth) == pytest.approx(float(peak_signal_noise_ratio(one, other, data_range=1.0)))
        both = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
        mask = torch.rand(height, width, generator=generator) > 0.5
        assert metrics.ssim(image, truth) == pytest.approx(float(both[0]), abs=1e-7)
        assert metrics.ssim(image, truth, mask) == pytest.approx(float(both[1][0, :, mask].mean()), abs=1e-7)
        if height > 11:
            inside = float(both[1][..., 5:-5, 5:-5].mean())
            assert metrics.ssim(image, truth, border="inside") == pytest.approx(inside, abs=1e-7)


def test_ssim_of_constant_images_is_their_luminance():
    # (2 a b + c1) / (a^2 + b^2 + c1).
    dark, bright = torch.full((16, 16, 3), 0.2), torch.full((16, 16, 3), 0.6)
    assert metrics.ssim(dark, bright) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), abs=1e-6)


def test_psnr_clamps_the_render():
    photo = torch.ones(12, 12, 3)
    assert metrics.psnr(photo + 3, photo) == metrics.MAX_PSNR


def test_masked_metrics_see_only_the_mask():
    photo = torch.rand(30, 30, 3, generator=torch.Generator().manual_seed(0))
    rendered = photo.clone()
    rendered[:, 20:] = 0
    mask = torch.ones(30, 30, dtype=torch.bool)
    mask[:, 10:] = False
    assert metrics.psnr(rendered, photo, mask) == metrics.MAX_PSNR
    assert metrics.ssim(rendered, photo, mask, border="inside") == pytest.approx(1.0, abs=1e-5)
    assert metrics.psnr(rendered, photo) < 20
    assert metrics.ssim(rendered, photo) < 0.9


def test_lpips_without_its_backbone_is_none_and_says_why(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert metrics.make_lpips() is None
    assert "alexnet-owt-7be5be79.pth" in caplog.text
    assert str(tmp_path) in caplog.text


def test_lpips_reads_the_backbone_from_torch_hubs_folder(tmp_path, monkeypatch):
    pytest.importorskip("lpips")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    weights = {}
    for index, shape in shapes.items():
        fan_in = math.prod(shape[1:])
        weights[f"features.{index}.weight"] = torch.randn(shape, generator=generator) / fan_in**0.5
        weights[f"features.{index}.bias"] = torch.zeros(shape[0])
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, tmp_path / "hub" / "checkpoints" / LPIPS_BACKBONES["alex"])
    lpips = metrics.make_lpips()
    assert lpips is not None
    photo = torch.rand(64, 64, 3, generator=generator)
    noisy = photo + 0.2 * torch.randn(64, 64, 3, generator=generator)
    assert lpips(photo, photo) == pytest.approx(0.0, abs=1e-7)
    assert lpips(noisy, photo) > 1e-4
    assert lpips(noisy, photo) == metrics.make_lpips()(noisy, photo)  # type: ignore[misc]


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="alex, vgg"):
        metrics.make_lpips("resnet")


def test_ssim_map_is_the_textbook_formula_at_one_window():
    image, target = (torch.rand(11, 11, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in (3, 4))
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window2d = window[:, None] * window[None, :]
    window2d = (window2d / window2d.sum())[..., None]
    mean_a, mean_b = (window2d * image).sum((0, 1)), (window2d * target).sum((0, 1))
    var_a, var_b = (window2d * (image - mean_a) ** 2).sum((0, 1)), (window2d * (target - mean_b) ** 2).sum((0, 1))
    covariance = (window2d * (image - mean_a) * (target - mean_b)).sum((0, 1))
    wanted = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
    )
    torch.testing.assert_close(metrics.ssim_map(image, target)[0, 0], wanted, rtol=1e-5, atol=1e-6)


def test_flip_tells_apart_what_psnr_does_not():
    edge = torch.zeros(48, 48, 3)
    edge[:, 24:] = 0.5
    planes = edge.permute(2, 0, 1)
    blurred = torch.nn.functional.avg_pool2d(planes, (1, 9), stride=1, padding=(0, 4), count_include_pad=False)
    blurred = blurred.permute(1, 2, 0)
    brighter = edge + (blurred - edge).square().mean().sqrt()
    assert metrics.psnr(blurred, edge) == pytest.approx(metrics.psnr(brighter, edge), abs=1e-4)
    assert metrics.flip(brighter, edge) > 2 * metrics.flip(blurred, edge) > 0.1
