"""From nothing to the weights that come with the project: generated pairs, training, and a checkpoint folder.

    uv run python benchmarks/embedded_weights.py --out runs/weights                       # CPU, two hours of two cores
    uv run python benchmarks/embedded_weights.py --out runs/weights --device cuda          # larger and longer
    uv run python benchmarks/embedded_weights.py --out runs/weights --sweep                # size, scenes and time
    uv run python benchmarks/embedded_quality.py table --model runs/weights/model --pairs ...

Pairs are made once (`pairs_128/` and `pairs_192/` for training, `held_out/` for the figures on the way) and taken from
there afterwards; `--pairs` takes other folders. What was begun is gone on with. What is trained, and why only that, is
told in `difix_train.coarse.training`. The folder `model/` is what `DifixPipeline.from_pretrained` and `--fixer` take.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from embedded_pairs import HELD_OUT, LARGE, SMALL, coarse_folders, make_pairs, of_scenes, read_folders

if TYPE_CHECKING:
    from difix_model.network import DifixNetwork
    from difix_model.pairs import PairRecord
    from difix_train.coarse.config import CoarseConfig
    from difix_train.coarse.pairs import CoarsePairs

CHANNELS = (32, 64)
"""Of the shipped UNet's levels."""

LESSON: dict[str, Any] = {"max_steps": 1500, "tone_prob": 0.3, "stranger_prob": 0.0, "harm_weight": 0.0}
"""First, on small pairs, views learn to look at each other. Whether they do within so many steps is partly chance: a
lesson that fails is repeated with another seed."""

LOOKS = 0.02
"""A lesson is learnt where the right reference is better than a wrong one by so many dB on the held-out scenes: where
it is not, the two agree to 0.001 dB. Practice makes more of it."""

MOST_LESSONS = 5
"""So many seeds are tried."""

PRACTICE: dict[str, Any] = {
    "max_steps": 12_000,
    "learning_rate": 8e-4,
    "damage_prob": 0.6,
    "curriculum": 0.5,
    "harm_weight": 0.0,
}
"""Then they practise on the damage of splats, with ever more changes of tone, and windows that no reference shows."""

CALM: dict[str, Any] = {
    "max_steps": 6000,
    "learning_rate": 5e-4,
    "warmup_steps": 100,
    "damage_prob": 0.1,
    "curriculum": 0.001,
    "tone_prob": 0.5,
    "stranger_prob": 0.3,
    "clean_prob": 0.3,
    "harm_weight": 0.3,
}
"""At last they learn what to leave alone: good renders, and dark things that are no holes."""

DETAIL_SHOWN = 0.4
"""What the finished network is shown of the detail there is (`difix_model.identity.scale_detail`). Captured scenes have
more than generated ones; by renders of their training photos it does least harm so."""

CUDA: dict[str, Any] = {"max_steps": 60_000, "batch_size": 128}
"""What differs on a GPU in the practice."""

SWEEP: list[dict[str, Any]] = [
    *({"channels": size, "scenes": None, "seed": seed} for seed in (0, 1) for size in ((32, 64), (16, 32), (64, 128))),
    *({"channels": CHANNELS, "scenes": scenes, "seed": seed} for seed in (0, 1) for scenes in (40, 140)),
]
"""Sizes and numbers of scenes (None: all small ones) that are compared after a lesson, with two seeds each."""

TELL_EVERY = 250
"""Steps whose mean loss is told."""

METADATA = {
    "name": "difix-small",
    "license": "Apache-2.0",
    "origin": "trained from scratch on generated scenes only; see MODEL_CARD.md",
    "uses_reference": True,
    "timestep": 199,
    "gate": {
        "evidence": {
            "low_change": 0.02,
            "high_change": 0.06,
            "low_coverage": 0.2,
            "high_coverage": 0.4,
        },
    },
}


def new_network(channels: tuple[int, ...], seed: int = 0) -> tuple[DifixNetwork, torch.Tensor]:
    """A network at the identity, and the embedding that stands for the prompt."""
    from difix_model.identity import small_config, start_at_identity
    from difix_model.network import DifixNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DifixNetwork(small_config(channels))
        start_at_identity(network)
        embedding = torch.randn(4, network.config.unet.cross_attention_dim)
    network.vae.requires_grad_(False)
    return network, embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """What the figures on the way are measured on; nothing is trained on it."""

    generated: list[CoarsePairs]
    captured: list[CoarsePairs]
    """May be empty."""


