"""The body of a chat completion: frames as pictures or as a video, then the prompt.

    body = make_body(request, config)
    body.content                    # bytes to send
    body.digest                     # what the answer depends on, for the cache

Frames travel as JPEG data URLs (`image_url`), which every server takes, or as one `video_url`: vLLM takes a
`data:video/jpeg` of comma-joined JPEGs and hears their frame rate in `media_io_kwargs`; other servers take MP4.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from recaption.captioner import CaptionRequest
from recaption.openai.config import OpenAIConfig


@dataclass(frozen=True)
class Body:
    """What is sent.

    Attributes:
        content: the JSON.
        plain: the JSON without `response_format`, for a server that knows no guided decoding.
        digest: 32 hex digits of everything the answer depends on; the address and the key are not in it.
    """

    content: bytes
    plain: bytes
    digest: str


def make_body(request: CaptionRequest, config: OpenAIConfig) -> Body:
    """Encode a request. Raises ValueError for frames that are no (H, W, 3) uint8 or that no encoder takes."""
    temperature = config.temperature if request.temperature is None else request.temperature
    pictures, extra = _pictures(request, config)
    fields: dict[str, Any] = {
        "model": config.model,
        "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": request.prompt}]}],
        "max_tokens": config.max_tokens,
        "temperature": temperature,
        "seed": request.seed,
        **extra,
    }
    plain = content = _as_json(fields, config)
    if request.schema is not None:
        schema = {"name": request.kind, "schema": request.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        content = _as_json(fields, config)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(config.revision).encode())
    digest.update(content)
    return Body(content, plain, digest.hexdigest())


def _as_json(fields: dict[str, Any], config: OpenAIConfig) -> bytes:
    """The body, with the fields that the configuration adds and without those that it takes away."""
    changed = {**fields, **config.extra}
    return json.dumps({name: value for name, value in changed.items() if value is not None}).encode()


def _pictures(request: CaptionRequest, config: OpenAIConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parts of the message that hold the frames, and fields of the body that go with them."""
    frames, quality = request.frames, config.jpeg_quality
    if len(frames) == 0:
        return [], {}
    if config.frames_as == "image_url":
        return [_part("image_url", jpeg_url(frame, quality)) for frame in frames], {}
    rate = _frames_per_s(request.frame_times_s)
    if config.frames_as == "video_mp4":
        data = base64.b64encode(mp4(frames, rate)).decode()
        options: dict[str, Any] = {"num_frames": len(frames)}  # all of them: they were chosen already
        return [_part("video_url", f"data:video/mp4;base64,{data}")], {"media_io_kwargs": {"video": options}}
    data = ",".join(base64.b64encode(jpeg(frame, quality)).decode() for frame in frames)
    # Models that tell the time of what they see take it from here.
    options = {
        "num_frames": len(frames),
        "fps": round(float(rate), 6),
        "duration": round(len(frames) / float(rate), 6),
    }
    return [_part("video_url", f"data:video/jpeg;base64,{data}")], {"media_io_kwargs": {"video": options}}


def _part(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def _frames_per_s(times_s: tuple[float, ...]) -> Fraction:
    """The mean rate of frames at `times_s`, at least 1/1000; 1 where there is no span to divide by."""
    span_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
    if span_s <= 0:
        return Fraction(1)
    return max(Fraction(1, 1000), Fraction((len(times_s) - 1) / span_s).limit_denominator(1000))


def jpeg_url(frame: np.ndarray, quality: int) -> str:
    """A frame (H, W, 3) uint8 RGB as a `data:image/jpeg;base64,...` URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(frame, quality)).decode()}"


def jpeg(frame: np.ndarray, quality: int) -> bytes:
    """A frame (H, W, 3) uint8 RGB as a JPEG file. Raises ValueError for another shape or type, or a side too long."""
    import cv2

    _check(frame)
    picture = np.ascontiguousarray(frame[..., ::-1])
    try:
        made, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise ValueError(f"a frame {frame.shape} cannot be a JPEG: {error}") from error
    if not made:
        raise ValueError(f"a frame {frame.shape} cannot be a JPEG")
    return data.tobytes()


def mp4(frames: np.ndarray, frames_per_s: Fraction) -> bytes:
    """Frames (T, H, W, 3) uint8 RGB as an H.264 file; an odd last row or column is doubled, as 4:2:0 needs.

    Raises ValueError for another shape or type, and for what the encoder refuses.
    """
    import av

    _check(frames[0])
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4") as out:
            stream = out.add_stream("libx264", rate=frames_per_s, options={"crf": "12", "preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            stream.thread_count = 1  # the same frames are the same bytes, and so the same answer in the cache
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    except av.FFmpegError as error:
        raise ValueError(
            f"frames {frames.shape} at {float(frames_per_s):g} per second cannot be an H.264 file: {error}"
        ) from error
    return file.getvalue()


def _check(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(f"a frame must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
