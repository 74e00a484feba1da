"""Text or one image to a 3D Gaussian splat."""

from .config import ElevEstConfig as ElevEstConfig
from .config import GenerationConfig as GenerationConfig
from .config import GSReconConfig as GSReconConfig
from .denoiser import MultiViewControlNet as MultiViewControlNet
from .denoiser import MultiViewDenoiser as MultiViewDenoiser
from .denoiser import TextCondition as TextCondition
from .elevest import ElevEst as ElevEst
from .errors import InputError as InputError
from .gsrecon import GSRecon as GSRecon
from .gsvae import GSVAE as GSVAE
from .pipeline import DiffSplatPipeline as DiffSplatPipeline
from .pipeline import GeneratedSplat as GeneratedSplat
from .pipeline import PipelineParts as PipelineParts
from .splat_grids import ActiveGaussians as ActiveGaussians
from .splat_grids import SplatGrids as SplatGrids
from .splat_grids import activated as activated
