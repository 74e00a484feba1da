"""Are two tensors equal, measured by the largest value that is wanted?"""

from __future__ import annotations

from torch import Tensor


def assert_close_to_largest(found: Tensor | None, wanted: Tensor | None, tolerance: float, what: str = "") -> None:
    """The largest difference over the largest wanted value is within the tolerance; gradients must be there."""
    assert found is not None, f"{what}: nothing to compare"
    assert wanted is not None, f"{what}: nothing to compare with"
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    largest = float(wanted.detach().abs().max())
    worst = float((found.detach() - wanted.detach()).abs().max())
    assert worst <= tolerance * max(largest, 1e-12), (
        f"{what} differs by {worst:.2e} where the largest value is {largest:.2e}"
    )
