"""COLMAP's models, binary and text: read leniently, nothing of them lost without a word, and no pycolmap needed."""

from .camera_models import CAMERA_MODELS as CAMERA_MODELS
from .errors import InputError as InputError
from .folders import find_images as find_images
from .folders import find_model as find_model
from .folders import has_model as has_model
from .folders import has_parts as has_parts
from .model import read_images as read_images
from .model import read_model as read_model
from .names import shown as shown
from .records import ColmapModel as ColmapModel
from .records import ModelCamera as ModelCamera
from .records import ModelImage as ModelImage
from .records import ModelPoints as ModelPoints
