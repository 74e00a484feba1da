"""The epipolar feature transformer (EFT): what a query camera sees, from posed photos of the object.

Every point on a query ray is projected into the photos. Three transformers then attend, in turn, over the photos
(per point), over the points on the ray (per photo) and over the photos again (per ray).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sparsefusion.cameras import Cameras, grid_rays
from sparsefusion.config import EftConfig
from sparsefusion.embeddings import harmonic, pluecker
from sparsefusion.resnet import ResNet18Encoder


class SetTransformer(nn.Module):
    """A linear layer with GELU, then transformer layers with one head, normalized after each part."""

    def __init__(self, channels_in: int, hidden: int, num_layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.Linear(channels_in, hidden), nn.GELU())
        layer = nn.TransformerEncoderLayer(hidden, nhead=1, dim_feedforward=hidden, dropout=dropout)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def forward(self, x: Float[Tensor, "s b i"]) -> Float[Tensor, "s b o"]:
        """Let the elements of every set attend to each other; sets lie along the second axis."""
        return self.encoder(self.pre(x))


@dataclass(frozen=True)
class EncodedViews:
    """Photos with their cameras and feature maps, ready to be projected into."""

    cameras: Cameras
    """Cameras of the photos, in the world."""

    features: Float[Tensor, "v c h w"]
    """Feature maps."""

    images: Float[Tensor, "v 3 y x"]
    """The photos in [0, 1], black where the object is not."""


@dataclass(frozen=True)
class EftOutput:
    """What the transformer says about a grid of rays."""

    rgb: Float[Tensor, "h w 3"]
    """Colors in [0, 1]."""

    features: Float[Tensor, "h w c"]
    """Features that condition the diffusion model."""

    def images(self, size: int) -> Float[Tensor, "1 3 s s"]:
        """The colors as an image, upsampled bilinearly."""
        return _upsample(self.rgb, size)

    def feature_maps(self, size: int) -> Float[Tensor, "1 c s s"]:
        """The features as maps, upsampled bilinearly."""
        return _upsample(self.features, size)


def _upsample(grid: Float[Tensor, "h w c"], size: int) -> Float[Tensor, "1 c s s"]:
    maps = rearrange(grid, "h w c -> 1 c h w")
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class RayEmbeddings:
    """Where points are, in the transformer's terms; flattened rays."""

    query: Float[Tensor, "r e"]
    """Embedded lines of the query rays."""

    reference: Float[Tensor, "v r p e"]
    """Embedded lines from the photos' cameras to the points."""

    depth: Float[Tensor, "r p d"]
    """Embedded depths of the points."""

    sampled: Float[Tensor, "v r p f"]
    """Features and colors of the photos where the points project to."""