def read_held(generated: Path, captured: Path | None) -> Held:
    """Read and make them coarse."""
    from difix_train.coarse.pairs import coarse_pairs

    network, _ = new_network(CHANNELS)
    return Held(
        generated=coarse_pairs(read_folders([generated]), network),
        captured=coarse_pairs(read_folders([captured]), network) if captured else [],
    )


def gains(
    network: DifixNetwork, embedding: torch.Tensor, pairs: Sequence[CoarsePairs], references: Any
) -> torch.Tensor:
    """By how many dB each of the pairs comes closer to its photo."""
    from difix_train.coarse.training import coarse_gain

    return torch.cat([coarse_gain(network, some, text_embedding=embedding, references=references) for some in pairs])


def scores(network: DifixNetwork, embedding: torch.Tensor, held: Held) -> dict[str, float]:
    """Mean gains on pairs of unseen scenes with the right, a wrong and no reference, and the share that is harmed."""
    network.to("cpu")
    found = {kind: gains(network, embedding, held.generated, kind) for kind in ("right", "wrong", "none")}
    means = {kind: round(float(gain.mean()), 3) for kind, gain in found.items()}
    means["harmed"] = round(float((found["right"] < 0).float().mean()), 3)
    if held.captured:
        captured = gains(network, embedding, held.captured, "right")
        means["captured"] = round(float(captured.mean()), 3)
        means["captured_harmed"] = round(float((captured < 0).float().mean()), 3)
        means["captured_worst"] = round(float(captured.min()), 2)
    return means


def trained(
    network: DifixNetwork,
    embedding: torch.Tensor,
    pairs: Sequence[CoarsePairs],
    held: Held,
    config: CoarseConfig,
    device: str,
    say: Callable[[dict[str, Any]], None],
    state: Path | None = None,
) -> dict[str, float]:
    """Train a network; its loss is told on the way, its scores at the end, and returned."""
    from difix_train.coarse.training import train_coarse

    start = time.time()
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % TELL_EVERY == 0 and step < config.max_steps:
            say({"step": step, "seconds": round(time.time() - start), "loss": round(sum(losses) / len(losses), 3)})
            losses.clear()

    train_coarse(network, pairs, config, text_embedding=embedding, device=device, state=state, on_step=on_step)
    size = sum(parameter.numel() for parameter in network.unet.parameters())
    found = scores(network, embedding, held)
    say({"step": config.max_steps, "seconds": round(time.time() - start), "parameters": size} | found)
    return found


def learnt_part(
    out: Path,
    name: str,
    network: DifixNetwork,
    embedding: torch.Tensor,
    pairs: Sequence[CoarsePairs],
    held: Held,
    config: CoarseConfig,
    device: str,
    say: Callable[[dict[str, Any]], None],
) -> float:
    """Train a part, or take what an earlier run learnt; by how many dB the right reference beats a wrong one then."""
    learnt = out / f"{name}.pt"
    if not learnt.is_file():
        found = trained(network, embedding, pairs, held, config, device, say, out / f"state_{name}.pt")
        torch.save({"unet": network.unet.state_dict(), "looks": found["right"] - found["wrong"]}, learnt)
    content = torch.load(learnt, weights_only=True)
    network.unet.load_state_dict(content["unet"])
    return content["looks"]


def taught(
    out: Path,
    channels: tuple[int, ...],
    small: Sequence[CoarsePairs],
    pairs: Sequence[CoarsePairs],
    held: Held,
    practice: CoarseConfig,
    device: str,
    say: Callable[[dict[str, Any]], None],
) -> tuple[DifixNetwork, torch.Tensor]:
    """A network that has been through all parts, and the embedding of its prompt."""
    from difix_model.identity import scale_detail
    from difix_train.coarse.config import CoarseConfig

    for seed in range(MOST_LESSONS):
        network, embedding = new_network(channels, seed)
        lesson = CoarseConfig(**LESSON, seed=seed)
        if learnt_part(out, f"lesson_{seed}", network, embedding, small, held, lesson, device, say) >= LOOKS:
            break
    else:
        raise SystemExit(f"{MOST_LESSONS} lessons, and still the reference makes no difference: make more pairs")
    for name, config in {"practice": practice, "calm": CoarseConfig(**CALM)}.items():
        learnt_part(out, name, network, embedding, pairs, held, config, device, say)
    scale_detail(network, DETAIL_SHOWN)
    return network, embedding


