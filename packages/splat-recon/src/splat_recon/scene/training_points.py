"""The points that a training may start from where photos are held out.

Structure from motion is run on all photos, those that are held out included. A point that only they know of would carry
what they show into the training: measured on five scenes with six training photos it is worth 0.9 dB on the test
photos in the mean. So a training starts from the points that at least two of its photos see. Their positions, the
cameras and the scene's frame still come from all photos.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from splat_recon.config import MIN_GAUSSIANS
from splat_recon.scene.scene import Scene

MIN_PHOTOS = 2
"""A point is triangulated from at least so many photos."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPoints:
    """How many of a scene's points a training starts from."""

    num_kept: int
    """Points that it starts from."""

    num_all: int
    """Points of the scene."""

    num_train: int
    """Training photos."""

    num_views: int
    """Photos of the scene."""

    num_tracked: int
    """Points of which it is known which photos see them."""

    at_random: bool = False
    """Whether they were drawn at random, for a scene that brings none."""

    @property
    def may_leak(self) -> bool:
        """Whether some points may be known from test photos only."""
        untracked = self.num_all > 0 and not self.num_tracked and not self.at_random
        return self.num_train < self.num_views and untracked

    def log(self) -> None:
        """Say it, as a warning where points may leak."""
        logger.log(logging.WARNING if self.may_leak else logging.INFO, "%s", self.sentence())

    def sentence(self) -> str:
        """For a log and a report."""
        if self.at_random:
            return f"The scene brings no points: training starts from {self.num_all} that are drawn at random."
        too_few = f" Fewer than {MIN_GAUSSIANS} tell nothing: Gaussians are drawn at random instead."
        return self._of_scene() + (too_few if self.num_kept < MIN_GAUSSIANS else "")

    def _of_scene(self) -> str:
        """How many of the scene's own points there are."""
        if self.num_train == self.num_views:
            return f"Training starts from all {self.num_all} points: no photo is held out."
        if self.may_leak:
            return (
                f"Training starts from all {self.num_all} points. The scene does not say which photos see them, so "
                "some may be known from test photos only: scores on these may be too good."
            )
        sentence = (
            f"Training starts from {self.num_kept} of {self.num_all} points: those that {MIN_PHOTOS} of the "
            f"{self.num_train} training photos see."
        )
        unknown = self.num_all - self.num_tracked
        return f"{sentence} Of {unknown} of them it is not known which photos see them." if unknown else sentence


def with_training_points(scene: Scene, train_names: Collection[str]) -> tuple[Scene, TrainingPoints]:
    """The scene with the points that two of the training photos see.

    Where all photos train, nothing is left out. Points of which `Points.seen_in` says nothing (they were given without
    tracks, or come from the training photos by other means) stay.

    Args:
        scene: In any frame.

    Raises:
        KeyError: The scene has no view of a name.
    """
    train = {scene.view(name).name for name in train_names}
    num_all = len(scene.points)
    num_seeing, tracked = np.zeros(num_all, dtype=np.int64), np.zeros(num_all, dtype=bool)
    for name, idx in scene.points.seen_in.items():
        tracked[idx] = True
        if name in train:
            num_seeing[idx] += 1
    kept = (num_seeing >= MIN_PHOTOS) | ~tracked
    if len(train) == len(scene.views):
        kept[:] = True
    facts = TrainingPoints(
        num_kept=int(kept.sum()),
        num_all=num_all,
        num_train=len(train),
        num_views=len(scene.views),
        num_tracked=int(tracked.sum()),
        at_random=scene.points.at_random,
    )
    return (scene if kept.all() else dataclasses.replace(scene, points=scene.points.selected(kept))), facts
