"""How close an image is to the truth, in one place for everything that is measured here. Imports no torch."""

from .lpips import LpipsMetric as LpipsMetric
from .lpips import lpips_network as lpips_network
from .lpips import make_lpips as make_lpips
from .similarity import MAX_PSNR as MAX_PSNR
from .similarity import Border as Border
from .similarity import flip as flip
from .similarity import psnr as psnr
from .similarity import ssim as ssim
from .similarity import ssim_map as ssim_map
