import itertools

import numpy as np
import pytest
import torch

from image_metrics import ssim_map
from image_metrics.similarity import WINDOW
from splat_recon import losses
from splat_recon.ssim_kernel import compare_rows


def _image(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(WINDOW, WINDOW), (11, 30), (37, 23)])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_ssim_equals_plain_torch_in_value_and_gradient(height, width, weighted):
    image, target = _image(height, width, 0).requires_grad_(), _image(height, width, 1)
    pixel_weight = _image(height, width, 2)[..., 0] if weighted else None
    value = losses.ssim(image, target, pixel_weight)
    (2.5 * value).backward()

    exact = image.detach().double().requires_grad_()
    weights = torch.ones(height, width) if pixel_weight is None else pixel_weight
    wanted = (ssim_map(exact, target.double()) * weights[5:-5, 5:-5, None]).mean()
    (2.5 * wanted).backward()
    assert exact.grad is not None
    torch.testing.assert_close(value.detach().double(), wanted.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(image.grad, exact.grad.float(), rtol=1e-3, atol=2e-5 * float(exact.grad.abs().max()))


def test_ssim_of_equal_images_is_one_and_has_no_gradient():
    image = _image(20, 20, 0).requires_grad_()
    value = losses.ssim(image, image.detach().clone())
    value.backward()
    assert image.grad is not None
    assert float(value.detach()) == pytest.approx(1.0, abs=1e-6)
    assert float(image.grad.abs().max()) < 1e-5


def test_images_smaller_than_the_window_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="at least 11x11"):
        losses.ssim(_image(10, 30, 0), _image(10, 30, 1))


def test_photometric_is_the_weighted_sum_of_its_terms():
    image, target = _image(24, 30, 0), _image(24, 30, 1)
    wanted = 0.7 * losses.l1(image, target) + 0.3 * (1 - losses.ssim(image, target))
    torch.testing.assert_close(losses.photometric(image, target, ssim_weight=0.3), wanted)


def test_all_ones_as_pixel_weight_changes_nothing():
    image, target = _image(24, 30, 0), _image(24, 30, 1)
    weighted = losses.photometric(image, target, ssim_weight=0.2, pixel_weight=torch.ones(24, 30))
    torch.testing.assert_close(weighted, losses.photometric(image, target, ssim_weight=0.2))


def test_masked_pixels_have_no_say():
    target = _image(32, 32, 1)
    pixel_weight = torch.ones(32, 32)
    pixel_weight[8:24, 8:24] = 0
    values, gradients = [], []
    for seed in (2, 3):
        image = _image(32, 32, 0)
        image[8:24, 8:24] = _image(16, 16, seed)
        image.requires_grad_()
        loss = losses.photometric(image, target, ssim_weight=0.2, pixel_weight=pixel_weight)
        loss.backward()
        assert image.grad is not None
        values.append(loss.detach())
        gradients.append(image.grad)
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(gradients[0][8:24, 8:24].abs().max()) == 0
    assert float(gradients[0][:8].abs().max()) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_and_cpu_agree():
    image, target = _image(40, 50, 0), _image(40, 50, 1)
    on_cpu = losses.photometric(image, target, ssim_weight=0.2)
    on_cuda = losses.photometric(image.cuda(), target.cuda(), ssim_weight=0.2)
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-4, atol=1e-5)


def test_rows_may_be_shared_out_in_any_way():
    height, width = 40, 30
    image, target = (_image(height, width, seed).view(height, -1).numpy() for seed in (0, 1))
    weight = (_image(height, width, 2)[..., 0] - 0.2).clamp(min=0).numpy()
    found = []
    for bounds in ([0, 40], [0, 1, 13, 39, 40], [0, 20, 20, 40]):
        totals, gradient = np.full((height, 2), np.nan), np.full((height, 3 * width), np.nan, np.float32)
        for start, stop in itertools.pairwise(bounds):
            compare_rows(
                start, stop, image, target, weight, np.float32(0.8), np.float32(-0.2), np.float32(0), totals, gradient
            )
        found.append((totals, gradient))
    assert np.isfinite(found[0][0]).all()
    for totals, gradient in found[1:]:
        np.testing.assert_array_equal(totals, found[0][0])
        np.testing.assert_array_equal(gradient, found[0][1])
