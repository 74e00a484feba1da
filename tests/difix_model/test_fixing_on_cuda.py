"""The pipeline on a fake CUDA device: the results of the CPU, whatever is given and wherever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix_model import Checkpoint, DifixNetwork, DifixPipeline, TilingConfig, tiny_config
from difix_model.config import PROMPT
from difix_model.denoise import alpha_cumprod, alphas_cumprod
from difix_model.diffusers import DifixPipeline as DiffusersPipeline
from support.fake_cuda import FakeCuda


def make_pipeline(device: str, **settings: Any) -> DifixPipeline:
    torch.manual_seed(0)
    network = DifixNetwork(tiny_config())
    embedding = torch.randn(5, network.config.unet.cross_attention_dim)
    checkpoint = Checkpoint(network=network, text_embedding=embedding, prompt=PROMPT)
    return DifixPipeline(checkpoint, device=device, **settings)


RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(2)]
OTHER_SIZE = RNG.integers(0, 256, (30, 56, 3), dtype=np.uint8)
REFERENCES: dict[str, Any] = {
    "none": None,
    "one": [IMAGES[1], IMAGES[0]],
    "several": [[IMAGES[1], OTHER_SIZE, IMAGES[0]], [OTHER_SIZE]],
}


@pytest.mark.parametrize("references", REFERENCES)
@pytest.mark.parametrize("gate", ["auto", "off"])
def test_bytes_become_what_they_become_on_a_cpu(references: str, gate: Any):
    expected = make_pipeline("cpu")(IMAGES, REFERENCES[references], gate=gate)
    with FakeCuda() as gpu:
        pipe = make_pipeline("cuda")
        gpu.traffic.clear()
        fixed = pipe(IMAGES, REFERENCES[references], gate=gate)
    for one, other in zip(fixed, expected, strict=True):
        assert int(np.abs(one.astype(int) - other.astype(int)).max()) <= 1
    uploads = [event for event in gpu.traffic.counts if event.kind == "upload"]
    assert not [event for event in uploads if gpu.traffic.bytes[event] >= IMAGES[0].nbytes], gpu.traffic.report()


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_fixed_where_they_are(where: str, dtype: torch.dtype):
    rendered = torch.from_numpy(np.stack(IMAGES)).float() / 255
    references, alpha = rendered.flip(0), torch.full((2, 40, 48), 0.7)
    expected = make_pipeline("cpu", dtype=dtype).fix(rendered, references, alpha=alpha)
    with FakeCuda():
        pipe = make_pipeline("cuda", dtype=dtype, tiling=TilingConfig())
        given = [tensor.to(where) for tensor in (rendered, references, alpha)]
        fixed = pipe.fix(given[0], given[1], alpha=given[2])
        assert fixed.device.type == where
        moved = pipe.to("cpu").fix(rendered, references, alpha=alpha)
        torch.testing.assert_close(fixed.cpu(), expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)
        torch.testing.assert_close(moved, expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_diffusers_script_runs_and_saves(seed: int | None, tmp_path: Path):
    arguments: dict[str, Any] = {"image": IMAGES[0], "ref_image": IMAGES[1], "output_type": "np"}

    def fixed(pipe: DifixPipeline, device: str) -> np.ndarray:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        call = DiffusersPipeline(pipe).to(device)
        return call(PROMPT, num_inference_steps=1, timesteps=[199], generator=generator, **arguments).images

    expected = fixed(make_pipeline("cpu"), "cpu")
    with FakeCuda():
        pipe = make_pipeline("cpu")
        np.testing.assert_allclose(fixed(pipe, "cuda"), expected, atol=1e-4)
        assert pipe.device.type == "cuda"
        pipe.save_pretrained(tmp_path)
    saved = DifixPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    np.testing.assert_allclose(fixed(saved, "cpu"), expected, atol=1e-3)


def test_references_on_the_device_are_known_again_without_a_look():
    rendered = torch.from_numpy(np.stack(IMAGES)).float() / 255
    with FakeCuda() as gpu:
        pipe = make_pipeline("cuda")
        views, references = rendered.to("cuda"), rendered.flip(0).to("cuda")
        first = pipe.fix(views, references, gate="off")
        num_kept = len(pipe.runner.cache)
        gpu.traffic.clear()
        assert torch.equal(pipe.fix(views, references, gate="off"), first)
        assert gpu.traffic.number("download", "upload") == 0, gpu.traffic.report()
        assert len(pipe.runner.cache) == num_kept == 2
        references[0] = 0.5
        assert not torch.equal(pipe.fix(views, references, gate="off")[0], first[0])
        assert len(pipe.runner.cache) == num_kept + 2


def test_the_network_asks_nothing_of_the_host():
    network = make_pipeline("cpu").network
    x, embedding = torch.rand(1, 1, 3, 32, 32), torch.randn(5, network.config.unet.cross_attention_dim)
    with FakeCuda() as gpu, torch.no_grad():
        network.to("cuda")
        on_device = [x.to("cuda"), embedding.to("cuda")]
        gpu.traffic.clear()
        network(on_device[0], text_embedding=on_device[1])
        assert gpu.traffic.report() == "no traffic"


GRAPH = """
import torch
from difix_model.config import tiny_config
from difix_model.network import DifixNetwork
network = DifixNetwork(tiny_config())
embedding = torch.randn(5, network.config.unet.cross_attention_dim)
with torch.no_grad():
    explained = torch._dynamo.explain(network)(torch.rand(1, 1, 3, 32, 32), text_embedding=embedding)
assert explained.graph_count == 1, explained.break_reasons
"""


def test_the_network_is_one_graph():
    """In a process of its own: the shape checks of the test run are no part of what is compiled."""
    done = subprocess.run([sys.executable, "-c", GRAPH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_schedule_holds_the_numbers_of_its_tensor():
    for timestep in (0, 199, 999):
        assert alpha_cumprod(timestep) == float(alphas_cumprod()[timestep])
