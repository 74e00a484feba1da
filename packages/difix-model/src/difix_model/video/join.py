"""Join the pieces of a video into one file, with the sound, chapters and titles of the video that it was made from."""

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from difix_model.errors import InputError
from difix_model.video.segments import Segment
from media_files.video_encoder import PictureFormat, av_module
from media_files.videos import open_video

MP4_SUFFIXES = (".mp4", ".mov", ".m4v")

SOUND_CODECS = {".webm": "libopus"}
"""What sound is coded as again where a container does not take it as it is; otherwise AAC."""


def join_segments(
    segments: Sequence[Segment],
    folder: Path,
    kind: PictureFormat,
    out: Path,
    *,
    source: Path | None = None,
    until: Fraction | None = None,
) -> str | None:
    """Write all pieces into one file, which appears at its place once it is complete. Nothing is coded again.

    Args:
        segments: The pieces, in order.
        source: Video to take sound, chapters and titles from. Sound is copied; where the container does not take it,
            it is coded again.
        until: Leave out sound from this time on, in seconds, as pictures end there.

    Returns:
        A sentence on what could not be kept as it was; None if all is well.
    """
    av = av_module()
    partial = out.with_name(f".{out.stem}.partial-{os.getpid()}{out.suffix}")
    options = {}
    if out.suffix.lower() in MP4_SUFFIXES:
        # The start of a track is rounded to the movie's time scale, so that it must be as fine as the pictures'.
        options = {"movie_timescale": str(_time_scale(kind.time_base)), "movflags": "+faststart"}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # The suffix decides, but this one is FFmpeg's for a bare stream.
        name = "mp4" if out.suffix.lower() == ".m4v" else None
        with av.open(str(partial), "w", format=name, options=options) as container:
            said = _write(container, segments, folder, kind, out, source, until)
        partial.replace(out)
    except (OSError, ValueError, av.FFmpegError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return said


def _write(
    container: Any,
    segments: Sequence[Segment],
    folder: Path,
    kind: PictureFormat,
    out: Path,
    source: Path | None,
    until: Fraction | None,
) -> str | None:
    av = av_module()
    with av.open(str(folder / segments[0].name)) as first:
        pictures = container.add_stream_from_template(first.streams.video[0])
    pictures.time_base = kind.time_base
    if kind.aspect is not None:
        pictures.sample_aspect_ratio = kind.aspect
    if source is None:
        for packet in _picture_packets(segments, folder, kind, pictures):
            container.mux(packet)
        return None
    with open_video(source) as given:
        container.metadata.update(_kept_titles(given.metadata))
        with suppress(ValueError, NotImplementedError, AttributeError):
            if until is None and given.chapters():
                container.set_chapters(given.chapters())
        sounds, said = _sound_streams(container, given, out)
        streams = [_picture_packets(segments, folder, kind, pictures)]
        if sounds:
            streams.append(_sound_packets(given, sounds, until))
        # The two are merged by time, as the container would hold back one of them otherwise.
        for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
        return said


def _picture_packets(segments: Sequence[Segment], folder: Path, kind: PictureFormat, stream: Any) -> Iterator[Any]:
    av = av_module()
    for segment in segments:
        with av.open(str(folder / segment.name)) as piece:
            # The last one is empty. Times are taken from the record: short pieces have no decoding times.
            packets = (packet for packet in piece.demux(video=0) if packet.size)
            for packet, pts, duration in zip(packets, segment.pts, segment.durations, strict=True):
                packet.time_base = kind.time_base
                packet.pts = packet.dts = pts
                packet.duration = duration
                packet.stream = stream
                yield packet


def _sound_streams(container: Any, given: Any, out: Path) -> tuple[dict[int, Any], str | None]:
    """Return what each of the source's sound tracks becomes: a stream, or a `_SoundCoder`."""
    sounds: dict[int, Any] = {}
    said = None
    for sound in given.streams.audio:
        name = sound.codec_context.name if sound.codec_context else "unknown"
        try:
            sounds[sound.index] = container.add_stream_from_template(sound)
            sounds[sound.index].metadata.update(_kept_titles(sound.metadata))
        except (ValueError, av_module().FFmpegError):
            codec = SOUND_CODECS.get(out.suffix.lower(), "aac")
            try:
                sounds[sound.index] = _SoundCoder(container, sound, codec)
                said = f"the sound ({name}) was coded again as {codec.removeprefix('lib')}, for {out.suffix} files"
            except (ValueError, av_module().FFmpegError):
                said = f"the sound ({name}) could not be kept in a {out.suffix} file"
    return sounds, said


class _SoundCoder:
    """Decodes a sound track and codes it again."""

    def __init__(self, container: Any, sound: Any, codec: str) -> None:
        rate = 48_000 if codec == "libopus" else sound.rate
        layout = "stereo" if sound.layout.nb_channels > 1 else "mono"
        self.stream = container.add_stream(codec, rate=rate, layout=layout)
        self._resampler = av_module().AudioResampler(
            format=self.stream.codec_context.format, layout=layout, rate=rate,
            frame_size=self.stream.codec_context.frame_size or 1024,
        )  # fmt: skip

    def coded(self, packet: Any) -> Iterator[Any]:
        """Yield what a packet of the source becomes; an empty one ends the track."""
        frames = [None] if packet is None else packet.decode()
        for frame in frames:
            for resampled in self._resampler.resample(frame):
                yield from self.stream.encode(resampled)
        if packet is None:
            yield from self.stream.encode(None)


def _sound_packets(given: Any, sounds: dict[int, Any], until: Fraction | None) -> Iterator[Any]:
    streams = [given.streams[index] for index in sounds]
    try:
        for packet in given.demux(streams):
            if packet.dts is None or packet.is_corrupt:
                continue
            if until is not None and (packet.pts or packet.dts) * packet.time_base >= until:
                break
            target = sounds[packet.stream.index]
            if isinstance(target, _SoundCoder):
                yield from target.coded(packet)
            else:
                packet.stream = target
                yield packet
    except av_module().FFmpegError:
        # A damaged end of the source: the sound before it is kept, as the pictures are.
        pass
    for target in sounds.values():
        if isinstance(target, _SoundCoder):
            yield from target.coded(None)


def _kept_titles(metadata: dict[str, str]) -> dict[str, str]:
    """Everything but what describes the old file's container."""
    dropped = ("major_brand", "minor_version", "compatible_brands", "encoder")
    return {key: value for key, value in metadata.items() if key.lower() not in dropped}


def _time_scale(time_base: Fraction) -> int:
    scale = time_base.denominator
    while scale < 10_000:
        scale *= 2
    return scale
