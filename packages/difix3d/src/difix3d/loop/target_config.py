"""Where novel views go: the choices; no torch here, so that command lines answer at once."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AroundTargets:
    """Novel views go to places between neighboring captured views: no test pose is needed or used."""

    num_views: int = 16
    """How many targets. Released code: one per test view."""

    num_neighbors: int = 2
    """A target lies between a captured view and one of this many nearest other captured views."""

    jitter: float = 0.1
    """Spread (standard deviation, per axis) of the targets' centers about the straight line between the two views, as
    a fraction of the distance between them."""

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.num_neighbors < 1:
            raise ValueError(
                f"num_views and num_neighbors must be at least 1, got {self.num_views} and {self.num_neighbors}"
            )
        if not 0 <= self.jitter < float("inf"):
            raise ValueError(f"jitter must be at least 0 and finite, got {self.jitter}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpreadTargets:
    """Novel views lie far from the captured ones: two thirds between neighboring views, a third around them."""

    num_views: int = 60
    """How many."""

    num_neighbors: int = 2
    """A captured view's neighbors are so many of the nearest others."""

    max_angle_degrees: float = 75.0
    """Views whose directions differ by more are no neighbors."""

    shift: float = 0.125
    """Spread (standard deviation, per axis) of the centers, as a fraction of the scene's extent."""

    turn_degrees: float = 4.0
    """Spread (standard deviation, per axis) of the rotations."""

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.num_neighbors < 1:
            raise ValueError(
                f"num_views and num_neighbors must be at least 1, got {self.num_views} and {self.num_neighbors}"
            )
        if not (0 <= self.shift < float("inf") and 0 <= self.turn_degrees <= 180):
            raise ValueError(
                f"shift must be at least 0 and turn_degrees in [0, 180], got {self.shift} and {self.turn_degrees}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PathTargets:
    """Novel views go to an evenly spaced path through the captured views, from neighbor to neighbor."""

    num_views: int = 16
    """How many targets along the path."""

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {self.num_views}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OrbitTargets:
    """Novel views go to a circle about what the captured views look at, upright as they are."""

    num_views: int = 16
    """How many targets, evenly around."""

    def __post_init__(self) -> None:
        _check_num_views(self.num_views)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpiralTargets:
    """Novel views go to a spiral in front of the scene, for captures that all look one way."""

    num_views: int = 16
    """How many targets along the spiral."""

    def __post_init__(self) -> None:
        _check_num_views(self.num_views)


@dataclass(frozen=True, kw_only=True, slots=True)
class PerturbedTargets:
    """Novel views go to places beside the captured views, each in turn, in random directions."""

    num_views: int = 16
    """How many targets."""

    shift: float = 0.15
    """Distance of a target's center from its captured view, as a fraction of the scene's extent."""

    turn_degrees: float = 5.0
    """Angle between a target and its captured view, about a random axis."""

    def __post_init__(self) -> None:
        _check_num_views(self.num_views)
        if not (0 <= self.shift < float("inf") and 0 <= self.turn_degrees <= 180):
            raise ValueError(
                f"shift must be at least 0 and turn_degrees in [0, 180], got {self.shift} and {self.turn_degrees}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FileTargets:
    """Novel views go to the cameras of a file, in the frame of the scene's COLMAP folder."""

    path: str
    """A camera path file, transforms.json, or a folder with a COLMAP model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutTargets:
    """Novel views go to the poses of the test photos, as in the released code.

    The photos stay unseen, their poses do not: figures on the same test views then say how good the splat is at
    places that it was trained for.
    """


Targets = (
    AroundTargets
    | SpreadTargets
    | PathTargets
    | OrbitTargets
    | SpiralTargets
    | PerturbedTargets
    | FileTargets
    | HeldOutTargets
)


def _check_num_views(num_views: int) -> None:
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
