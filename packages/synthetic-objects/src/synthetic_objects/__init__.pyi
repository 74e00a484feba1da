"""Objects made of simple solids, with captions, and the pictures that any camera takes of them."""

from .cameras import FOCAL as FOCAL
from .cameras import RADIUS as RADIUS
from .cameras import intrinsics as intrinsics
from .cameras import orbit_pose as orbit_pose
from .cameras import orbit_rig as orbit_rig
from .captions import caption_of as caption_of
from .captions import parse_caption as parse_caption
from .errors import InputError as InputError
from .maps import ObjectMaps as ObjectMaps
from .objects import HELD_OUT_SEED as HELD_OUT_SEED
from .objects import GeneratedObject as GeneratedObject
from .objects import ObjectConfig as ObjectConfig
from .objects import Part as Part
from .objects import sample_object as sample_object
from .raycast import ray_cast as ray_cast
from .vocabulary import COLORS as COLORS
from .vocabulary import MATERIALS as MATERIALS
from .vocabulary import RELATIONS as RELATIONS
from .vocabulary import SHAPES as SHAPES
