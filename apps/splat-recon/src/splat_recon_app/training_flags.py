"""The flags of `train` that say how Gaussians are trained. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from output_files import check_range

Preset = Literal["default", "mcmc", "antialiased", "absgrad"]


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """How Gaussians are trained."""

    preset: Preset = "default"
    """default: gsplat's duplicating, splitting and pruning. mcmc: Markov chain Monte Carlo up to --max-gaussians.
    antialiased: default with Mip-Splatting's compensation. absgrad: default, grown by absolute gradients."""

    antialiased: bool = False
    """Mip-Splatting's compensation with any preset."""

    sh_degree: int = 3
    """Highest degree of the view-dependent color, 0 to 3."""

    random_background: bool = False
    """Train before random backgrounds, which keeps surfaces opaque; for photos without transparent parts."""

    background: tuple[float, float, float] | None = None
    """Color behind everything, three values in [0, 1]. Left out: the mean color of up to twelve training photos (or the
    one color that a quarter of their pixels has), else black."""

    opacity_reg: float | None = None
    """Weight of the mean opacity in the loss. Left out: 0.01 with mcmc and for up to twelve training photos, else 0."""

    scale_reg: float | None = None
    """Weight of the mean scale in the loss. Left out: 0.01 with mcmc and for up to twelve training photos, else 0."""

    refine_poses: bool = False
    """Correct the poses of the training photos on the way; test photos keep theirs."""

    appearance: Literal["none", "exposure", "bilateral"] = "none"
    """For photos that differ in exposure or tone: an affine color map per photo, or a grid of them."""

    stereo: Literal["auto", "on", "off"] = "auto"
    """Start from points of stereo between the training photos beside those of structure from motion. auto: with up to
    twelve training photos; on: with any number. Where nothing is believed, training starts as without."""

    depth_weight: float = 0.0
    """Weight of the disparities of structure-from-motion points in the loss; 0.01 is gsplat's, 0 leaves them out."""

    dropout: float | None = None
    """Share of the Gaussians that the last step leaves out at random, growing from 0. Left out: 0.1 for up to twelve
    training photos, which it helps to keep from being overfitted, else 0."""

    batch_size: int = 1
    """Photos per step; learning rates grow with its square root."""

    packed: bool = False
    """CUDA only: gsplat's packed mode, slower and smaller."""

    sparse_grad: bool = False
    """CUDA only, with --packed: sparse gradients and torch's SparseAdam."""

    visible_adam: bool = False
    """CUDA only: gsplat's SelectiveAdam, which updates visible Gaussians only."""

    def __post_init__(self) -> None:
        if self.sh_degree not in range(4):
            raise ValueError(f"--sh-degree must be 0, 1, 2 or 3, got {self.sh_degree}")
        check_range(self, "at least 1", "batch_size", prefix="--")
        check_range(self, "zero or more", "opacity_reg", "scale_reg", "depth_weight", prefix="--", finite=True)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must be zero or more and below 1, got {self.dropout}")
        if self.sparse_grad and (not self.packed or self.visible_adam):
            raise ValueError("--sparse-grad needs --packed, and does not go with --visible-adam")