def milliseconds(network: DifixNetwork, embedding: torch.Tensor) -> float:
    """Of one 256x192 render with a reference, the best of five, on the threads at hand."""
    x = torch.rand(1, 2, 3, 192, 256) * 2 - 1
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            network(x, text_embedding=embedding, decode="target")
            times.append(time.perf_counter() - start)
    return round(1000 * min(times), 1)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", help="folders of pairs to train on; the first for the lesson")
    parser.add_argument("--held-out", type=Path, help="folder of pairs of other scenes, instead of making them")
    parser.add_argument("--captured", type=Path, help="folder of renders of captured scenes, for the figures as well")
    parser.add_argument("--num-scenes", type=int, default=400)
    parser.add_argument("--num-held-out", type=int, default=8)
    parser.add_argument("--num-processes", type=int, default=2, help="scenes that are made at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS, help="of the UNet's levels")
    parser.add_argument("--max-steps", type=int, help="of the practice")
    parser.add_argument("--sweep", action="store_true", help="compare sizes and numbers of scenes instead")
    return parser.parse_args()


def main() -> None:
    """Make what is missing, train, and write the model."""
    from difix_train.coarse.config import CoarseConfig

    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = options.pairs or [options.out / wanted.folder for wanted in (SMALL, LARGE)]
    held_out = options.held_out or options.out / HELD_OUT.folder
    processes = options.num_processes
    if not options.pairs:
        for wanted, folder in zip((SMALL, LARGE), folders, strict=True):
            make_pairs(folder, wanted, options.num_scenes, test=False, processes=processes)
    if not options.held_out:
        make_pairs(held_out, HELD_OUT, options.num_held_out, test=True, processes=processes)
    held = read_held(held_out, options.captured)
    encoder, _ = new_network(CHANNELS)
    log = options.out / ("sweep.jsonl" if options.sweep else "training.jsonl")

    def say(row: dict[str, Any]) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    small = coarse_folders(options.out, folders[:1], encoder)
    if options.sweep:
        sweep(read_folders(folders[:1]), small, held, options.device, say)
        return
    config = CoarseConfig(**(PRACTICE | (CUDA if options.device.startswith("cuda") else {})))
    if options.max_steps:
        config = dataclasses.replace(config, max_steps=options.max_steps)
    further = coarse_folders(options.out, folders[1:], encoder)
    channels = tuple(options.channels)
    network, embedding = taught(options.out, channels, small, [*small, *further], held, config, options.device, say)
    save_model(options.out / "model", network, embedding)


def sweep(
    records: Sequence[PairRecord],
    small: Sequence[CoarsePairs],
    held: Held,
    device: str,
    say: Callable[[dict[str, Any]], None],
) -> None:
    """Compare sizes and numbers of scenes after a lesson each."""
    from difix_train.coarse.config import CoarseConfig
    from difix_train.coarse.pairs import coarse_pairs

    for choice in SWEEP:
        network, embedding = new_network(choice["channels"], choice["seed"])
        few = choice["scenes"]
        pairs = small if few is None else coarse_pairs(of_scenes(records, few), network)
        lesson = CoarseConfig(**LESSON, seed=choice["seed"])
        trained(network, embedding, pairs, held, lesson, device, lambda row, choice=choice: say(choice | row))
        say(choice | {"milliseconds": milliseconds(network, embedding)})


def save_model(folder: Path, network: DifixNetwork, embedding: torch.Tensor) -> None:
    """Write the folder that is shipped."""
    from difix_model.formats.checkpoint import save_checkpoint

    save_checkpoint(
        folder,
        network.to("cpu"),
        text_embedding=embedding.cpu(),
        prompt="remove degradation",
        metadata=METADATA,
        dtype=torch.float16,
    )
    print(folder)


if __name__ == "__main__":
    main()
