"""SSIM's kernels without a GPU: their results in Triton's interpreter, their machine code, and falling back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch

from splat_recon import losses

INTERPRETED = """
import torch
from splat_recon import losses, ssim_triton

ssim_triton.ROWS, ssim_triton.COLUMNS = 16, 64  # One program.
generator = torch.Generator().manual_seed(0)
a, b, weight = (torch.rand(12, 13, c, generator=generator) for c in (3, 3, 1))
b[3:6] = a[3:6]
found = []
for comparison in (losses._Comparison, ssim_triton.FusedComparison):
    image = a.clone().requires_grad_()
    value = losses._compared(comparison, image, b, None, (0.8, -0.2), hidden_at=0.0)
    (2.5 * value).backward()
    with torch.no_grad():
        score = losses._compared(comparison, a, b, weight[..., 0], (0.0, 1.0), hidden_at=-1.0)
    found.append((value.detach(), score, image.grad))
for number in range(2):
    torch.testing.assert_close(found[1][number], found[0][number], rtol=1e-5, atol=1e-7)
largest = float(found[0][2].abs().max())
assert largest > 0
torch.testing.assert_close(found[1][2], found[0][2], rtol=1e-4, atol=1e-5 * largest)
# Weighted, with pixels left out, and with its gradient; two programs in both directions.
ssim_triton.ROWS, ssim_triton.COLUMNS = 8, 32
assert losses.fused_comparison(torch.device("cpu")) is ssim_triton.FusedComparison
"""


def test_the_kernels_compute_what_the_cpu_does():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", ["_forward", "_backward"])
def test_the_kernels_become_machine_code_without_a_gpu(name: str):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from splat_recon import ssim_triton

    kernel = getattr(ssim_triton, name)
    constants = {"HAS_WEIGHT": True, "ROWS": ssim_triton.ROWS, "COLUMNS": ssim_triton.COLUMNS}
    if name == "_forward":
        constants["WITH_MAPS"] = True
    numbers = {"height": "i32", "width": "i32", "hidden_at": "fp32", "l1_factor": "fp32", "ssim_factor": "fp32"}
    types = {one: "constexpr" if one in constants else numbers.get(one, "*fp32") for one in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature=types, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=ssim_triton.OPTIONS)
    assert len(compiled.asm["cubin"]) > 10_000


def test_where_the_kernels_cannot_run_torch_does_the_work(caplog: pytest.LogCaptureFixture):
    pytest.importorskip("triton")
    losses.fused_comparison.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert losses.fused_comparison(torch.device("cpu")) is None
    assert "SSIM runs as many operations of torch's" in caplog.text
    losses.fused_comparison.cache_clear()


def test_kernels_that_find_something_else_are_not_used():
    class Wrong(losses._Comparison):
        @staticmethod
        def backward(ctx, *grad_outputs):
            return losses._Comparison.backward(ctx, *(1.01 * gradient for gradient in grad_outputs))

    losses._check_agreement(losses._Comparison, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="differ from torch's operations"):
        losses._check_agreement(Wrong, torch.device("cpu"))
