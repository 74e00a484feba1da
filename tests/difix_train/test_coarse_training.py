"""Training the UNet on coarse images: what it claims of whole images holds, and it learns what can be learned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model.identity import DETAIL, NO_DETAIL, small_config, start_at_identity
from difix_model.network import DifixNetwork
from difix_model.pairs import PairRecord
from difix_train.coarse.batches import coarse_batches
from difix_train.coarse.config import CoarseConfig
from difix_train.coarse.damage import damage
from difix_train.coarse.pairs import DETAIL_PLANE, RGB, CoarsePairs, coarse_images, coarse_pairs
from difix_train.coarse.training import coarse_gain, corrected, train_coarse

EMBEDDING = torch.randn(4, small_config().unet.cross_attention_dim, generator=torch.Generator().manual_seed(2))


def _network(*, trained: bool = False) -> DifixNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DifixNetwork(small_config((16, 32)))
        start_at_identity(network)
        if trained:
            torch.nn.init.normal_(network.unet.get_submodule("conv_out").get_parameter("weight"), std=0.02)
    return network.requires_grad_(False)


def _pairs(num: int, seed: int, *, size: int = 6) -> CoarsePairs:
    """Renders are photos with their left half too dark by as much as the reference's own left half says."""
    rng = np.random.default_rng(seed)
    photo = torch.from_numpy(rng.uniform(0.4, 0.9, size=(num, 4, 1, 1))).float().expand(num, 4, size, size).clone()
    rendered = photo.clone()
    rendered[:, RGB, :, : size // 2] *= 0.6
    return CoarsePairs(rendered=rendered, photo=photo, reference=photo.clone(), fine_mse=torch.full((num,), 1e-4))


def test_a_coarse_correction_is_what_the_whole_network_does():
    network = _network(trained=True)
    x = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    with torch.no_grad():
        whole = network(2 * x - 1, text_embedding=EMBEDDING, decode="target", clamp=False)[:, 0] / 2 + 0.5
        coarse = coarse_images(x.flatten(0, 1), network).unflatten(0, (2, 2))
        expected = corrected(network, coarse, text_embedding=EMBEDDING)
    change = torch.nn.functional.avg_pool2d(whole - x[:, 0], 8)
    wanted = expected - coarse[:, 0, RGB]
    assert wanted.abs().mean() > 0.005
    similarity = torch.nn.functional.cosine_similarity(
        change[..., 1:-1, 1:-1].flatten(), wanted[..., 1:-1, 1:-1].flatten(), dim=0
    )
    assert similarity > 0.9


def _written(folder: Path, id: str, size: tuple[int, int], reference: tuple[int, int] | None, seed: int) -> PairRecord:
    rng = np.random.default_rng(seed)
    paths = {}
    for name, (width, height) in {"render": size, "photo": size, "reference": reference or size}.items():
        paths[name] = folder / f"{id}_{name}.png"
        Image.fromarray(rng.integers(0, 256, size=(height, width, 3)).astype(np.uint8)).save(paths[name])
    return PairRecord(
        id=id,
        split="train",
        image=paths["render"],
        target_image=paths["photo"],
        ref_image=None if reference is None else paths["reference"],
        prompt="",
    )


def test_errors_within_and_between_cells_are_the_whole_error(tmp_path: Path):
    record = _written(tmp_path, "one", (32, 24), (32, 24), 0)
    (one,) = coarse_pairs([record], _network())
    render, photo = (np.asarray(Image.open(path)) / 255.0 for path in (record.image, record.target_image))
    between = float((one.rendered - one.photo)[:, RGB].square().mean())
    assert between + float(one.fine_mse) == pytest.approx(np.mean((render - photo) ** 2), rel=1e-4)
    assert one.rendered.shape == (1, 4, 3, 4)


def test_pairs_are_kept_by_size_and_the_detail_is_the_latents_own(tmp_path: Path):
    records = [
        _written(tmp_path, "a", (32, 24), (32, 24), 0),
        _written(tmp_path, "b", (45, 16), (45, 16), 1),
        _written(tmp_path, "c", (32, 24), (32, 24), 2),
    ]
    network = _network()
    large, wide = coarse_pairs(records, network)
    assert large.photo.shape == (2, 4, 3, 4)
    assert wide.photo.shape == (1, 4, 2, 5)
    rgb = torch.from_numpy(np.array(Image.open(records[2].ref_image or ""))).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        z = network.encode_latents(2 * rgb[None] - 1)
    torch.testing.assert_close(large.reference[1, DETAIL_PLANE], z[0, DETAIL])
    torch.testing.assert_close(2 * large.reference[1, RGB] - 1, z[0, :3], rtol=0.05, atol=0.1)


def test_pairs_without_reference_or_of_unequal_images_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="has no reference"):
        coarse_pairs([_written(tmp_path, "one", (16, 16), None, 0)], _network())
    with pytest.raises(ValueError, match="differ in size"):
        coarse_pairs([_written(tmp_path, "two", (16, 16), (24, 16), 0)], _network())
    with pytest.raises(ValueError, match="no pair"):
        coarse_pairs([], _network())


