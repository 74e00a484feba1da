"""PSNR by its formula, SSIM by its known values."""

import pytest
import torch

from difix_train.metrics import psnr, ssim


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
