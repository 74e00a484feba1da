"""The identity start: an untrained small network returns its input, and its latent reaches the output."""

import copy
import dataclasses

import pytest
import torch

from difix_model import DifixNetwork, small_config, tiny_config
from difix_model.identity import CORRECTIONS, DETAIL, NO_DETAIL, scale_detail, start_at_identity


@pytest.fixture(scope="module")
def network() -> DifixNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DifixNetwork(small_config())
        start_at_identity(network)
    return network.eval().requires_grad_(False)


def views() -> torch.Tensor:
    return torch.rand(1, 2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embedding() -> torch.Tensor:
    return torch.randn(4, small_config().unet.cross_attention_dim, generator=torch.Generator().manual_seed(2))


def test_an_untrained_network_returns_its_input(network: DifixNetwork) -> None:
    x = views()
    error = (network(x, text_embedding=embedding(), clamp=False) - x).abs().max()
    assert error < 0.02


def test_the_latent_holds_the_coarse_image_and_no_correction(network: DifixNetwork) -> None:
    x = views()
    encoded = network.encode(x)
    coarse = torch.nn.functional.avg_pool2d(x[0], 8)
    torch.testing.assert_close(encoded.z[0, :, :3], coarse, rtol=0.05, atol=0.02)
    denoised = network.denoise(encoded, text_embedding=embedding())
    assert denoised.z[:, :, list(CORRECTIONS)].abs().max() == 0


def test_the_latent_tells_how_much_detail_there_is(network: DifixNetwork) -> None:
    rng = torch.Generator().manual_seed(3)
    flat = torch.full((1, 3, 96, 128), 0.3)
    flat[:, :, 64:] = 0.7
    textured = flat.clone()
    textured[..., 64:] += 0.1 * torch.randn(1, 3, 96, 64, generator=rng)
    textured[..., 96:] += 0.1 * torch.randn(1, 3, 96, 32, generator=rng)
    x = 2 * torch.stack([flat, textured], dim=1).clamp(0, 1) - 1
    detail = network.encode(x).z[0, :, DETAIL, 1:7, 1:-1]
    torch.testing.assert_close(detail[0], torch.full_like(detail[0], NO_DETAIL), atol=0.25, rtol=0)
    smooth, some, more = detail[1, :, :6].mean(), detail[1, :, 8:10].mean(), detail[1, :, 12:].mean()
    assert smooth < NO_DETAIL + 0.25
    assert some > smooth + 0.5
    assert more > some + 0.2


def test_detail_can_be_turned_down(network: DifixNetwork) -> None:
    x = views()
    before = network.encode(x).z
    quieter = copy.deepcopy(network)
    scale_detail(quieter, 0.4)
    after = quieter.encode(x).z
    torch.testing.assert_close(after[:, :, DETAIL] - NO_DETAIL, 0.4 * (before[:, :, DETAIL] - NO_DETAIL))
    assert torch.equal(after[:, :, :DETAIL], before[:, :, :DETAIL])


def test_a_correction_in_the_latent_shifts_the_colors(network: DifixNetwork) -> None:
    x = views()
    denoised = network.denoise(network.encode(x), text_embedding=embedding())
    z = denoised.z.clone()
    z[:, :, CORRECTIONS[0]] += 0.2
    shift = network.decode(dataclasses.replace(denoised, z=z), clamp=False) - network.decode(denoised, clamp=False)
    # Borders are lower, as the convolutions pad with zeros.
    assert 0.15 < shift[:, :, 0, 12:-12, 12:-12].mean() < 0.25
    assert shift[:, :, 1:].abs().mean() < 0.03


def test_an_unfit_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="groups of 8"):
        start_at_identity(DifixNetwork(tiny_config()))
