"""Gaussian splats: what they are, how a camera sees them, and the files that hold them; on a CPU or on CUDA."""

from .cameras import Camera as Camera
from .config import RenderConfig as RenderConfig
from .device import chosen_device as chosen_device
from .errors import InputError as InputError
from .files.formats import SplatFile as SplatFile
from .files.formats import read_splats as read_splats
from .files.formats import write_splats as write_splats
from .files.ply import read_ply as read_ply
from .files.ply import write_ply as write_ply
from .gaussians import Gaussians as Gaussians
from .output import RenderBatch as RenderBatch
from .output import RenderOutput as RenderOutput
from .output import RenderStats as RenderStats
from .rasterizer import Rasterizer as Rasterizer
from .rasterizer import make_rasterizer as make_rasterizer
from .rasterizer import rasterize as rasterize
from .transform import transformed as transformed
