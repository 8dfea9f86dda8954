"""WebDataset shards: which clip goes where, writing a tar, and the index that finds a clip in it by bytes.

shards/BUCKET/NAME.tar holds KEY.mp4 and KEY.json per clip, KEY being the clip_id. Plain `webdataset` reads
it. Clips lie in a shuffled order, so that neighbours come from different sources.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import IO

_KEY = re.compile(r"[0-9a-f]{8,64}")
_ASPECTS = {"9x16": 9 / 16, "3x4": 3 / 4, "1x1": 1.0, "4x3": 4 / 3, "16x9": 16 / 9, "21x9": 21 / 9}
_LINES = (144, 240, 360, 480, 720, 1080, 2160)
_LENGTHS_S = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class ShardConfig:
    """How clips are packed into shards.

    Attributes:
        target_mib: a shard is closed before it grows beyond this many MiB (2^20 bytes) of clips.
        max_clips: most clips in a shard.
        seed: seed of the shuffle.
    """

    target_mib: float = 256.0
    max_clips: int = 2048
    seed: int = 0


def bucket(width: int, height: int, duration_s: float) -> str:
    """Class by nearest aspect, lines of the shorter side and seconds (each rounded down): `16x9_360p_4s`."""
    ratio = width / height
    aspect = min(_ASPECTS, key=lambda name: max(ratio / _ASPECTS[name], _ASPECTS[name] / ratio))
    lines = max((n for n in _LINES if n <= min(width, height)), default=_LINES[0])
    length = max((n for n in _LENGTHS_S if n <= duration_s + 0.001), default=_LENGTHS_S[0])
    return f"{aspect}_{lines}p_{length}s"


def plan_shards(clips: list[dict], config: ShardConfig) -> dict[str, list[str]]:
    """Shard path -> clip_ids in order, a pure function of the clips and config.

    Clips need clip_id, source_id, bucket and mp4_size (bytes). No two neighbours come from one source unless
    that source has more than half of a bucket's clips.
    """
    buckets: dict[str, list[dict]] = defaultdict(list)
    for clip in clips:
        buckets[clip["bucket"]].append(clip)
    shards: dict[str, list[str]] = {}
    limit = config.target_mib * (1 << 20)
    for name in sorted(buckets):
        members: list[str] = []
        size, number = 0, 0
        shuffled = sorted(buckets[name], key=lambda c: _shuffled(c["clip_id"], config.seed))
        for clip in _apart(shuffled):
            if members and (size + clip["mp4_size"] > limit or len(members) >= config.max_clips):
                shards[f"{name}/{number:05d}.tar"] = members
                members, size, number = [], 0, number + 1
            members.append(clip["clip_id"])
            size += clip["mp4_size"]
        shards[f"{name}/{number:05d}.tar"] = members
    return shards


def _shuffled(clip_id: str, seed: int) -> str:
    return hashlib.blake2b(f"{seed}:{clip_id}".encode(), digest_size=8).hexdigest()


def _apart(clips: list[dict]) -> list[dict]:
    """The same order, but a clip that follows one of its own source waits until another has passed."""
    out: list[dict] = []
    held: deque[dict] = deque()  # all of one source: that of the last clip in `out`
    for clip in clips:
        if out and clip["source_id"] == out[-1]["source_id"]:
            held.append(clip)
            continue
        out.append(clip)
        if held:
            out.append(held.popleft())
    if not held:
        return out
    # Those left over go where neither neighbour is of their source, as evenly as there is room.
    source = held[0]["source_id"]
    gaps = [
        place
        for place in range(len(out))
        if out[place]["source_id"] != source and (place == 0 or out[place - 1]["source_id"] != source)
    ]
    chosen = {gaps[i * len(gaps) // len(held)] for i in range(len(held))} if gaps else set()
    spread: list[dict] = []
    for place, clip in enumerate(out):
        if place in chosen:
            spread.append(held.popleft())
        spread.append(clip)
    return spread + list(held)


class TarWriter:
    """A tar whose bytes depend on the members alone (no times, no owners); tells where each member lies."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, key: str, extension: str, data: bytes) -> tuple[int, int]:
        """Append KEY.extension; returns (offset, size) of its bytes. Raises ValueError on a bad key."""
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"shard key {key!r} must be 8 to 64 hex digits: a dot or slash would break readers"
            )
        member = tarfile.TarInfo(f"{key}.{extension}")
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset, len(data)

    def close(self) -> None:
        self._tar.close()


def to_json(value: dict) -> bytes:
    """Canonical JSON bytes (sorted keys, floats as they are)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
