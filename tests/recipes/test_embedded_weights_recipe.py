"""The recipe of the embedded weights: what it claims of whole images holds, it learns, and it can be interrupted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model import DifixNetwork, DifixPipeline, PairRecord, small_config, write_pairs
from difix_model.identity import DETAIL, NO_DETAIL, start_at_identity
from embedded_weights import stages
from embedded_weights.batches import batch_at
from embedded_weights.coarse_pairs import (
    DETAIL_PLANE,
    RGB,
    CoarsePairs,
    cached_coarse_pairs,
    coarse_images,
    coarse_pairs,
)
from embedded_weights.config import RecipeConfig, StageConfig
from embedded_weights.corruptions import corrupt
from embedded_weights.prediction import predict, psnr_gain
from embedded_weights.task import CoarseTask
from support.fake_cuda import FakeCuda
from train_runs import InputError, Loop, OptimizerConfig, Processes

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
    return CoarsePairs(
        rendered=rendered, photo=photo, reference=photo.clone(), irreducible_mse=torch.full((num,), 1e-4)
    )


def test_a_coarse_correction_is_what_the_whole_network_does():
    network = _network(trained=True)
    x = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    with torch.no_grad():
        whole = network(2 * x - 1, text_embedding=EMBEDDING, decode="target", clamp=False)[:, 0] / 2 + 0.5
        coarse = coarse_images(x.flatten(0, 1), network).unflatten(0, (2, 2))
        expected = predict(network, coarse, text_embedding=EMBEDDING)
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
    assert between + float(one.irreducible_mse) == pytest.approx(np.mean((render - photo) ** 2), rel=1e-4)
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


def _trained(network: DifixNetwork, pairs: list[CoarsePairs], config: StageConfig, folder: Path | None = None) -> Loop:
    """Train to the end; the network has its moving average then."""
    task = CoarseTask(network.requires_grad_(True), pairs, config, text_embedding=EMBEDDING)
    loop = Loop(task, folder, config)
    loop.train_until(config.max_steps)
    if loop.ema is not None:
        loop.ema.swap(loop.parameters)
    network.requires_grad_(False)
    return loop


def test_training_learns_what_is_missing_and_an_untrained_network_changes_nothing():
    network = _network()
    unseen = _pairs(16, seed=2)
    assert psnr_gain(network, unseen, text_embedding=EMBEDDING).abs().max() < 1e-3
    autoencoder = {name: value.clone() for name, value in network.vae.state_dict().items()}
    config = StageConfig(
        max_steps=120,
        batch_size=16,
        crop_prob=0.0,
        color_jitter_prob=0.0,
        corruption_prob=0.0,
        final_corruption_prob=0.0,
        wrong_reference_prob=0.0,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=10, weight_decay=0.02),
        ema_decay=0.9,
    )
    loop = _trained(network, [_pairs(64, seed=1)], config)
    losses = [record.loss for record in loop.history]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    assert psnr_gain(network, unseen, text_embedding=EMBEDDING).mean() > 3
    for name, value in network.vae.state_dict().items():
        assert torch.equal(value, autoencoder[name]), name


def test_images_that_come_out_worse_count_more():
    def first_loss(regression_weight: float, *, trained: bool) -> float:
        config = StageConfig(
            max_steps=1,
            batch_size=4,
            log_every=1,
            regression_weight=regression_weight,
            clean_prob=1.0,
            corruption_prob=0.0,
            final_corruption_prob=0.0,
            precision="float32",
        )
        return _trained(_network(trained=trained), [_pairs(8, seed=1, size=8)], config).history[0].loss

    harmless = first_loss(0.0, trained=False)
    assert first_loss(1.0, trained=False) == pytest.approx(harmless)
    harm = first_loss(0.0, trained=True) - harmless
    assert harm > 0.01
    assert first_loss(1.0, trained=True) - harmless == pytest.approx(2 * harm, rel=1e-4)


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path):
    config = StageConfig(max_steps=6, batch_size=2, color_jitter_prob=1.0, checkpoint_every=2, ema_decay=0.9)
    pairs = [_pairs(8, 1), _pairs(8, 1, size=8)]
    weights = []
    for name, stops in (("alone", ()), ("interrupted", (3, 5))):
        for stop in stops:
            task = CoarseTask(_network().requires_grad_(True), pairs, config, text_embedding=EMBEDDING)
            Loop(task, tmp_path / name, config).train_until(stop)  # Its last steps are lost.
        network = _network()
        _trained(network, pairs, config, tmp_path / name)
        weights.append(network.unet.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not list(tmp_path.rglob("*.pt"))
    longer = StageConfig(max_steps=7, batch_size=2, color_jitter_prob=1.0, checkpoint_every=2, ema_decay=0.9)
    with pytest.raises(InputError, match="max_steps was 6, now 7"):
        _trained(_network(), pairs, longer, tmp_path / "alone")


def test_on_a_gpu_it_waits_once_a_step_and_goes_on_exactly(tmp_path: Path):
    config = StageConfig(max_steps=5, batch_size=2, color_jitter_prob=1.0, checkpoint_every=3, keep_checkpoints=2)
    pairs = [_pairs(8, 1), _pairs(8, 1, size=8)]

    def make(device: str, folder: Path | None) -> Loop:
        task = CoarseTask(_network().requires_grad_(True), pairs, config, text_embedding=EMBEDDING, device=device)
        return Loop(task, folder, config, processes=Processes(device))

    expected = make("cpu", None)
    expected.train_until(5)
    with FakeCuda() as gpu:
        loop = make("cuda", tmp_path)
        loop.train_until(1)
        gpu.traffic.clear()
        loop.train_until(2)
        assert gpu.traffic.waits() == 1, gpu.traffic.report()
        loop.train_until(4)
        again = make("cuda", tmp_path)
        assert again.step == 3
        for one in (loop, again):
            one.train_until(5)
        for name, parameter in loop.parameters.items():
            assert torch.equal(parameter, again.parameters[name]), name
            torch.testing.assert_close(parameter.cpu(), expected.parameters[name], rtol=1e-3, atol=1e-4)


def test_corruptions_change_windows_of_the_render_and_nothing_else():
    rng = np.random.default_rng(3)
    for _ in range(20):
        image, other = torch.rand(2, 4, 18, 24).unbind()
        before, other_before = image.clone(), other.clone()
        corrupt(image, other, rng, fog_prob=0.0)
        changed = (image != before).any(dim=0)
        assert torch.equal(other, other_before)
        assert changed.float().mean() < 0.75
        assert image[RGB].min() >= 0
        assert image.min() >= NO_DETAIL
        assert image.max() <= 1


def test_fog_lies_over_all_and_takes_contrast_away():
    rng = np.random.default_rng(5)
    for _ in range(20):
        image = torch.rand(4, 18, 24)
        before = image.clone()
        corrupt(image, before, rng, fog_prob=1.0)
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
        irreducible_mse=pairs.irreducible_mse.clone(),
    )
    config = StageConfig(
        max_steps=40, batch_size=4, crop_prob=0.5, clean_prob=0.0, color_jitter_prob=0.0, curriculum=0.5
    )
    shapes, corrupted, without = set(), [], 0
    for step in range(40):
        batch = batch_at([pairs], config, step)
        shapes.add(tuple(batch.photo.shape[-2:]))
        wrong = (batch.rendered - batch.photo)[:, RGB].abs().amax(dim=(1, 2, 3))
        ratio = (batch.rendered / batch.photo)[:, RGB]
        whole = torch.isclose(ratio, torch.tensor(0.6), atol=1e-4) | torch.isclose(ratio, torch.tensor(1.0), atol=1e-4)
        corrupted.append(float((~whole).flatten(1).any(dim=1).float().mean()))
        without += batch.references is None
        assert wrong.min() > 0
    assert shapes == {(8, 8), (6, 6)}
    assert np.mean(corrupted[:8]) > 0.4
    assert np.mean(corrupted[-20:]) < 0.3
    assert 0 < without < 20
    for name in ("rendered", "photo", "reference", "irreducible_mse"):
        assert torch.equal(getattr(pairs, name), getattr(kept, name)), name


@pytest.mark.parametrize(
    "change",
    [{"corruption_prob": 1.5}, {"curriculum": 0.0}, {"batch_size": 0}, {"color_jitter_prob": -0.1}, {"ema_decay": 1.0}],
)
def test_configs_that_make_no_sense_are_refused(change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        StageConfig(**change)


def test_coarse_pairs_are_cached_without_pickle(tmp_path: Path):
    records = [_written(tmp_path, "a", (32, 24), (32, 24), 0), _written(tmp_path, "b", (48, 16), (48, 16), 1)]
    write_pairs(tmp_path / "pairs.json", records)
    first = cached_coarse_pairs(tmp_path, [tmp_path], _network())
    (path,) = tmp_path.glob("coarse_*.safetensors")
    written = path.stat().st_mtime_ns
    again = cached_coarse_pairs(tmp_path, [tmp_path], _network())
    assert path.stat().st_mtime_ns == written
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.rendered, other.rendered)
        assert torch.equal(one.irreducible_mse, other.irreducible_mse)


def test_all_stages_run_once_and_end_in_a_model_that_opens(tmp_path: Path):
    """Also after an interruption between them, which costs nothing that was done."""
    few = StageConfig(max_steps=2, batch_size=2, ema_decay=0.9, regression_weight=0.0)
    recipe = RecipeConfig(
        channels=(16, 32), reference_pretraining=few, main=few, identity_fine_tuning=few, max_attempts=2
    )
    pairs = [_pairs(8, seed=1, size=8)]
    data = stages.Data(small=pairs, all=pairs, held_out=pairs)
    with pytest.raises(RuntimeError, match="after 2 attempts"):
        stages.train_all(tmp_path / "none", data, recipe, device="cpu", report=lambda row: None)
    assert (tmp_path / "none" / "stage1_seed1").is_dir()

    rows: list[dict] = []
    recipe = dataclasses.replace(recipe, min_reference_gain_db=-1.0)
    for _ in range(2):
        network, embedding = stages.train_all(tmp_path, data, recipe, device="cpu", report=rows.append)
        stages.save_model(tmp_path / "model", network, embedding)
    assert [row["stage"] for row in rows if "right" in row] == ["stage1_seed0", "stage2", "stage3"]
    gains = json.loads((tmp_path / "stage3" / "metrics.json").read_text())
    assert set(gains) == {"right", "wrong", "none", "harmed"}
    image = np.random.default_rng(0).random((32, 40, 3), dtype=np.float32)
    assert np.asarray(DifixPipeline.from_pretrained(tmp_path / "model")(image, image)).shape == (32, 40, 3)
