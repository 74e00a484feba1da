"""The tests check the libraries' annotated shapes."""

import jaxtyping
import pytest
import torch

from splat_recon.losses import l1
from support.shape_checks import THEN_EVERY


def test_a_wrong_shape_is_found_sooner_or_later():
    two_channels = torch.rand(4, 5, 2)

    def often() -> None:
        for _ in range(THEN_EVERY):
            l1(two_channels, two_channels, None)

    with pytest.raises(jaxtyping.TypeCheckError):
        often()
