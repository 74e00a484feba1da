"""What a frozen transformer says about views of generated objects, computed once and kept in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from output_files import written_whole
from sparsefusion.cache import cache_views
from sparsefusion.config import ModelConfig
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.eft import EpipolarTransformer
from sparsefusion.errors import InputError
from sparsefusion.training.objects import OBJECTS_PER_FILE, PrecastObjects


def weights_digest(eft: EpipolarTransformer) -> str:
    """A name for a transformer's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(eft.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class QueryFeatures:
    """Features of several queries of every object; a query is one view, and two or three photos that it is found from.

    Args:
        folder: Of the files; missing ones, and those of other weights, are made when this object is.
        eft: The transformer; it is as before afterwards.
        config: Sizes of the networks, and how the transformer runs.
        max_photos: Most photos of a query; the fewest are two.
    """

    def __init__(
        self,
        folder: Path,
        eft: EpipolarTransformer,
        config: ModelConfig,
        objects: PrecastObjects,
        *,
        num_queries: int = 8,
        max_photos: int = 3,
    ) -> None:
        self.config, self.objects, self.num_queries, self.max_photos = config, objects, num_queries, max_photos
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{config.eft_mode}_{num_queries}x{max_photos}_of_{weights_digest(eft)}"
        self.paths = [
            folder / f"{name}_from_{first:08d}_to_{min(first + OBJECTS_PER_FILE, len(objects)):08d}.safetensors"
            for first in range(0, len(objects), OBJECTS_PER_FILE)
        ]
        for at, path in enumerate(self.paths):
            if not path.is_file():
                self._compute(at * OBJECTS_PER_FILE, path, eft)
        self._files = {}

    def __len__(self) -> int:
        """Number of queries of all objects."""
        return len(self.objects) * self.num_queries

    def query(self, index: int) -> tuple[ObjectSequence, list[int], int]:
        """The object of a query, the photos that it is given, and the view that it asks for."""
        sequence = self.objects.read(index // self.num_queries)
        generator = torch.Generator().manual_seed(index)
        count = 2 + int(torch.randint(self.max_photos - 1, (1,), generator=generator))
        order = torch.randperm(len(sequence), generator=generator).tolist()
        return sequence, order[:count], order[count]

    def _compute(self, first: int, path: Path, eft: EpipolarTransformer) -> None:
        found = []
        last = min(first + OBJECTS_PER_FILE, len(self.objects))
        for index in range(first * self.num_queries, last * self.num_queries):
            sequence, photos, asked = self.query(index)
            inputs, view = sequence.subset(photos), sequence.subset([asked])
            views = cache_views(
                eft,
                inputs.rgb,
                inputs.cameras,
                sequence.cameras,
                view.cameras,
                latent_size=self.config.latent_size,
                mode=self.config.eft_mode,
            )
            found.append(views.features[0].half())
        with written_whole(path) as partial:
            save_file({"features": torch.stack(found).contiguous()}, partial)

    def features(self, index: int) -> Float[Tensor, "c y x"]:
        """The transformer's features of one query."""
        path = self.paths[index // self.num_queries // OBJECTS_PER_FILE]
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, "pt")
            return self._files[path].get_slice("features")[index % (self.num_queries * OBJECTS_PER_FILE)].float()
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read: delete it, and it is made again ({error})") from error

    def view(self, index: int) -> Float[Tensor, "3 h w"]:
        """The true image of one query's view, in [0, 1]."""
        sequence, _, asked = self.query(index)
        return sequence.rgb[asked]
