"""A CUDA device without a GPU, so that code for CUDA runs, is checked and is counted in tests.

Tensors stay on the CPU with their real values and only answer that they are on `cuda:0`. What CUDA refuses is refused,
and every wait for the device and every copy between it and the host is counted by the line that asked for it:

    with FakeCuda() as gpu:
        trainer = SplatTrainer(scene, views, config, device="cuda")
        gpu.traffic.clear()
        trainer.train_until(40)
    assert not gpu.traffic.waits(ours=True), gpu.traffic.report()

gsplat's Python code runs as installed; its compiled functions are replaced by slow ones with the same results (up to
rounding), for images of a few thousand pixels. Not seen: memory, streams and races, CUDA graphs, kernels themselves,
and C++ code that asks for the device.
"""

from support.fake_cuda.mode import FakeCuda
from support.fake_cuda.rules import DeviceMismatchError

__all__ = ["DeviceMismatchError", "FakeCuda"]
