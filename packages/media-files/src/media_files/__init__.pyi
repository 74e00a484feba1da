"""Photos and videos as people have them: any kind of pixels in, RGB out, and back into files."""

from .errors import InputError as InputError
from .errors import TruncatedVideoError as TruncatedVideoError
from .masks import mask_plane as mask_plane
from .masks import read_mask as read_mask
from .photos import image_files as image_files
from .photos import image_size as image_size
from .photos import open_image as open_image
from .photos import read_photo as read_photo
from .photos import save_image as save_image
from .video_writer import VideoWriter as VideoWriter
from .video_writer import write_video as write_video
from .videos import VideoInfo as VideoInfo
from .videos import read_frames as read_frames
from .videos import read_info as read_info
from .videos import read_pictures as read_pictures
from .videos import read_timed_frames as read_timed_frames
