"""Names of splat-render that a user of this library needs."""

from splat_render import Camera as Camera
from splat_render import Gaussians as Gaussians
from splat_render import Rasterizer as Rasterizer
from splat_render import RenderConfig as RenderConfig
from splat_render import RenderOutput as RenderOutput
from splat_render import RenderStats as RenderStats
from splat_render import SplatFile as SplatFile
from splat_render import make_rasterizer as make_rasterizer
from splat_render import read_ply as read_ply
from splat_render import read_splats as read_splats
from splat_render import transformed as transformed
from splat_render import write_ply as write_ply
from splat_render import write_splats as write_splats
