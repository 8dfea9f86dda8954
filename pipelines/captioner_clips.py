"""Captions and frames of a dataset's clips, out of its shards or out of its tables and source files.

    clips = ShardClips(Dataset("films.reel"), shuffle=128)       # or TableClips(dataset)
    clips.captions()                                             # clip_id -> its source and {kind: text}
    for clip_id, load in clips.epoch({"9f3c", ...}, seed=0, epoch=2): frames = load()

The order of an epoch is a function of the clips asked for, the seed and the epoch. Frames are the moments that a
captioner sees: of CoCa four, at most 144 lines high.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from curate.dataset import Dataset
from curate.errors import BadInput
from recaption.coca.folder import FRAME_HEIGHT, N_FRAMES
from recaption.reading import PART

if TYPE_CHECKING:
    from curate.isolate import Isolated

Load = Callable[[], np.ndarray]
DEADLINE_S = 120.0
JSON_AT_ONCE = 1000


@dataclass(frozen=True)
class Look:
    """What of a clip is seen.

    Attributes:
        n_frames: frames, at the centres of equal parts of the clip.
        height: largest height of a frame in pixels; smaller pictures stay as they are.
    """

    n_frames: int = N_FRAMES
    height: int = FRAME_HEIGHT


class Captioned(NamedTuple):
    """The source that a clip is out of, and its texts by kind of caption."""

    source_id: str
    texts: dict[str, str]


class Clips(Protocol):
    """Where clips with captions come from."""

    def captions(self) -> dict[str, Captioned]:
        """clip_id -> what is said of it. Raises BadInput when the dataset lacks what is read here."""
        ...

    def epoch(self, clip_ids: Set[str], seed: int, epoch: int) -> Iterator[tuple[str, Load]]:
        """Each clip once, with what decodes its frames, (T, H, W, 3) uint8 RGB. Both raise BadInput."""
        ...

    def frames(self, clip_id: str) -> np.ndarray:
        """Frames of one clip, (T, H, W, 3) uint8 RGB. Raises BadInput if they cannot be decoded."""
        ...

    def times(self, clip_id: str) -> tuple[float, ...]:
        """When these frames are shown, in seconds from the clip's start."""
        ...