def test_training_learns_what_is_missing_and_an_untrained_network_changes_nothing():
    network = _network()
    unseen = _pairs(16, seed=2)
    assert coarse_gain(network, unseen, text_embedding=EMBEDDING).abs().max() < 1e-3
    network.unet.requires_grad_(True)
    autoencoder = {name: value.clone() for name, value in network.vae.state_dict().items()}
    losses = []
    config = CoarseConfig(
        max_steps=120,
        batch_size=16,
        crop_prob=0.0,
        warmup_steps=10,
        tone_prob=0.0,
        damage_prob=0.0,
        last_damage_prob=0.0,
        wrong_reference_prob=0.0,
        learning_rate=3e-3,
        ema_decay=0.9,
    )
    train_coarse(
        network,
        [_pairs(64, seed=1)],
        config,
        text_embedding=EMBEDDING,
        on_step=lambda step, loss: losses.append(loss),
    )
    assert len(losses) == 120
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.5
    assert coarse_gain(network, unseen, text_embedding=EMBEDDING).mean() > 3
    for name, value in network.vae.state_dict().items():
        assert torch.equal(value, autoencoder[name]), name


def test_harm_counts_more():
    def first_loss(harm_weight: float, *, trained: bool) -> float:
        found: list[float] = []
        config = CoarseConfig(
            max_steps=1,
            batch_size=4,
            harm_weight=harm_weight,
            clean_prob=1.0,
            damage_prob=0.0,
            last_damage_prob=0.0,
            precision="float32",
        )
        network = _network(trained=trained).requires_grad_(True)
        pairs = [_pairs(8, seed=1, size=8)]
        train_coarse(network, pairs, config, text_embedding=EMBEDDING, on_step=lambda step, loss: found.append(loss))
        return found[0]

    harmless = first_loss(0.0, trained=False)
    assert first_loss(1.0, trained=False) == pytest.approx(harmless)
    harm = first_loss(0.0, trained=True) - harmless
    assert harm > 0.01
    assert first_loss(1.0, trained=True) - harmless == pytest.approx(2 * harm, rel=1e-4)


