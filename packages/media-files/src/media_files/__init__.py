"""Photos and videos as people have them: any kind of pixels in, RGB out, and back into files.

Names resolve when they are first used; videos need the extra `video` (PyAV), HEIC photos the extra `heic`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from media_files.errors import InputError, TruncatedVideoError
    from media_files.masks import mask_plane, read_mask
    from media_files.photos import image_files, image_size, open_image, read_photo, save_image
    from media_files.video_writer import VideoWriter, write_video
    from media_files.videos import VideoInfo, read_frames, read_info, read_pictures, read_timed_frames

_SUBMODULES = {
    "InputError": "errors",
    "TruncatedVideoError": "errors",
    "VideoInfo": "videos",
    "VideoWriter": "video_writer",
    "image_files": "photos",
    "image_size": "photos",
    "mask_plane": "masks",
    "open_image": "photos",
    "read_frames": "videos",
    "read_info": "videos",
    "read_mask": "masks",
    "read_photo": "photos",
    "read_pictures": "videos",
    "read_timed_frames": "videos",
    "save_image": "photos",
    "write_video": "video_writer",
}

__all__ = [
    "InputError",
    "TruncatedVideoError",
    "VideoInfo",
    "VideoWriter",
    "image_files",
    "image_size",
    "mask_plane",
    "open_image",
    "read_frames",
    "read_info",
    "read_mask",
    "read_photo",
    "read_pictures",
    "read_timed_frames",
    "save_image",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
