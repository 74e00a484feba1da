"""Every precision, memory layout and device against float32 on the CPU; what is absent is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difix_model import DifixPipeline, InputError
from difix_model.device import chosen_device, prefers_channels_last

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs Apple's Metal")

CASES = [
    pytest.param("cpu", torch.bfloat16, id="cpu-bfloat16"),
    *[
        pytest.param("cuda", dtype, id=f"cuda-{str(dtype)[6:]}", marks=[pytest.mark.gpu, needs_cuda])
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ],
    *[
        pytest.param("mps", dtype, id=f"mps-{str(dtype)[6:]}", marks=needs_mps)
        for dtype in (torch.float32, torch.float16)
    ],
]

MEAN_DIFFERENCE = {torch.float32: 5e-4, torch.float16: 1e-3, torch.bfloat16: 4e-3}
"""How far from float32 on the CPU a pixel may be in the mean, of a range of 1; bfloat16 on a CPU measured at 0.0021.
float32 on CUDA may use TF32 in convolutions."""


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rendered = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 16, generator=generator), scale_factor=8.0)
    rendered = (rendered + 0.05 * torch.randn(rendered.shape, generator=generator)).clamp(0, 1).movedim(1, -1)
    return rendered, rendered.flip(2)


def pipeline(**settings: Any) -> DifixPipeline:
    """The embedded network, changing forty times as much as it does, so that errors of rounding are small to it."""
    pipe = DifixPipeline.from_pretrained("default", **settings)
    pipe.gate = "off"
    for parameter in pipe.network.unet.get_submodule("conv_out").parameters():
        parameter.data.mul_(40)
    return pipe


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return pipeline(channels_last=False).fix(*batch())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("device", "dtype"), CASES)
def test_other_precisions_agree_with_float32(expected: Tensor, device: str, dtype: torch.dtype, channels_last: bool):
    fixed = pipeline(device=device, dtype=dtype, channels_last=channels_last).fix(*batch())
    difference = (fixed - expected).abs()
    assert fixed.dtype == torch.float32
    assert float(difference.mean()) < MEAN_DIFFERENCE[dtype]
    assert float(difference.mean()) > 0 or dtype == torch.float32
    assert float((expected - batch()[0]).abs().mean()) > 2 * MEAN_DIFFERENCE[dtype], "the fix is larger than that"


def test_channels_last_changes_nothing_but_the_layout(expected: Tensor) -> None:
    pipe = pipeline(channels_last=True)
    weight = pipe.network.vae.decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pipe.fix(*batch()), expected, atol=1e-5, rtol=0)
    assert prefers_channels_last("cpu")
    assert pipeline().network.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_moving_a_pipeline_keeps_it_working(expected: Tensor) -> None:
    pipe = pipeline()
    first = pipe.to(torch.bfloat16).fix(*batch())
    back = pipe.to(torch.float32).fix(*batch())
    assert float((first - expected).abs().mean()) < MEAN_DIFFERENCE[torch.bfloat16]
    assert float((back - expected).abs().mean()) < MEAN_DIFFERENCE[torch.bfloat16], "weights were rounded on the way"


def test_float16_that_overflows_is_an_error_not_a_black_image() -> None:
    pipe = pipeline()
    fix_targets = pipe.runner._fix_targets
    pipe.runner._fix_targets = lambda x, reference_z, **options: (  # type: ignore[method-assign]
        fix_targets(x, reference_z, **options).half() * torch.inf
    )
    with pytest.raises(InputError, match="float16"):
        pipe.fix(*batch())


def test_which_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert chosen_device("auto") == "mps"
    with pytest.raises(InputError, match="cuda"):
        chosen_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen_device("auto") == "cpu"
    with pytest.raises(InputError, match="mps"):
        chosen_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device("auto") == "cuda"


COMPILED = """
import copy, sys
sys.path.insert(0, sys.argv[1])
import torch
from conftest import random_network
from difix_model.config import tiny_config
from difix_model.formats.checkpoint import Checkpoint
from difix_model.pipeline import DifixPipeline
from difix_model.inference.tiling import TilingConfig
torch.set_num_threads(1)
checkpoint = Checkpoint(network=random_network(tiny_config()), text_embedding=torch.zeros(7, 16), prompt="p")
image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
plain, compiled = DifixPipeline(copy.deepcopy(checkpoint)), DifixPipeline(checkpoint, compile=True)
expected = plain.fix(image, image.flip(2))
assert (expected - image).abs().max() > 0.1
torch.testing.assert_close(compiled.fix(image, image.flip(2)), expected, atol=1e-4, rtol=0)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "encoder and fixer are compiled"
large = torch.rand(1, 136, 200, 3, generator=torch.Generator().manual_seed(1))
for pipe in (plain, compiled):
    pipe.runner.tiling = TilingConfig(tile_size=128, overlap=32)
torch.testing.assert_close(compiled.fix(large), plain.fix(large), atol=1e-4, rtol=0)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_pipelines_agree_with_plain_ones(tmp_path: Path) -> None:
    """In a process of its own: the shape checks of the test run are no part of what is compiled.

    With a cache of its own, too: a process that is killed while it compiles leaves libraries that cannot be loaded.
    """
    command = [sys.executable, "-c", COMPILED, str(Path(__file__).parent)]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