class ShardClips:
    """Clips of WebDataset shards, KEY.mp4 with its captions in KEY.json, streamed by `webdataset`."""

    def __init__(self, dataset: Dataset, *, shuffle: int, look: Look | None = None) -> None:
        """`shuffle` clips are in memory at a time, and the next is drawn out of these."""
        self.dataset, self.shuffle, self.look = dataset, shuffle, look or Look()
        columns = ["clip_id", "shard", "json_offset", "json_size", "n_frames", "fps", "height"]
        rows = [row for row in dataset.read("shards", columns).to_pylist() if row["shard"] is not None]
        if not rows:
            raise BadInput(f"{dataset.uri} has no clip in its shards. See why with `reelmill report`.")
        self._rows = {row["clip_id"]: row for row in rows}

    def captions(self) -> dict[str, Captioned]:
        found = {}
        rows = list(self._rows.values())
        for place in range(0, len(rows), JSON_AT_ONCE):
            some = rows[place : place + JSON_AT_ONCE]
            # The records alone: reading whole tars for their captions would take the time of an epoch.
            texts = self.dataset.fs.cat_ranges(
                [self.dataset.path("shards", row["shard"]) for row in some],
                [row["json_offset"] for row in some],
                [row["json_offset"] + row["json_size"] for row in some],
                on_error="return",
            )
            for row, text in zip(some, texts, strict=True):
                if isinstance(text, OSError):
                    raise self._missing(row["shard"], text) from text
                record = json.loads(text)
                found[row["clip_id"]] = Captioned(record["source_id"], _by_kind(record.get("captions") or []))
        return found

    def epoch(self, clip_ids: Set[str], seed: int, epoch: int) -> Iterator[tuple[str, Load]]:
        import webdataset
        from webdataset import tariterators

        shards: dict[str, int] = defaultdict(int)
        for clip_id in clip_ids:
            shards[self._rows[clip_id]["shard"]] += 1
        order = [sorted(shards)[i] for i in np.random.default_rng((seed, epoch)).permutation(len(shards))]
        wanted = {f"{clip_id}.mp4" for clip_id in clip_ids}
        files = tariterators.tar_file_expander(self._opened(order), select_files=wanted.__contains__)
        samples = tariterators.group_by_keys(files)
        mixed = webdataset.detshuffle(self.shuffle, self.shuffle, seed=seed, epoch=epoch).run(samples)
        seen = 0
        try:
            for sample in mixed:
                seen += 1
                clip_id = sample["__key__"]
                yield clip_id, partial(self._decode, clip_id, sample["mp4"])
        except (OSError, tarfile.TarError) as error:
            raise self._missing(", ".join(order[:3]), error) from error
        if seen != len(clip_ids):
            raise BadInput(
                f"the shards of {self.dataset.uri} hold {seen} of the {len(clip_ids)} clips that their index "
                "names. Run `reelmill shard` again."
            )

    def _opened(self, shards: list[str]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            with self.dataset.open("shards", *shard.split("/")) as stream:
                yield {"url": shard, "stream": stream}

    def frames(self, clip_id: str) -> np.ndarray:
        from curate.read_shard import read_clip

        return self._decode(clip_id, read_clip(self.dataset, clip_id)[0])

    def times(self, clip_id: str) -> tuple[float, ...]:
        from curate.frames import even_times

        row = self._rows[clip_id]
        return tuple(even_times(0.0, row["n_frames"] / row["fps"], self.look.n_frames))

    def _decode(self, clip_id: str, mp4: bytes) -> np.ndarray:
        from curate.frames import read_frames

        row = self._rows[clip_id]
        height = min(self.look.height, row["height"])
        try:
            with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
                file.write(mp4)
                file.flush()
                pictures, _ = read_frames(file.name, self.times(clip_id), height=height)
        except (BadInput, OSError, ValueError) as error:  # PyAV's errors are OSErrors or ValueErrors
            raise self._missing(row["shard"], error, clip_id) from error
        if len(pictures) < self.look.n_frames:
            raise self._missing(row["shard"], "no frame could be decoded", clip_id)
        return np.stack(pictures)

    def _missing(self, shard: str, why: object, clip_id: str | None = None) -> BadInput:
        what = shard if clip_id is None else f"clip {clip_id} in {shard}"
        return BadInput(f"cannot read {what} of {self.dataset.uri}: {why}. Run `reelmill shard` again.")


class TableClips:
    """Chosen captions of the captions table, with frames decoded out of the source files."""

    def __init__(self, dataset: Dataset, *, look: Look | None = None) -> None:
        from curate.shard_plan import kept_clips

        self.dataset, self.look = dataset, look or Look()
        self._kept = kept_clips(dataset)
        self._child: Isolated | None = None

    def captions(self) -> dict[str, Captioned]:
        return {
            clip_id: Captioned(clip["source_id"], _by_kind(clip["captions"]))
            for clip_id, clip in self._kept.clips.items()
        }

    def epoch(self, clip_ids: Set[str], seed: int, epoch: int) -> Iterator[tuple[str, Load]]:
        order = np.random.default_rng((seed, epoch)).permutation(sorted(clip_ids))
        for clip_id in order.tolist():
            yield clip_id, partial(self.frames, clip_id)

    def times(self, clip_id: str) -> tuple[float, ...]:
        from curate.frames import even_times

        clip = self._kept.clips[clip_id]
        return tuple(even_times(0.0, clip["end_s"] - clip["start_s"], self.look.n_frames))

    def frames(self, clip_id: str) -> np.ndarray:
        from curate.isolate import ChildFailed, Isolated
        from curate.sources import local_copy
        from pipelines.recaption_pictures import crop_to

        clip = self._kept.clips[clip_id]
        uri = self._kept.sources[clip["source_id"]]["uri"]
        times = [clip["start_s"] + time for time in self.times(clip_id)]
        height = min(self.look.height, clip["height"])
        self._child = self._child or Isolated()
        try:
            with local_copy(uri) as path:
                frames, found = self._child.call(
                    "pipelines.recaption_pictures:read_pictures", path, times, height, deadline_s=DEADLINE_S
                )
            if not found:
                raise ValueError(f"no frame could be decoded at {times} s")
        except (BadInput, ChildFailed, OSError, ValueError) as error:
            raise BadInput(
                f"cannot decode clip {clip_id} of {uri}: {error}. Bring the file back, or learn from "
                "the shards (--examples.read=shards)."
            ) from error
        crop = clip["crop"] and [clip["crop"][side] for side in "xywh"]
        return np.ascontiguousarray(crop_to(frames, crop, height / clip["height"]))


def _by_kind(captions: list[dict]) -> dict[str, str]:
    """One text per kind: the first, which is the chosen one. Texts of single windows are none of the clip."""
    found: dict[str, str] = {}
    for caption in captions:
        if caption["text"] and PART not in (caption["flags"] or ()):
            found.setdefault(caption["kind"], caption["text"])
    return found
