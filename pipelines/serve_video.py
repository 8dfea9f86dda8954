"""KEY.mp4 of a clip out of its shard, whole or by ranges, as players ask for it (RFC 9110, section 14).

Where it lies is what shards/index.parquet says, and never a path that a request brings.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from curate.dataset import config_hash
from curate.errors import BadInput

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from pipelines.serve_reads import Reads

PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """Bytes of a file below shards/."""

    parts: tuple[str, ...]
    offset: int
    size: int
    etag: str


def member_of(dataset: Dataset, card: dict[str, Any]) -> Member:
    """Where the mp4 of a clip lies. Raises BadInput if it is in no shard, or the index says what cannot be."""
    shard, offset, size = card["shard"], card["mp4_offset"], card["mp4_size"]
    if shard is None:
        raise BadInput("this clip is in no shard. `reelmill shard` cuts the kept clips.")
    parts = tuple(shard.split("/"))
    is_plain = all(part not in ("", ".", "..") and "\\" not in part and "\0" not in part for part in parts)
    if not is_plain or offset is None or size is None or offset < 0 or size <= 0:
        raise BadInput(
            f"shards/index.parquet places this clip at {shard!r}, {offset}, {size}: that is no place."
        )
    if dataset.is_local:
        folder = Path(dataset.path("shards")).resolve()
        if not Path(dataset.path("shards", *parts)).resolve().is_relative_to(folder):
            raise BadInput(f"the shard {shard!r} lies outside of shards/, by a link.")
    return Member(parts, offset, size, f'"{config_hash([shard, offset, size, card["cut_id"]])}"')


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """[first, end) that a Range header asks for; None for all. Raises ValueError for a range outside of the file.

    What is no single range of bytes is answered with all, as the RFC allows.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:  # the last so many bytes
        length = int(match[2])
        if length == 0:
            raise ValueError("an empty range")
        return max(0, size - length), size
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= size:
        raise ValueError("the range begins behind the end")
    return first, last + 1


async def video(request: Request, dataset: Dataset, card: dict[str, Any], reads: Reads) -> Response:
    """The answer to a GET or HEAD for a clip's video.

    Raises BadInput as `member_of` does, or if the tar is short, and TooLong where the store does not answer.
    """
    member = await reads.of(member_of, dataset, card)
    headers = {"accept-ranges": "bytes", "etag": member.etag, "cache-control": "private, no-cache"}
    asked = request.headers.get("range")
    if request.headers.get("if-range") not in (None, member.etag):
        asked = None
    try:
        span = range_of(asked, member.size)
    except ValueError:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{member.size}"})
    first, end = span or (0, member.size)
    headers["content-length"] = str(end - first)
    if span is not None:
        headers["content-range"] = f"bytes {first}-{end - 1}/{member.size}"
    status = 206 if span is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="video/mp4")
    # Read before the answer begins, so that what cannot be read is an error and not a film cut short.
    began = await reads.of(_read, dataset, member, first, min(first + PIECE, end))
    pieces = _pieces(reads, dataset, member, began, first, end)
    return StreamingResponse(pieces, status_code=status, headers=headers, media_type="video/mp4")


async def _pieces(
    reads: Reads, dataset: Dataset, member: Member, began: bytes, first: int, end: int
) -> AsyncIterator[bytes]:
    yield began
    for start in range(first + len(began), end, PIECE):
        yield await reads.of(_read, dataset, member, start, min(start + PIECE, end))


def _read(dataset: Dataset, member: Member, first: int, end: int) -> bytes:
    """Bytes `[first, end)` of the member."""
    name = "/".join(member.parts)
    try:
        found = dataset.read_bytes(
            "shards", *member.parts, start=member.offset + first, end=member.offset + end
        )
    except OSError as error:
        raise BadInput(
            f"shards/{name} cannot be read: {error}. `reelmill shard` writes what is missing."
        ) from error
    if len(found) != end - first:
        raise BadInput(
            f"shards/{name} ends before this clip does: it is not the tar that the index was made with."
        )
    return found