class EpipolarTransformer(nn.Module):
    """The published transformer at any size.

    In train mode the ResNet normalizes with statistics of the photos it is given, and layers drop features at random;
    this is how the published results were made. In eval mode running statistics are used and nothing is dropped.
    """

    def __init__(self, config: EftConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EftConfig()
        line = 6 * (2 * config.num_octaves + 1)
        depth = 2 * config.num_octaves + 1
        sampled = config.encoder_features + 3
        hidden, layers, dropout = config.hidden, config.num_layers, config.dropout
        self.encoder_model = ResNet18Encoder(config.encoder_width, with_tail=config.encoder_tail)
        self.t1 = SetTransformer(line + depth + sampled, hidden, layers, dropout)
        self.t2 = SetTransformer(2 * line + depth + hidden, hidden, layers, dropout)
        self.t3 = SetTransformer(2 * line + hidden, hidden, layers, dropout)
        self.t2_attn = nn.Linear(hidden, 1)
        self.t3_attn = nn.Linear(hidden, 1)
        self.color_layer = nn.Sequential(nn.Linear(hidden, 3), nn.Sigmoid())

    def encode(self, images: Float[Tensor, "v 3 h w"], cameras: Cameras) -> EncodedViews:
        """Feature maps of photos.

        Args:
            images: Photos in [0, 1], black where the object is not.
            cameras: Their cameras, in the world.
        """
        stages = self.encoder_model(images)
        size = stages[0].shape[-2:]
        maps = [functional.interpolate(stage, size=size, mode="bilinear", align_corners=True) for stage in stages]
        return EncodedViews(cameras, torch.cat(maps, dim=1), images)

    def forward(
        self,
        views: EncodedViews,
        query: Cameras,
        depths: tuple[float, float],
        num: int = 32,
        *,
        image_size: int = 256,
        max_rays: int = 1024,
    ) -> EftOutput:
        """Colors and features of a grid of rays of one query camera.

        Args:
            query: One camera, in the photos' world.
            depths: Depths of the nearest and the farthest point on a ray, as `depth_range` gives for all cameras of
                the scene.
            num: Rays per side.
            image_size: Side of the image whose pixel centers the grid spans (see `EftConfig.centered_rays`).
            max_rays: Rays per call of the transformers; bounds the memory.
        """
        parts = [
            self.at_rays(views, query, depths, num, chosen, image_size=image_size)
            for chosen in torch.arange(num * num, device=query.R.device).split(max_rays)
        ]
        rgb, features = (torch.cat(part) for part in zip(*parts, strict=True))
        return EftOutput(rearrange(rgb, "(h w) c -> h w c", h=num), rearrange(features, "(h w) c -> h w c", h=num))

    def at_rays(
        self,
        views: EncodedViews,
        query: Cameras,
        depths: tuple[float, float],
        num: int,
        chosen: Int[Tensor, " r"],
        *,
        image_size: int = 256,
    ) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r c"]]:
        """Colors and features of chosen rays of the grid, counted row by row; see `forward`."""
        relative = EncodedViews(views.cameras.relative_to(query, "camera"), views.features, views.images)
        span = num if self.config.centered_rays else image_size
        rays = grid_rays(query.relative_to(query, "camera"), num, span)
        origins, directions = (
            rearrange(part, "1 h w c -> (h w) c")[chosen] for part in (rays.origins, rays.directions)
        )
        points = torch.linspace(*depths, self.config.num_depths, device=origins.device)
        return self.attend(self.embed(relative, origins, directions, points))

    def embed(
        self,
        views: EncodedViews,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        depths: Float[Tensor, " p"],
    ) -> RayEmbeddings:
        """Lines, depths and what the photos show at the points; everything in the query camera's frame."""
        octaves = self.config.num_octaves
        points = origins[:, None] + depths[:, None] * directions[:, None]
        ndc = views.cameras.project(rearrange(points, "r p c -> (r p) c"))
        grid = rearrange(-ndc, "v n c -> v n 1 c")
        sampled = [
            rearrange(
                functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True),
                "v c (r p) 1 -> v r p c",
                r=len(origins),
            )
            for maps in (views.features, views.images)
        ]
        centers = views.cameras.centers[:, None, None]
        lines = pluecker(centers, points - centers)
        depth = repeat(harmonic(depths[:, None], octaves), "p d -> r p d", r=len(origins))
        return RayEmbeddings(
            query=harmonic(pluecker(origins, directions), octaves),
            reference=harmonic(lines, octaves),
            depth=depth,
            sampled=torch.cat(sampled, dim=-1),
        )

    def attend(self, embedded: RayEmbeddings) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r c"]]:
        """Colors and features of rays, from the embeddings of their points."""
        num_views, num_rays, num_points, _ = embedded.reference.shape
        depth = repeat(embedded.depth, "r p d -> v r p d", v=num_views)
        query = repeat(embedded.query, "r e -> v r p e", v=num_views, p=num_points)

        over_views = rearrange(torch.cat([embedded.reference, depth, embedded.sampled], dim=-1), "v r p c -> v (r p) c")
        points = rearrange(self.t1(over_views), "v (r p) c -> v r p c", r=num_rays)

        over_points = rearrange(torch.cat([query, embedded.reference, depth, points], dim=-1), "v r p c -> p (v r) c")
        points = self.t2(over_points)
        weights = torch.softmax(self.t2_attn(points), dim=0)
        rays = rearrange((weights * points).sum(dim=0), "(v r) c -> v r c", v=num_views)

        middle = embedded.reference[:, :, num_points // 2]
        rays = self.t3(torch.cat([query[:, :, 0], middle, rays], dim=-1))
        weights = torch.softmax(self.t3_attn(rays), dim=0)
        features = (weights * rays).sum(dim=0)
        return self.color_layer(features), features
