"""Two optimizer steps agree with the released trainer's; which parameters are trained, in which order."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difix_model import DifixNetwork, load_released, tiny_config
from difix_train import LossConfig, Objective, OptimizerConfig
from difix_train.trainable import freeze_all_but, trainable_parameters
from train_runs import ParameterGroup
from train_runs.optim import Optimizers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.reference
def test_two_steps_equal_the_released_trainers(reference_data: Path) -> None:
    expected = load_file(reference_data / "train" / "steps.safetensors")
    info = json.loads((reference_data / "train" / "steps.json").read_text())
    released = load_released(reference_data / "hf_repo_tiny", reference_attention=True)
    network = released.network
    prompt = json.loads((reference_data / "model_manifest.json").read_text())["text_prompts"]["0"]
    embedding = released.text_encoder(prompt)
    trained = trainable_parameters(network, "released")
    assert set(trained) == set(info["optimizer_param_order"])
    freeze_all_but(network, trained)
    network.train()

    hyper = info["hyper"]
    config = OptimizerConfig(
        learning_rate=hyper["learning_rate"],
        beta1=hyper["adam_beta1"],
        beta2=hyper["adam_beta2"],
        weight_decay=hyper["adam_weight_decay"],
        eps=hyper["adam_epsilon"],
        max_grad_norm=hyper["max_grad_norm"],
    )
    optimizers = Optimizers([ParameterGroup(parameters=trained, config=config)], max_steps=1)
    loss_config = LossConfig(lpips_weight=0.0, l1_weight=1.0, gram_weight=0.0, clamp_before_loss=True)
    objective = Objective(loss_config)
    duplicates = info["duplicated_in_original_optimizer"]
    for step, log in enumerate(info["log"]):
        x = expected[f"step{step}.x"]
        vae = network.config.vae
        factor = vae.downscale_factor
        shape = (x.shape[0] * x.shape[1], vae.latent_channels, x.shape[-2] // factor, x.shape[-1] // factor)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(log["torch_manual_seed"]))
        x_pred = network(x, text_embedding=embedding, posterior_noise=noise, clamp=False)
        pred_tolerance = 1e-4 if step == 0 else 2e-3  # The duplicated parameters already went another way.
        torch.testing.assert_close(
            x_pred.detach().clamp(-1, 1), expected[f"step{step}.pred"], atol=pred_tolerance, rtol=0
        )
        terms = objective(x_pred, expected[f"step{step}.target"], step=step, generator=torch.Generator())
        loss = torch.stack(list(terms.values())).sum()
        assert float(loss.detach()) == pytest.approx(log["loss"], rel=1e-3)
        optimizers.zero_grad()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
        # The released code counts duplicated parameters as often as they are listed.
        squares = {name: float(gradient.square().sum()) for name, gradient in gradients.items()}
        norm = sum(square * duplicates.get(name, 1) for name, square in squares.items()) ** 0.5
        assert norm == pytest.approx(log["grad_norm_with_duplicates"], rel=1e-3)
        clip = min(1.0, hyper["max_grad_norm"] / (norm + 1e-6))
        for name, gradient in gradients.items():
            gradient.mul_(clip ** duplicates.get(name, 1))  # It also clips them as often.
        if step == 0:
            recorded = {key.removeprefix("grad."): value for key, value in expected.items() if key.startswith("grad.")}
            for name, value in recorded.items():
                largest = float(value.abs().max())
                torch.testing.assert_close(
                    gradients[name], value, atol=5e-4 * largest, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
                )
        optimizers.step()
    after = {key.removeprefix("after2."): value for key, value in expected.items() if key.startswith("after2.")}
    for name, value in after.items():
        if name not in duplicates:
            difference = (trained[name].detach() - value).abs().max()
            assert float(difference) < 0.1 * hyper["learning_rate"] * len(info["log"]), name


def network() -> DifixNetwork:
    with torch.device("meta"):
        return DifixNetwork(tiny_config(lora_rank=2))


def test_released_set_has_no_duplicates_and_the_released_order() -> None:
    names = list(trainable_parameters(network(), "released"))
    assert len(names) == len(set(names))
    kinds = ["unet" if n.startswith("unet.") else "lora" if ".lora_" in n else "skip" for n in names]
    assert kinds == sorted(kinds, key=["unet", "lora", "skip"].index)
    skips = [name for name in names if "skip_conv" in name]
    assert len(skips) == 3 * len(tiny_config().vae.block_out_channels)
    assert not any(name.startswith("vae.encoder") or name.startswith("vae.quant") for name in names)


def test_sets_nest_as_their_names_say() -> None:
    net = network()
    sets = {name: set(trainable_parameters(net, name)) for name in ("released", "all", "unet", "lora", "decoder")}
    assert sets["all"] == {name for name, _ in net.named_parameters()}
    assert sets["unet"] | sets["lora"] == sets["released"]
    assert sets["lora"] < sets["decoder"]
    freeze_all_but(net, trainable_parameters(net, "lora"))
    assert {name for name, p in net.named_parameters() if p.requires_grad} == sets["lora"]
