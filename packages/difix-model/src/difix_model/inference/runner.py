"""Running the network on images of any number and size: batches, tiles, kept references, and memory that runs out."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.errors import InputError
from difix_model.images import cropped, from_network, padded, to_network
from difix_model.inference.memory import Load, MemoryBudget, is_out_of_memory
from difix_model.inference.reference_cache import DEFAULT_CACHE_BYTES, ReferenceCache, ReferenceImage
from difix_model.inference.tile_statistics import TileStatistics
from difix_model.inference.tiling import MIN_TILE_SIZE, TilePlan, TilingConfig, blend_weights, plan_tiles
from difix_model.network import DifixNetwork

TILE_STEP = 64
"""Tile sizes that are tried after memory ran out are multiples of this."""

FixTargets = Callable[[Tensor, Tensor | None], Tensor]
"""`DifixNetwork.fix_targets` with everything but images and latents of references given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """An image or a tile of it, with the same part of its references."""

    rgb: Float[Tensor, "h w c=3"]
    references: Sequence[ReferenceImage]
    top: int
    left: int

    @property
    def rows(self) -> slice:
        """Rows of the image."""
        return slice(self.top, self.top + self.rgb.shape[0])

    @property
    def columns(self) -> slice:
        """Columns of the image."""
        return slice(self.left, self.left + self.rgb.shape[1])


