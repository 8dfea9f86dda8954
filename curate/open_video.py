"""Open footage that nobody vouches for: containers that hold their own media, of a size that can be decoded.

    container, stream = open_video("film.mov", threads=1)

FFmpeg also opens playlists, lists of files and image patterns, which name other files and addresses; those are
refused, and so are pictures too large to be footage.
"""

from __future__ import annotations

import os
from typing import IO

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.video.stream import VideoStream

from curate.errors import BadInput

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,vvc,m4v,av1,obu,ivf,flv,"
    "live_flv,asf,asf_o,ogg,mxf,gif,dv,nut,rm,wtv,vc1,yuv4mpegpipe,cavsvideo,dirac,dnxhd,mjpeg,h261,h263"
)
MAX_PIXELS = str(1 << 27)  # of a coded picture: 16k video; a still of 16k x 16k is a bomb
_CONTAINER_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": CONTAINERS,
    "max_pixels": MAX_PIXELS,
}
# explode: damage in a picture is an error, not something to conceal.
_DECODER_OPTIONS = {"err_detect": "explode", "max_pixels": MAX_PIXELS}
_NOT_LISTED = (
    ". Playlists, still pictures and lists of files are not opened; a container that holds its own media is."
)
_ATTACHED = av.stream.Disposition.attached_pic


def open_video(path: str | IO[bytes], *, threads: int = 1) -> tuple[InputContainer, VideoStream]:
    """The open container of a local file (or of a file object), and its first video stream that is no cover picture.

    Raises BadInput when it cannot be opened or has no picture.
    """
    # A bare name could read as a protocol, such as concat:a|b.
    try:
        source: str | IO[bytes] = os.path.abspath(path) if isinstance(path, str) else path
        if not isinstance(source, str):
            source.seek(0)  # it may have been read before
        container = av.open(source, "r", options=_CONTAINER_OPTIONS, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        remedy = _NOT_LISTED if isinstance(error, ArgumentError) else ""
        raise BadInput(f"not a readable video: {error}{remedy}") from error
    streams = [s for s in container.streams.video if not (s.disposition & _ATTACHED)]
    if not streams or not streams[0].codec_context:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no"
        container.close()
        raise BadInput(
            "the video is in a codec that FFmpeg cannot decode"
            if streams
            else f"no video stream (the file holds {kinds} streams only)"
        )
    stream = streams[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    stream.codec_context.options = _DECODER_OPTIONS
    return container, stream