def test_the_same_seed_trains_the_same_weights():
    results = []
    for _ in range(2):
        network = _network()
        network.unet.requires_grad_(True)
        config = CoarseConfig(max_steps=4, batch_size=2, tone_prob=1.0)
        train_coarse(network, [_pairs(8, 1), _pairs(8, 1, size=8)], config, text_embedding=EMBEDDING)
        results.append(network.unet.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_damage_changes_windows_of_the_render_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix_train.coarse.damage.VEIL_PROB", 0.0)
    rng = np.random.default_rng(3)
    for _ in range(20):
        image, other = torch.rand(2, 4, 18, 24).unbind()
        before, other_before = image.clone(), other.clone()
        damage(image, other, rng)
        changed = (image != before).any(dim=0)
        assert torch.equal(other, other_before)
        assert changed.float().mean() < 0.75
        assert image[RGB].min() >= 0
        assert image.min() >= NO_DETAIL
        assert image.max() <= 1


def test_a_veil_lies_over_all_and_takes_contrast_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix_train.coarse.damage.VEIL_PROB", 1.0)
    rng = np.random.default_rng(5)
    for _ in range(20):
        image = torch.rand(4, 18, 24)
        before = image.clone()
        damage(image, before, rng)
        assert (image != before).float().mean() > 0.5
        assert image[RGB].var(dim=(1, 2)).mean() < before[RGB].var(dim=(1, 2)).mean()
        assert (image[DETAIL_PLANE] <= before[DETAIL_PLANE] + 1e-6).all()
        assert image[RGB].min() >= 0
        assert image[RGB].max() <= 1


def test_batches_keep_their_promises():
    pairs = _pairs(12, seed=4, size=8)
    kept = CoarsePairs(
        rendered=pairs.rendered.clone(),
        photo=pairs.photo.clone(),
        reference=pairs.reference.clone(),
        fine_mse=pairs.fine_mse.clone(),
    )
    config = CoarseConfig(max_steps=40, batch_size=4, crop_prob=0.5, clean_prob=0.0, tone_prob=0.0, curriculum=0.5)
    shapes, damaged, without = set(), [], 0
    for batch in coarse_batches([pairs], config):
        shapes.add(tuple(batch.photo.shape[-2:]))
        wrong = (batch.rendered - batch.photo)[:, RGB].abs().amax(dim=(1, 2, 3))
        ratio = (batch.rendered / batch.photo)[:, RGB]
        whole = torch.isclose(ratio, torch.tensor(0.6), atol=1e-4) | torch.isclose(ratio, torch.tensor(1.0), atol=1e-4)
        damaged.append(float((~whole).flatten(1).any(dim=1).float().mean()))
        without += batch.references is None
        assert wrong.min() > 0
    assert shapes == {(8, 8), (6, 6)}
    assert np.mean(damaged[:8]) > 0.4
    assert np.mean(damaged[-20:]) < 0.3
    assert 0 < without < 20
    for name in ("rendered", "photo", "reference", "fine_mse"):
        assert torch.equal(getattr(pairs, name), getattr(kept, name)), name


@pytest.mark.parametrize(
    "change", [{"damage_prob": 1.5}, {"curriculum": 0.0}, {"batch_size": 0}, {"tone_prob": -0.1}, {"harm_weight": -1.0}]
)
def test_configs_that_make_no_sense_are_refused(change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        CoarseConfig(**change)


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix_train.coarse.training.SAVE_EVERY", 2)
    config = CoarseConfig(max_steps=6, batch_size=2, precision="float32")
    pairs = [_pairs(8, seed=1, size=8)]
    state = tmp_path / "state.pt"

    def stop_at(last: int):
        def on_step(step: int, loss: float) -> None:
            del loss
            if step == last:
                raise KeyboardInterrupt

        return on_step

    weights = []
    for stops in ((), (3, 5)):
        for last in stops:
            network = _network().requires_grad_(True)
            with pytest.raises(KeyboardInterrupt):
                train_coarse(network, pairs, config, text_embedding=EMBEDDING, state=state, on_step=stop_at(last))
            assert state.is_file()
        network = _network().requires_grad_(True)
        train_coarse(network, pairs, config, text_embedding=EMBEDDING, state=state)
        weights.append(network.unet.state_dict())
        assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_state_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix_train.coarse.training.SAVE_EVERY", 1)
    state = tmp_path / "state.pt"
    pairs = [_pairs(8, seed=1, size=8)]

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    config = CoarseConfig(max_steps=2, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        train_coarse(
            _network().requires_grad_(True), pairs, config, text_embedding=EMBEDDING, state=state, on_step=stop
        )
    other = CoarseConfig(max_steps=3, batch_size=2)
    with pytest.raises(ValueError, match="other settings"):
        train_coarse(_network().requires_grad_(True), pairs, other, text_embedding=EMBEDDING, state=state)
