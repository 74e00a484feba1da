"""Losses agree with the released code's on the reference data; missing backbones are told in a sentence."""

import dataclasses
import importlib.util
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from difix_train import InputError, LossConfig, Objective
from difix_train.losses.gram import gram_loss, gram_matrices, random_window
from difix_train.losses.lpips import Lpips
from difix_train.losses.vgg import LAYER_INDICES, VggFeatures
from support.closeness import assert_close_to_largest

NARROW = (4, 4, None, 8, 8, None, 16, 16, 16, None, 16, 16, 16, None, 16, 16, 16)


class MeanAbsoluteDifference(nn.Module):
    """Stands for LPIPS in the reference data."""

    def forward(self, x_pred: Tensor, x_clean: Tensor) -> Tensor:
        return (x_pred - x_clean).abs().mean(dim=(1, 2, 3))


def narrow_vgg(reference_data: Path) -> VggFeatures:
    tensors = load_file(reference_data / "loss" / "trainer_loss_block.safetensors")
    weights = {k.replace("mini_vgg.", "features."): v for k, v in tensors.items() if k.startswith("mini_vgg.")}
    plan: list[int | None] = []
    expected_index = 0
    for index in sorted(int(key.split(".")[1]) for key in weights if key.endswith("weight")):
        if index > expected_index:
            plan.append(None)
            expected_index += 1
        plan.append(weights[f"features.{index}.weight"].shape[0])
        expected_index += 2
    vgg = VggFeatures(tuple(plan))
    vgg.load_state_dict(weights)
    return vgg


