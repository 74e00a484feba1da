"""A set of posed images to train on, sampled epoch by epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from splat_recon.scene.photo_store import StoredView
from splat_recon.scene.scene import View
from splat_render.cameras import Camera
from splat_render.cpu.recycling import RECYCLER
from splat_render.upload import constant

if TYPE_CHECKING:
    from splat_recon.views.mixture import ViewMixture


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingView:
    """One image to train on, with its camera and how much it counts.

    Raises:
        ValueError: Image, pixel weights and camera do not have one size, or the weight is negative or not finite.
    """

    camera: Camera
    """Where the image was taken or rendered."""

    rgb: Float[Tensor, "h w 3"]
    """The image to reach, sRGB in [0, 1]."""

    weight: float = 1.0
    """Factor of the loss at steps that use this view, >= 0."""

    pixel_weight: Float[Tensor, "h w"] | None = None
    """Weight of each pixel in the loss, >= 0; 0 leaves a pixel out. None means 1 everywhere."""

    name: str = ""
    """The photo's name in its scene, by which what is learned per photo (pose, exposure, depths) is found; empty for
    images that are no photos."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if tuple(self.rgb.shape) != (*size, 3):
            raise ValueError(
                f"expected an image of shape {(*size, 3)} (its camera's size), got {tuple(self.rgb.shape)}"
            )
        if self.pixel_weight is not None and tuple(self.pixel_weight.shape) != size:
            raise ValueError(f"expected pixel weights of shape {size}, got {tuple(self.pixel_weight.shape)}")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be finite and at least 0, got {self.weight}")

    def rgb_on(self, device: str | torch.device) -> Float[Tensor, "h w 3"]:
        """The image on a device."""
        return self.rgb.to(device)

    def prefetch(self) -> None:
        """Start to make the image in the background, where it is not in memory; the next step will want it."""

    @classmethod
    def from_view(cls, view: View, *, weight: float = 1.0) -> "PhotoTrainingView":
        """A photo as a training view: bytes to [0, 1], the mask as pixel weights of 0 and 1."""
        return PhotoTrainingView(view=view, camera=view.camera, weight=weight, name=view.name)


class _Given:
    """What a training view was given for a tensor, or what its photo says where it was given nothing.

    A descriptor for a dataclass field: read from the class it is the field's default, None.
    """

    def __init__(self, from_photo: Callable[[View], Tensor | None]) -> None:
        self._from_photo = from_photo

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, view: "PhotoTrainingView | None", owner: type) -> Any:
        if view is None:
            return None
        given = view.__dict__.get(self._name)
        return self._from_photo(view.view) if given is None else given

    def __set__(self, view: "PhotoTrainingView", value: Tensor | None) -> None:
        view.__dict__[self._name] = value


def _rgb(view: View) -> Float[Tensor, "h w 3"]:
    return torch.tensor(view.rgb_u8, dtype=torch.float32) / 255.0


def rgb_from_bytes(rgb_u8: UInt8[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """Bytes as floats in [0, 1], the same ones on every device.

    CUDA divides by a Python number by multiplying with its reciprocal, which differs in the last bit for half of the
    bytes; it divides by a tensor.
    """
    return rgb_u8.to(torch.float32) / constant((255.0,), rgb_u8.device)


def _pixel_weight(view: View) -> Float[Tensor, "h w"] | None:
    return None if view.mask is None else torch.tensor(view.mask, dtype=torch.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotoTrainingView(TrainingView):
    """A photo to train on: bytes become floats at each look, and are read from disk then if need be.

    It holds no pixels of its own, so a set of these costs what the views cost. Pixel weights may be given in place of
    the photo's mask.
    """

    rgb: Any = _Given(_rgb)
    """The photo, sRGB in [0, 1]."""

    pixel_weight: Any = _Given(_pixel_weight)
    """The mask as weights of 0 and 1, None where the photo has none, unless weights were given."""

    view: View
    """The photo and its camera."""

    def __post_init__(self) -> None:
        """Checks what was given; a photo has its camera's size."""
        if self.given:
            TrainingView.__post_init__(self)
        elif not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be finite and at least 0, got {self.weight}")

    def rgb_on(self, device: str | torch.device) -> Float[Tensor, "h w 3"]:
        """The image on a device; a photo travels as bytes and becomes floats there."""
        if self.__dict__["rgb"] is not None:
            return self.rgb.to(device)
        if torch.device(device).type == "cpu":
            rgb = RECYCLER.empty(self.view.rgb_u8.shape)
            return torch.from_numpy(np.divide(self.view.rgb_u8, np.float32(255), out=rgb, dtype=np.float32))
        return rgb_from_bytes(torch.tensor(self.view.rgb_u8, device=device))

    @property
    def given(self) -> frozenset[str]:
        """Which of `rgb` and `pixel_weight` were given in place of the photo's."""
        return frozenset(name for name in ("rgb", "pixel_weight") if self.__dict__[name] is not None)

    def prefetch(self) -> None:
        """Start to decode the photo in the background, if it is not held."""
        if isinstance(self.view, StoredView):
            self.view.prefetch()


class ViewSet:
    """Views that are drawn without replacement: every view once per epoch, each epoch in a new random order.

    The position in the current epoch is state: save it with `state_dict` next to the generator's own state, and the
    sequence of views continues exactly.
    """

    def __init__(self, views: Sequence[TrainingView]) -> None:
        self.views: tuple[TrainingView, ...] = tuple(views)
        if not self.views:
            raise ValueError("a view set needs at least one view")
        self._order: list[int] = []
        self._position = 0

    @classmethod
    def from_views(cls, views: Sequence[View], *, weight: float = 1.0) -> "ViewSet":
        """A set of photos that all count the same."""
        return cls([TrainingView.from_view(view, weight=weight) for view in views])

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[TrainingView]:
        return iter(self.views)

    def sample(self, generator: torch.Generator) -> TrainingView:
        """The next view of the epoch; at the start of an epoch the generator gives the order of all of it."""
        if self._position >= len(self._order):
            self._order = torch.randperm(len(self.views), generator=generator).tolist()
            self._position = 0
        view = self.views[self._order[self._position]]
        self._position += 1
        if self._position < len(self._order):
            self.views[self._order[self._position]].prefetch()
        return view

    def mixed_with(self, other: "ViewSet", other_prob: float) -> "ViewMixture":
        """A mixture that takes `other` with this probability and this set otherwise; both keep their positions."""
        from splat_recon.views.mixture import ViewMixture

        return ViewMixture((self, other), (1.0 - other_prob, other_prob))

    def state_dict(self) -> dict[str, Any]:
        """The current epoch: its order and the position in it, as lists and numbers."""
        return {"num_views": len(self.views), "order": list(self._order), "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue an epoch that `state_dict` recorded.

        Raises:
            ValueError: The state is of a set with another number of views, or is not a state at all.
        """
        if set(state) != {"num_views", "order", "position"}:
            raise ValueError(f"not the state of a view set: its entries are {sorted(state)}")
        if state["num_views"] != len(self.views):
            raise ValueError(f"the state is of a set of {state['num_views']} views, this set has {len(self.views)}")
        order, position = [int(index) for index in state["order"]], int(state["position"])
        if (order and sorted(order) != list(range(len(self.views)))) or not 0 <= position <= len(order):
            raise ValueError("the state's order is not a permutation of the views, or its position lies outside")
        self._order, self._position = order, position