class NetworkRunner:
    """Sends images through a network in the batches and tiles that fit, and keeps the latents of references.

    Args:
        network: What to run, in evaluation mode, wherever and in whatever precision it is.
        cache_bytes: Room for latents of references; 0 keeps none.
        channels_last: Whether images and weights lie with the channels as the fastest axis.
        compile_mode: None runs eagerly; otherwise the mode of `torch.compile`. Every new shape compiles again.
    """

    def __init__(
        self,
        network: DifixNetwork,
        *,
        tiling: TilingConfig | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        channels_last: bool = False,
        compile_mode: str | None = None,
    ) -> None:
        self.network = network
        self.tiling = TilingConfig() if tiling is None else tiling
        self.cache = ReferenceCache(cache_bytes)
        self.budget = MemoryBudget()
        self.multiple = network.config.vae.downscale_factor
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._fix_targets = network.fix_targets
        self._encode_latents = network.encode_latents
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_mode is not None:
            self._fix_targets = torch.compile(network.fix_targets, mode=compile_mode, dynamic=False)
            self._encode_latents = torch.compile(network.encode_latents, mode=compile_mode, dynamic=False)

    @torch.no_grad()
    def run(
        self,
        images: Sequence[Float[Tensor, "_h _w c=3"]],
        references: Sequence[Sequence[ReferenceImage]],
        *,
        text_embedding: Float[Tensor, "n d"],
        timestep: int,
        batch_size: int,
    ) -> list[Float[Tensor, "_h _w c=3"]]:
        """Fix images of any sizes; those that need the same size and have as many references share batches.

        Args:
            images: RGB in [0, 1].
            references: Those of each image, any number, in the image's size.
            batch_size: How many images or tiles of one size are run at a time, if memory allows.

        Returns:
            RGB in [0, 1], float32, each on its image's device.

        Raises:
            NotEnoughMemoryError: If not even the smallest tile fits into memory.
        """
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, (rgb, own) in enumerate(zip(images, references, strict=True)):
            height, width = (side + -side % self.multiple for side in rgb.shape[:2])
            groups.setdefault((height, width, len(own)), []).append(index)
        fixed: dict[int, Tensor] = {}
        for (height, width, num_references), waiting in groups.items():
            whole = Load(batch=1, height=height, width=width, views=1 + num_references)
            while waiting:
                plan = self._plan(whole)
                tile = Load(batch=1, height=plan.height, width=plan.width, views=whole.views)
                limit = self.budget.batch_size(batch_size, tile)
                now = waiting[: limit if len(plan) == 1 else 1]
                load = dataclasses.replace(tile, batch=min(limit, len(now) * len(plan)))
                # The hooks that share statistics among tiles are not seen by code that was compiled before.
                joint = len(plan) > 1 and self.tiling.shared_statistics
                fix_targets = self.network.fix_targets if joint else self._fix_targets
                fix_targets = functools.partial(fix_targets, text_embedding=text_embedding, timestep=timestep)
                results = self._attempt([images[i] for i in now], [references[i] for i in now], plan, load, fix_targets)
                if results is None:
                    self.cache.clear()
                    self.budget.lower(load)
                    continue
                fixed |= dict(zip(now, results, strict=True))
                waiting = waiting[len(now) :]
        return [fixed[index] for index in range(len(images))]

    @property
    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where the network is now, and in what precision."""
        parameter = next(self.network.parameters())
        return parameter.device, parameter.dtype

    def _plan(self, whole: Load) -> TilePlan:
        """Cut as the configuration says, or smaller where memory ran out before."""
        overlap = self.tiling.overlap
        tile_size = self.tiling.wanted_tile_size(whole.height, whole.width)
        smaller = max(whole.height, whole.width) if tile_size is None else tile_size
        while True:
            if tile_size is not None:
                overlap = min(overlap, tile_size // 2)
            plan = plan_tiles(whole.height, whole.width, tile_size=tile_size, overlap=overlap, multiple=self.multiple)
            fits = self.budget.fits(dataclasses.replace(whole, height=plan.height, width=plan.width))
            if fits or smaller <= MIN_TILE_SIZE:
                return plan
            smaller = max(MIN_TILE_SIZE, (smaller - 1) // TILE_STEP * TILE_STEP)
            tile_size, overlap = smaller, min(self.tiling.overlap, smaller // 4)

    def _attempt(
        self,
        images: Sequence[Tensor],
        references: Sequence[Sequence[ReferenceImage]],
        plan: TilePlan,
        load: Load,
        fix_targets: FixTargets,
    ) -> list[Tensor] | None:
        """Fix images of one size, or return None if memory ran out.

        The exception is dropped before anything else is tried, since it holds on to the tensors of where it arose.
        """
        try:
            if len(plan) == 1:
                pieces = [
                    Piece(rgb=rgb, references=own, top=0, left=0) for rgb, own in zip(images, references, strict=True)
                ]
                return self._run_pieces(pieces, load, fix_targets)
            return [self._run_tiled(images[0], references[0], plan, load, fix_targets)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _run_tiled(
        self, rgb: Tensor, references: Sequence[ReferenceImage], plan: TilePlan, load: Load, fix_targets: FixTargets
    ) -> Tensor:
        height, width = rgb.shape[:2]
        row_weights = dict(zip(plan.tops, blend_weights(height, plan.height, plan.tops).to(rgb.device), strict=True))
        column_weights = dict(zip(plan.lefts, blend_weights(width, plan.width, plan.lefts).to(rgb.device), strict=True))
        pieces = [
            Piece(rgb=rgb[top : top + plan.height, left : left + plan.width], references=references, top=top, left=left)
            for top, left in plan
        ]
        batches = [pieces[start : start + load.batch] for start in range(0, len(pieces), load.batch)]
        with contextlib.ExitStack() as stack:
            if self.tiling.shared_statistics:
                statistics = stack.enter_context(TileStatistics(self.network, load.views))
                for batch in batches:
                    self._run_pieces(batch, load, statistics.collecting(fix_targets))
                fix_targets = statistics.using(fix_targets)
            blended = torch.zeros(rgb.shape, device=rgb.device)
            for batch in batches:
                for piece, result in zip(batch, self._run_pieces(batch, load, fix_targets), strict=True):
                    rows = row_weights[piece.top][piece.rows][:, None, None]
                    columns = column_weights[piece.left][piece.columns][:, None]
                    blended[piece.rows, piece.columns] += result.mul_(rows).mul_(columns)
        return blended

    def _run_pieces(self, pieces: Sequence[Piece], load: Load, fix_targets: FixTargets) -> list[Tensor]:
        """Run one batch; the results are where the images are."""
        reference_z = self._reference_latents(pieces, load) if load.views > 1 else None
        x = torch.cat([self._network_input(piece.rgb) for piece in pieces])
        output = fix_targets(x.contiguous(memory_format=self._memory_format), reference_z)
        if output.dtype == torch.float16 and not torch.isfinite(output).all():
            raise InputError("these weights overflow float16: use bfloat16 or float32")
        return [
            from_network(cropped(one.float(), *piece.rgb.shape[:2])).to(piece.rgb.device)
            for piece, one in zip(pieces, output, strict=True)
        ]

    def _network_input(self, rgb: Tensor) -> Float[Tensor, "b c=3 h w"]:
        device, dtype = self._place
        return padded(to_network(rgb.to(device)[None].float()).to(dtype), self.multiple)

    def _reference_latents(self, pieces: Sequence[Piece], load: Load) -> Float[Tensor, "b r c h w"]:
        """Return the latents of all references of a batch; what is not kept from before is encoded once."""
        encoder = self._encoder_version()
        wanted: list[list[Hashable]] = []
        latents: dict[Hashable, Tensor] = {}
        missing: dict[Hashable, tuple[ReferenceImage, Piece]] = {}
        for piece in pieces:
            keys: list[Hashable] = []
            for reference in piece.references:
                key = (reference.key, piece.top, piece.left, load.height, load.width, encoder)
                keys.append(key)
                if key in latents or key in missing:
                    continue
                kept = self.cache.get(key)
                if kept is None:
                    missing[key] = (reference, piece)
                else:
                    latents[key] = kept
            wanted.append(keys)
        waiting, device = list(missing.items()), self._place[0]
        for start in range(0, len(waiting), load.batch):
            some = waiting[start : start + load.batch]
            x = torch.cat(
                [self._network_input(own.region(piece.rows, piece.columns, device)) for _, (own, piece) in some]
            )
            for (key, _), z in zip(
                some, self._encode_latents(x.contiguous(memory_format=self._memory_format)), strict=True
            ):
                # With CUDA graphs the next run of the encoder overwrites what this one gave.
                latents[key] = z.clone()
                self.cache.put(key, z)
        return torch.stack([torch.stack([latents[key] for key in keys]) for keys in wanted])

    def _encoder_version(self) -> Hashable:
        """What changes when the encoder's weights are changed in place or moved, so that no stale latent is used."""
        parameters = [*self.network.vae.encoder.parameters(), *self.network.vae.quant_conv.parameters()]
        return (*self._place, sum(parameter._version for parameter in parameters))
