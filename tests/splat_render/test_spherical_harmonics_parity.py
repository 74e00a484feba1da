"""Spherical harmonics: ours in PyTorch and in the kernels, against gsplat's reference and their own axioms."""

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _spherical_harmonics

from splat_render.cpu.harmonics import direction_gradient, fill_bases
from splat_render.spherical_harmonics import evaluate_sh, rgb_to_sh0, sh0_to_rgb, sh_bases


def random_dirs(n: int, seed: int = 0) -> torch.Tensor:
    dirs = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(dirs, dim=-1)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_values_and_gradients_agree_with_gsplat(degree: int):
    dirs = 3 * random_dirs(100)
    coefficients = torch.randn(100, 16, 3, generator=torch.Generator().manual_seed(1))
    found, wanted = [], []
    for function, results in ((evaluate_sh, found), (_spherical_harmonics, wanted)):
        own_dirs, own_coefficients = dirs.clone().requires_grad_(), coefficients.clone().requires_grad_()
        colors = function(degree, own_dirs, own_coefficients)
        (colors**2).sum().backward()
        results += [colors.detach(), own_coefficients.grad]
        if degree > 0:
            results.append(own_dirs.grad)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_kernels_hold_the_same_bases_and_their_gradient(degree: int):
    num = (degree + 1) ** 2 - 1
    rng = np.random.default_rng(2)
    for direction in random_dirs(10, seed=3).numpy():
        x, y, z = direction
        bases = np.zeros(15, np.float32)
        fill_bases(degree, x, y, z, bases)
        leaf = torch.tensor(direction, dtype=torch.float64, requires_grad=True)
        values = sh_bases(degree, leaf)[1:]
        np.testing.assert_allclose(bases[:num], values.detach().numpy(), atol=1e-6)
        assert not bases[num:].any()

        weights = np.where(np.arange(15) < num, rng.standard_normal(15), 0).astype(np.float32)
        gradient = direction_gradient(x, y, z, weights)
        (values * torch.from_numpy(weights[:num]).double()).sum().backward()
        assert leaf.grad is not None
        # The kernel may differ along the direction, which normalizing it takes away.
        tangent = np.eye(3) - np.outer(direction, direction)
        np.testing.assert_allclose(tangent @ np.array(gradient), tangent @ leaf.grad.numpy(), atol=2e-5)


def test_bases_are_orthonormal_on_the_sphere():
    nodes, weights = np.polynomial.legendre.leggauss(8)
    azimuth = 2 * np.pi * np.arange(16) / 16
    z = np.repeat(nodes, 16)
    ring = np.sqrt(1 - z * z)
    dirs = np.stack([ring * np.tile(np.cos(azimuth), 8), ring * np.tile(np.sin(azimuth), 8), z], 1)
    area = np.repeat(weights, 16) * 2 * np.pi / 16
    bases = sh_bases(3, torch.from_numpy(dirs)).numpy()
    np.testing.assert_allclose(bases.T @ (area[:, None] * bases), np.eye(16), atol=1e-12)


def test_color_of_degree_zero_round_trips():
    rgb = torch.tensor([[0.1, 0.5, 1.0]])
    torch.testing.assert_close(sh0_to_rgb(rgb_to_sh0(rgb)), rgb)
    from_every_side = evaluate_sh(0, random_dirs(1), rgb_to_sh0(rgb)[:, None])
    torch.testing.assert_close(from_every_side + 0.5, rgb)


def test_degree_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"degree must be in \[0, 3\], got 4"):
        sh_bases(4, random_dirs(1))
