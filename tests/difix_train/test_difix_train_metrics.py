"""PSNR by its formula, SSIM by its known values, FLIP by what it is for."""

import pytest
import torch

from difix_train.metrics import flip, psnr, ssim


def _noisy() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 24, 32, generator=generator)
    return rgb, (rgb + 0.1 * torch.randn(rgb.shape, generator=generator)).clamp(0, 1)


def test_psnr_of_each_image_is_its_formula():
    rgb, noisy = _noisy()
    expected = -10 * torch.log10((rgb - noisy).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(psnr(noisy, rgb), expected, atol=1e-4, rtol=0)
    assert psnr(rgb, rgb).tolist() == [100, 100]


def test_ssim_of_each_image_falls_with_noise_and_is_one_for_equal_images():
    rgb, noisy = _noisy()
    values = ssim(noisy, rgb)
    assert values.shape == (2,)
    assert ((values > 0.8) & (values < 0.99)).all()
    assert ssim(rgb, rgb).tolist() == pytest.approx([1, 1])
    # Of two constant images only the luminance differs: (2 a b + c1) / (a^2 + b^2 + c1).
    dark, bright = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    assert float(ssim(dark, bright)) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), abs=1e-6)
    assert ssim(rgb[..., :8, :8], noisy[..., :8, :8]).isfinite().all()


def test_flip_of_each_image_tells_apart_what_psnr_does_not():
    rgb, noisy = _noisy()
    values = flip(noisy, rgb)
    assert values.shape == (2,)
    assert ((values > 0.02) & (values < 0.5)).all()
    assert flip(rgb, rgb).tolist() == [0, 0]
    # An edge, blurred or brighter by as much in the squared mean.
    edge = torch.zeros(1, 3, 48, 48)
    edge[..., 24:] = 0.5
    blurred = torch.nn.functional.avg_pool2d(edge, (1, 9), stride=1, padding=(0, 4), count_include_pad=False)
    brighter = edge + (blurred - edge).square().mean().sqrt()
    torch.testing.assert_close(psnr(blurred, edge), psnr(brighter, edge))
    assert float(flip(brighter, edge)) > 2 * float(flip(blurred, edge)) > 0.1
