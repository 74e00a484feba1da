"""What a Difix network brings to be trained: its parameters, batches of pairs, its losses, and its model folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.config import RENDERED_VIEW
from difix_model.formats.checkpoint import empty_network, load_checkpoint, load_strictly, save_checkpoint
from difix_model.formats.metadata import WeightsMetadata
from difix_model.images import on_device, pinned
from difix_model.network import DifixNetwork
from difix_train.config import TrainConfig
from difix_train.dataset import Batch, Draw, PairDataset, unit_range
from difix_train.errors import InputError
from difix_train.losses.objective import Objective
from difix_train.sampler import PairSampler
from difix_train.start import TextEmbeddings, embeddings_by_prompt
from difix_train.trainable import freeze_all_but, trainable_parameters
from train_runs import BatchStream, ParameterGroup, Processes, TaskState, full_tensor, read_checkpoint, reshard_like
from train_runs.checkpoints import under

logger = logging.getLogger(__name__)

NO_REFERENCE_ATTENTION = (
    "The pairs have references, but in this network views do not attend to each other, so it cannot learn to use them: "
    "turn reference attention on (--reference-attention True, for weights in a published form or SD-Turbo), "
    "or leave ref_image out of the pairs, which makes steps cheaper"
)


class DifixTask:
    """A :class:`DifixNetwork` that is trained on pairs; :class:`train_runs.Loop` does the rest.

    Args:
        network: What is trained, in place, in float32.
        text_embedding: Embedding of the one prompt of the pairs, or embeddings by prompt; the first is the one that
            the saved model carries.
        config: Everything else.
        objective: Loss; built from ``config.loss`` by default.
        metadata: What the saved model says of itself, such as license and origin.
        processes: Where several processes train together; also the device.

    Raises:
        InputError: A prompt has no embedding, sizes do not fit the network, no parameter is trainable, or a loss
            backbone is missing.
    """

    def __init__(
        self,
        network: DifixNetwork,
        text_embedding: Float[Tensor, "n d"] | TextEmbeddings,
        dataset: PairDataset,
        config: TrainConfig,
        *,
        objective: Objective | None = None,
        metadata: WeightsMetadata | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.processes = Processes() if processes is None else processes
        self.device = self.processes.device
        self.metadata = self._described(network, metadata or WeightsMetadata())
        self.text_embeddings = {
            prompt: embedding.detach().reshape(embedding.shape[-2:]).to(self.device, torch.float32, copy=True)
            for prompt, embedding in embeddings_by_prompt(text_embedding, dataset.prompts).items()
        }
        self.objective = (Objective(config.loss) if objective is None else objective).to(self.device)
        self.network = network.to(self.device, torch.float32)
        trained = trainable_parameters(network, config.trainable)
        self._check(trained)
        freeze_all_but(network, trained)
        if config.gradient_checkpointing:
            network.unet.enable_gradient_checkpointing()
            network.vae.gradient_checkpointing = True
        self._forward = self.processes.wrap_model(network, shard_units=_shard_units(network))
        # Wrapping may have put other parameters in the place of those before.
        self.trained = trainable_parameters(network, config.trainable)
        """The parameters that are trained, by name."""
        sampler = PairSampler(dataset, config.batch_size * self.processes.world_size, config.seed)
        self._batches = BatchStream(sampler, self._load, config.data.num_workers)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Path,
        dataset: PairDataset,
        config: TrainConfig,
        *,
        objective: Objective | None = None,
        processes: Processes | None = None,
    ) -> DifixTask:
        """The task as a checkpoint's network defines it; :class:`train_runs.Loop` then puts back where it stood.

        Raises:
            InputError: There is no such checkpoint, or as for the class.
        """
        saved = load_checkpoint(checkpoint / "model")
        state = read_checkpoint(checkpoint)
        embeddings = under("task/text/", state.tensors)
        return cls(
            saved.network,
            {prompt: embeddings[f"{index}"] for index, prompt in enumerate(state.values["task"]["prompts"])},
            dataset,
            config,
            objective=objective,
            metadata=saved.metadata,
            processes=processes,
        )

    @property
    def prompt(self) -> str:
        """The prompt whose embedding the saved model carries."""
        return next(iter(self.text_embeddings))

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One group: everything that is trained."""
        return [ParameterGroup(parameters=self.trained, config=self.config.optimizer)]

    def next_batch(self) -> Batch:
        """This process's part of the next pairs."""
        return self._batches.next()

    def _load(self, draws: Sequence[Draw]) -> Batch:
        """This process's part of some draws; may run in another thread."""
        batch = self.dataset.batch(self.processes.shard(draws), as_bytes=self.device.type == "cuda")
        return replace(batch, x=pinned(batch.x, self.device), x_clean=pinned(batch.x_clean, self.device))

    def losses(self, batch: Batch, *, step: int, generator: torch.Generator) -> Mapping[str, Float[Tensor, ""]]:
        """The weighted loss terms of a batch."""
        self.network.train()
        x, x_clean = (unit_range(on_device(views, self.device)) for views in (batch.x, batch.x_clean))
        only_rendered = self.config.loss.views == "rendered"
        with self._autocast():
            x_pred = self._forward(
                x,
                text_embedding=self._embedding(batch.prompts),
                timestep=self.config.timestep,
                posterior_noise=self._posterior_noise(x, generator),
                decode="target" if only_rendered else "all",
                clamp=False,
            )
        if only_rendered:
            x_clean = x_clean[:, RENDERED_VIEW : RENDERED_VIEW + 1]
        return self.objective(x_pred, x_clean, step=step, generator=generator)

    def fix(self, x: Float[Tensor, "1 v c=3 h w"], prompt: str) -> Float[Tensor, "1 1 c=3 h w"]:
        """The fixed render, in [-1, 1], by the weights as they are; consumes no random numbers."""
        self.network.eval()
        with torch.no_grad(), self._autocast():
            return self.network(
                x, text_embedding=self._embedding((prompt,)), timestep=self.config.timestep, decode="target"
            )

    def state(self) -> TaskState:
        """The sampler's position, and the prompts with their embeddings."""
        embeddings = self.text_embeddings.values()
        return TaskState(
            values={"sampler": self._batches.state(), "prompts": list(self.text_embeddings)},
            tensors={f"text/{index}": embedding for index, embedding in enumerate(embeddings)},
        )

    def load_state(self, state: TaskState) -> None:
        """Put the sampler back; the embeddings were given to the constructor.

        Raises:
            ValueError: The state belongs to other pairs.
        """
        self._batches.load_state(state.values["sampler"])

    def model_writer(self) -> Callable[[Path], None]:
        """What writes the folder that DifixPipeline opens."""
        network = self._full_network()

        def write(folder: Path) -> None:
            save_checkpoint(
                folder,
                network,
                text_embedding=self.text_embeddings[self.prompt],
                prompt=self.prompt,
                metadata=self.metadata,
            )

        return write

    @torch.no_grad()
    def read_model(self, folder: Path) -> None:
        """Take over all weights from what :meth:`model_writer` wrote."""
        saved = load_checkpoint(folder).network.state_dict()
        for name, value in self.network.state_dict().items():
            if name not in saved or saved[name].shape != value.shape:
                raise InputError(f"{folder} holds another network: {name} differs")
            value.copy_(reshard_like(saved[name], value))

    def _described(self, network: DifixNetwork, metadata: WeightsMetadata) -> WeightsMetadata:
        """Metadata of the model, with what it is trained for; warns where references cannot be used."""
        shows_references = any(pair.references for pair in self.dataset.pairs)
        if shows_references and not network.config.reference_attention and self.processes.is_main:
            logger.warning(NO_REFERENCE_ATTENTION)
        shows_references = shows_references or bool(metadata.uses_reference)
        uses_reference = network.config.reference_attention and shows_references
        return replace(metadata, uses_reference=uses_reference, timestep=self.config.timestep)

    def _check(self, trained: Mapping[str, nn.Parameter]) -> None:
        factor = self.network.config.vae.downscale_factor
        data = self.config.data
        if data.height % factor or data.width % factor:
            raise InputError(f"height and width must be multiples of {factor} for this network")
        if not trained:
            raise InputError(
                f"the network has no parameter in the set '{self.config.trainable}': choose another `trainable`"
            )
        if self.config.data != self.dataset.config:
            raise ValueError("config.data and the dataset's configuration must be the same")

    def _posterior_noise(
        self, x: Float[Tensor, "b v c=3 h w"], generator: torch.Generator
    ) -> Float[Tensor, "bv c2 h2 w2"] | None:
        if not self.config.posterior_noise:
            return None
        vae = self.network.config.vae
        factor = vae.downscale_factor
        num_images = self.processes.world_size * x.shape[0] * x.shape[1]
        shape = (num_images, vae.latent_channels, x.shape[-2] // factor, x.shape[-1] // factor)
        # Drawn on the CPU, for all processes, so that every device sees the same noise.
        return on_device(self.processes.shard(torch.randn(shape, generator=generator)), self.device)

    def _embedding(self, prompts: tuple[str, ...]) -> Float[Tensor, "*b n d"]:
        if len(set(prompts)) == 1:
            return self.text_embeddings[prompts[0]]
        return torch.stack([self.text_embeddings[prompt] for prompt in prompts])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16", cache_enabled=False
        )

    def _full_network(self) -> DifixNetwork:
        """The network with full parameters; where it is in shards, a copy on the CPU."""
        if not self.processes.sharded:
            return self.network
        state = {name: full_tensor(tensor).cpu() for name, tensor in self.network.state_dict().items()}
        network = empty_network(self.network.config)
        load_strictly(network, state, source="memory")
        return network


def _shard_units(network: DifixNetwork) -> list[nn.Module]:
    """The blocks whose parameters are gathered, used and freed one after the other."""
    unet = network.unet
    blocks = [*unet.down_blocks, *unet.up_blocks]
    if unet.mid_block is not None:
        blocks.append(unet.mid_block)
    return blocks
