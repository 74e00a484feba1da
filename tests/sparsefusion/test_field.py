from __future__ import annotations

import pytest
import torch

from sparsefusion import Field, FieldConfig, render_image
from sparsefusion.field.grid import grid_levels
from sparsefusion.field.render import near_far, render_rays
from support.sparsefusion_cases import Recording, ReferenceData, ring, worst

SMALL = FieldConfig(num_levels=4, finest_per_bound=16, log2_table_size=10, num_steps=12, num_importance=8)


def _field(data: Recording) -> Field:
    opt = data.metadata["opt"]
    field = Field(
        FieldConfig(
            bound=opt["bound"],
            min_near=opt["min_near"],
            num_steps=opt["num_steps"],
            num_importance=opt["upsample_steps"],
        )
    )
    shape = data.metadata["manifest"]["encoder.embeddings"][0]
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(41))
    field.encoder.embeddings.data.copy_(0.5 * drawn)
    field.sigma_net.load_state_dict(data.under("w."))
    return field


@pytest.fixture(scope="module")
def recording(recordings: ReferenceData) -> Recording:
    return recordings.open("ngp")


@pytest.fixture(scope="module")
def published(recording: Recording) -> Field:
    return _field(recording)


@pytest.mark.reference
def test_names_shapes_and_offsets_are_the_published_ones(recording: Recording, published: Field):
    shapes = {name: list(value.shape) for name, value in published.state_dict().items()}
    assert shapes == {name: shape for name, (shape, _) in recording.metadata["manifest"].items()}
    assert torch.equal(published.encoder.offsets, recording["offsets"])


@pytest.mark.reference
def test_grid_features_and_gradients_agree_with_the_recording(recording: Recording, published: Field):
    published.zero_grad()
    features = published.encoder(recording["x"])
    assert (features - recording["enc"]).abs().max() < 5e-4
    features.backward(recording["grad_enc"])
    grad = published.encoder.embeddings.grad
    assert grad is not None
    assert worst(grad[recording["grad_emb_rows"]], recording["grad_emb_vals"]) < 5e-4
    assert worst(grad.sum(dim=0), recording["grad_emb_sum"]) < 5e-4


@pytest.mark.reference
def test_density_and_color_agree_with_the_recording(recording: Recording, published: Field):
    with torch.no_grad():
        densities, colors = published(recording["x"])
    assert worst(densities, recording["sigma"]) < 5e-4
    assert (colors - recording["albedo"]).abs().max() < 5e-4


@pytest.mark.reference
def test_renders_agree_with_the_recording(recording: Recording, published: Field):
    origins, directions = recording["rays_o"][0], recording["rays_d"][0]
    near, far = near_far(published, origins, directions)
    assert worst(near, recording["near"]) < 1e-5
    assert worst(far, recording["far"]) < 1e-5
    for case in sorted({name.rsplit(".", 1)[0] for name in recording.tensors if name.endswith(".weights_sum")}):
        uniform = None
        if case != "eval":
            torch.manual_seed(int(case.rsplit("seed", 1)[1]))
            torch.randn(3)  # The released renderer draws a direction of light first, and does not use it.
            uniform = torch.rand
        with torch.no_grad():
            out = render_rays(published, origins, directions, uniform=uniform)
        hit = recording[f"{case}.mask"][0].bool()
        assert torch.equal(out.hits, hit), case
        assert (out.rgb - recording[f"{case}.image"][0]).abs().max() < 5e-4, case
        assert (out.alpha - recording[f"{case}.weights_sum"]).abs().max() < 5e-4, case
        assert (out.depth - recording[f"{case}.depth"][0])[hit].abs().max() < 5e-4, case


def test_the_grid_interpolates_its_table():
    """Checked by hand against eight corners at the coarsest level."""
    field = Field(SMALL, generator=torch.Generator().manual_seed(0))
    level = grid_levels(SMALL)[0]
    position = torch.tensor([0.3, -1.1, 2.2])
    scaled = (position + SMALL.bound) / (2 * SMALL.bound) * level.scale + 0.5
    cell, inside = scaled.floor().long(), scaled - scaled.floor()
    expected = torch.zeros(2)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
        weight = torch.where(corner == 1, inside, 1 - inside).prod()
        row = int(((cell + corner) * torch.tensor(level.strides)).sum()) % level.num_rows
        expected += weight * field.encoder.embeddings[level.offset + row].detach()
    assert torch.allclose(field.encoder(position[None])[0, :2], expected, atol=1e-9)


def test_the_tables_gradient_is_that_of_autograd():
    field = Field(SMALL, generator=torch.Generator().manual_seed(0))
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 6 - 3
    table = field.encoder.embeddings
    direction = torch.randn(table.shape, generator=torch.Generator().manual_seed(2))
    weights = torch.randn(50, 8, generator=torch.Generator().manual_seed(3))
    (field.encoder(positions) * weights).sum().backward()
    with torch.no_grad():
        start = (field.encoder(positions) * weights).sum()
        table.add_(direction)
        change = (field.encoder(positions) * weights).sum() - start
    assert table.grad is not None
    assert ((table.grad * direction).sum() - change).abs() < 1e-3 * change.abs()


def test_nothing_is_seen_outside_of_the_cube():
    field = Field(SMALL)
    assert not field.encoder(torch.full((1, 3), 4.5)).any()
    with torch.no_grad():
        out = render_rays(field, torch.tensor([[0.0, 9.0, -9.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert not out.hits.any()
    assert out.rgb.abs().max() == out.alpha.abs().max() == out.depth.abs().max() == 0


def test_chunks_do_not_change_a_render():
    torch.manual_seed(0)
    field, camera = Field(SMALL), ring(1)
    chunked = Field(FieldConfig(**{**{n: getattr(SMALL, n) for n in SMALL.__slots__}, "max_points": 500}))
    chunked.load_state_dict(field.state_dict())
    with torch.no_grad():
        one, other = (render_image(each, camera, 16, image_size=16) for each in (field, chunked))
    assert worst(one.rgb, other.rgb) < 1e-5
    assert one.alpha.min() > 0.5  # A fresh field is a thin fog.
