"""Clips without encoding: packets of the source moved into an mp4, where that gives exactly the clip's frames.

A span can be copied when its packets lie together in decoding order, begin with a keyframe that resets the
decoder, and are as many as the frames that were measured: no frame of a neighbour is carried along, none is
needed. Open GOPs, frames hidden by an edit list, cuts within a GOP, borders, rotation, wide pixels and
pictures that are not 8-bit 4:2:0 do not qualify; those clips are encoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError
from av.video.reformatter import ColorRange

from curate.cut_encode import AudioTrackCopy, encoded_size
from curate.cut_frames import TOLERANCE_S, Cursor
from curate.frames import Video, rotation_deg

if TYPE_CHECKING:
    from curate.cut import Span

CODECS = ("h264", "hevc", "av1", "vp9")
_H264_IDR, _H264_SLICE = 5, 1
_HEVC_IDR, _HEVC_LAST_SLICE = (19, 20), 31


@dataclass(frozen=True)
class _Packet:
    time_s: float
    resets: bool
    usable: bool  # shown, with timestamps, not marked corrupt


def copy_clips(
    video: Video,
    cursor: Cursor,
    path: str,
    spans: Sequence[Span],
    folder: str,
    audio_cut: Callable[[float, float], tuple[bytes | None, str | None]],
    max_height: int | None,
) -> list[dict]:
    """Copy what can be copied of `spans` (ascending); returns the facts of those clips, as cut_clips does."""
    raw = cursor.first_raw
    if raw is None or video.stream.codec_context.codec.canonical_name not in CODECS:
        return []
    plain = (
        rotation_deg(raw) == 0
        and video.sample_aspect == 1.0
        and raw.format.name == "yuv420p"
        and raw.color_range != ColorRange.JPEG
    )
    size = (raw.width, raw.height)
    whole = [span for span in spans if (span.w, span.h) == size and encoded_size(span, max_height) == size]
    if not plain or not whole:
        return []
    try:
        ranges = _ranges(list(_survey(path, video)), whole)
        return _copy(path, ranges, folder, audio_cut)
    except (FFmpegError, ValueError):
        return []  # a stream that cannot be taken apart is encoded


def _survey(path: str, video: Video) -> Iterator[_Packet]:
    """Every packet of the video, in decoding order."""
    base = video.stream.time_base
    first = video.first_pts or 0
    name = video.stream.codec_context.codec.canonical_name
    with Video(path) as source:
        for packet in source.container.demux(source.stream):
            if packet.size == 0:  # the end
                continue
            usable = not (packet.is_discard or packet.is_corrupt or packet.dts is None)
            usable = usable and packet.pts is not None and base is not None
            time_s = float(((packet.pts or 0) - first) * (base or 0)) if usable else -1.0
            resets = usable and packet.is_keyframe and _resets(name, bytes(packet))
            yield _Packet(time_s, resets, usable)


def _resets(codec: str, data: bytes) -> bool:
    """Whether a keyframe's packet forbids later ones to refer to what came before it."""
    if codec == "h264":
        kinds = [kind & 0x1F for kind in _nal_headers(data)]
        slices = [kind for kind in kinds if _H264_SLICE <= kind <= _H264_IDR]
        return bool(slices) and all(kind == _H264_IDR for kind in slices)
    if codec == "hevc":
        kinds = [(kind >> 1) & 0x3F for kind in _nal_headers(data)]
        slices = [kind for kind in kinds if kind <= _HEVC_LAST_SLICE]
        return bool(slices) and all(kind in _HEVC_IDR for kind in slices)
    return True  # keyframes of AV1 and VP9 reset everything


def _nal_headers(data: bytes) -> list[int]:
    """First bytes of the NAL units of a packet, with start codes (Annex B) or 4-byte lengths (mp4)."""
    if data.startswith((b"\0\0\1", b"\0\0\0\1")):
        return [part[0] for part in data.split(b"\0\0\1")[1:] if part]
    heads, place = [], 0
    while place + 5 <= len(data):
        heads.append(data[place + 4])
        place += 4 + int.from_bytes(data[place : place + 4], "big")
    return heads if place == len(data) else []


def _ranges(packets: list[_Packet], spans: Sequence[Span]) -> list[tuple[int, int, Span]]:
    """(first packet, packet after the last, span) of the spans that can be copied, ascending."""
    starts = {round(p.time_s, 3): place for place, p in enumerate(packets) if p.resets}
    found: list[tuple[int, int, Span]] = []
    for span in spans:
        first = starts.get(round(span.start_s, 3))
        if first is None or (found and first < found[-1][1]):
            continue
        end = first + span.n_frames
        inside = packets[first:end]
        times = sorted(p.time_s for p in inside)
        if (
            len(inside) == span.n_frames
            and all(p.usable for p in inside)
            and abs(times[0] - span.start_s) <= TOLERANCE_S
            and times[-1] < span.end_s - TOLERANCE_S
            and all(b > a for a, b in pairwise(times))
            # A later packet with a time inside the span would be a frame that is left out.
            and not any(
                span.start_s - TOLERANCE_S <= p.time_s < span.end_s - TOLERANCE_S
                for p in packets[end : end + 64]
            )
        ):
            found.append((first, end, span))
    return found


def _copy(
    path: str,
    ranges: list[tuple[int, int, Span]],
    folder: str,
    audio_cut: Callable[[float, float], tuple[bytes | None, str | None]],
) -> list[dict]:
    done = []
    with Video(path) as source:
        stream = source.stream
        numbered = enumerate(packet for packet in source.container.demux(stream) if packet.size)
        for first, end, span in ranges:
            target = os.path.join(folder, f"{span.clip_id}.mp4")
            m4a, audio_error = audio_cut(span.start_s, span.end_s)
            with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as out:
                copy = out.add_stream_from_template(stream)
                sound = AudioTrackCopy(out, m4a)
                start_pts: int | None = None
                for place, packet in numbered:
                    if place < first:
                        continue
                    assert packet.pts is not None
                    assert packet.dts is not None
                    start_pts = packet.pts if start_pts is None else start_pts
                    packet.pts -= start_pts
                    packet.dts -= start_pts
                    sound.mux_until(packet)
                    packet.stream = copy
                    out.mux(packet)
                    if place == end - 1:
                        break
                sound.mux_rest()
            if not _begins_well(target, (stream.width, stream.height)):
                os.remove(target)
                continue
            duration_s = span.end_s - span.start_s
            done.append(
                {
                    "clip_id": span.clip_id,
                    "error": None,
                    "width": stream.width,
                    "height": stream.height,
                    "fps": span.n_frames / duration_s,
                    "n_frames": span.n_frames,
                    "duration_s": duration_s,
                    "mp4_size": os.path.getsize(target),
                    "copied": True,
                    "has_audio": m4a is not None,
                    "audio_error": audio_error,
                    "n_decoded": 0,
                    "encoded_s": 0.0,
                }
            )
    return done


def _begins_well(path: str, size: tuple[int, int]) -> bool:
    """Whether the first frame of a copied clip decodes: the mp4 carries what its decoder needs."""
    try:
        with av.open(path) as container:
            first = next(container.decode(video=0), None)
    except FFmpegError:
        return False
    return first is not None and (first.width, first.height) == size and first.pts == 0