def images(seed: int, shape: tuple[int, ...] = (2, 3, 48, 40)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.reference
def test_gram_loss_and_its_gradient(reference_data: Path) -> None:
    expected = load_file(reference_data / "loss" / "gram.safetensors")
    vgg = narrow_vgg(reference_data)
    for case in sorted({key.split(".")[0] for key in expected}):
        x_pred = expected[f"{case}.style"].requires_grad_()
        x_clean = expected[f"{case}.target"]
        # The images of this file are normalized already.
        loss = gram_loss(vgg(x_pred), vgg(x_clean), across_batch=True)
        loss.backward()
        torch.testing.assert_close(loss.detach(), expected[f"{case}.loss"], rtol=1e-4, atol=1e-6)
        assert_close_to_largest(x_pred.grad, expected[f"{case}.grad_style"], 1e-4, case)
        features = vgg(x_clean)
        for layer in LAYER_INDICES:
            gram = gram_matrices(features[layer], across_batch=True)[0]
            torch.testing.assert_close(gram, expected[f"{case}.gram_target.{layer}"], rtol=1e-4, atol=1e-4)


@pytest.mark.reference
def test_the_whole_loss_of_the_released_trainer(reference_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(reference_data / "loss" / "trainer_loss_block.safetensors")
    cases = json.loads((reference_data / "model_manifest.json").read_text())["trainer_loss_block"]
    config = LossConfig(gram_across_batch=True, clamp_before_loss=True)
    objective = Objective(config, vgg=narrow_vgg(reference_data), lpips=MeanAbsoluteDifference())
    for name, case in cases.items():
        if not isinstance(case, dict):
            continue
        height, width = case["hw"]
        x_pred, x_clean = (_full(tensors[f"{name}.{side}_u8_small"], height, width) for side in ("pred", "tgt"))
        top, left = case["crop_top_left"]
        window = (slice(top, top + config.gram_crop), slice(left, left + config.gram_crop))
        monkeypatch.setattr("difix_train.losses.objective.random_window", lambda *_, window=window: window)
        terms = objective(x_pred, x_clean, step=case["global_step"], generator=torch.Generator())
        assert float(sum(terms.values())) == pytest.approx(case["loss"], rel=1e-4)
        assert float(terms["l2"]) == pytest.approx(case["loss_l2"], rel=1e-4)
        assert float(terms["lpips"]) == pytest.approx(case["loss_lpips_stub"], rel=1e-4)
        assert float(terms.get("gram", torch.zeros(()))) == pytest.approx(case["loss_gram"], rel=1e-4)


def _full(small_u8: Tensor, height: int, width: int) -> Tensor:
    large = small_u8.repeat_interleave(8, -2).repeat_interleave(8, -1)[..., :height, :width]
    return large.float() / 127.5 - 1


def test_gram_of_each_image_equals_the_merged_one_for_a_single_image() -> None:
    vgg = VggFeatures(NARROW)
    a, b = vgg(images(0)), vgg(images(1))
    one_a, one_b = ({name: f[:1] for name, f in features.items()} for features in (a, b))
    torch.testing.assert_close(gram_loss(one_a, one_b), gram_loss(one_a, one_b, across_batch=True))
    separate = [
        gram_loss({n: f[i : i + 1] for n, f in a.items()}, {n: f[i : i + 1] for n, f in b.items()}) for i in range(2)
    ]
    torch.testing.assert_close(gram_loss(a, b), torch.stack(separate).mean())


def test_window_lies_inside_and_shrinks_to_small_images() -> None:
    generator = torch.Generator().manual_seed(0)
    windows = [random_window(12, 30, 10, generator) for _ in range(200)]
    assert {rows.start for rows, _ in windows} == {0, 1, 2}
    assert all(columns.stop <= 30 and columns.stop - columns.start == 10 for _, columns in windows)
    rows, columns = random_window(7, 30, 10, generator)
    assert (rows, columns.stop - columns.start) == (slice(0, 7), 10)


def test_lpips_vanishes_only_for_equal_images_and_has_finite_gradients() -> None:
    lpips = Lpips(VggFeatures(NARROW), [torch.ones(c) for c in (4, 8, 16, 16, 16)])
    x = images(0).requires_grad_()
    assert float(lpips(x, x.detach()).detach().abs().max()) == 0
    distance = lpips(x, images(1))
    assert float(distance.detach().min()) > 0
    distance.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lpips_equals_the_package_on_random_backbone_weights() -> None:
    lpips = pytest.importorskip("lpips")
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = {f"features.{k.split('.', 2)[2]}": v for k, v in theirs.state_dict().items() if k.startswith("net.slice")}
    ours = Lpips.from_heads_file(VggFeatures.from_state_dict(names))
    a, b = images(0, (2, 3, 64, 64)), images(1, (2, 3, 64, 64))
    torch.testing.assert_close(ours(a, b), theirs(a, b).flatten(), rtol=1e-4, atol=1e-6)


def test_heads_of_the_installed_package_have_vggs_widths() -> None:
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("lpips is not installed")
    lpips = Lpips.from_heads_file(VggFeatures(NARROW))
    assert [lpips.get_buffer(f"head_{name}").numel() for name in LAYER_INDICES] == [64, 128, 256, 512, 512]


@pytest.mark.parametrize("term", ["lpips_weight", "gram_weight"])
def test_missing_backbone_stops_with_a_sentence(tmp_path: Path, term: str) -> None:
    path = tmp_path / "vgg.pth"
    config = dataclasses.replace(LossConfig(lpips_weight=0.0, gram_weight=0.0, vgg16=path), **{term: 1.0})
    with pytest.raises(InputError, match=r"vgg\.pth does not exist: download https"):
        Objective(config)
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"vgg\.pth cannot be read"):
        Objective(config)


def test_missing_backbone_is_skipped_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = LossConfig(vgg16=tmp_path / "vgg.pth", missing_backbone="skip")
    with caplog.at_level(logging.WARNING):
        objective = Objective(config)
    assert "without LPIPS and Gram" in caplog.text
    terms = objective(images(0)[None], images(1)[None], step=9999, generator=torch.Generator())
    assert list(terms) == ["l2"]
    only_perceptual = LossConfig(vgg16=tmp_path / "vgg.pth", missing_backbone="skip", l2_weight=0.0)
    with pytest.raises(InputError, match="no loss term is left"):
        Objective(only_perceptual)


def test_clamping_is_what_kills_the_gradient_outside() -> None:
    for clamp, expected in ((True, 0.0), (False, 1.0)):
        config = LossConfig(lpips_weight=0.0, gram_weight=0.0, clamp_before_loss=clamp)
        x_pred = torch.full((1, 1, 3, 8, 8), 1.5, requires_grad=True)
        terms = Objective(config)(x_pred, torch.ones(1, 1, 3, 8, 8), step=0, generator=torch.Generator())
        terms["l2"].backward()
        assert x_pred.grad is not None
        assert float(x_pred.grad.sum()) == pytest.approx(expected)


def test_lpips_agrees_with_its_formula() -> None:
    vgg = VggFeatures(NARROW)
    heads = [torch.rand(c, generator=torch.Generator().manual_seed(c)) for c in (4, 8, 16, 16, 16)]
    a, b = images(0), images(1)
    shift, scale = (torch.tensor(v)[:, None, None] for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    features_a, features_b = vgg((a - shift) / scale), vgg((b - shift) / scale)
    total = torch.zeros(2)
    for name, head in zip(LAYER_INDICES, heads, strict=True):
        cosine_free = [nn.functional.normalize(f[name], dim=1) for f in (features_a, features_b)]
        total += torch.einsum("nchw,c->nhw", (cosine_free[0] - cosine_free[1]) ** 2, head).mean(dim=(1, 2))
    torch.testing.assert_close(Lpips(vgg, heads)(a, b), total, rtol=1e-4, atol=1e-6)
