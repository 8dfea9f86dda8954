"""Keep or not, and why: thresholds over the scores in clips/, with no decode. A second for 100,000 clips.

    decisions = decide(dataset.read("clips", NEEDED), DecideConfig())

Each filter is a range over one column. A score that is null is kept or rejected as its range says, and the
reason then says that it was null. Copies are found among the clips that passed every filter. What a person said of a
clip (`curate/overrides.py`) stands above all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import config_hash
from curate.near_copies import near_copies, quality_order
from curate.semantic import SemanticConfig, balance, semantic_copies
from curate.tables import DECISIONS


@dataclass(frozen=True)
class Range:
    """Values of a score that are kept.

    Attributes:
        min: least value kept; null for no bound.
        max: greatest value kept; null for no bound.
        if_null: what happens to a clip whose score is null while a bound is set: keep or reject.
    """

    min: float | None = None
    max: float | None = None
    if_null: Literal["keep", "reject"] = "keep"


@dataclass(frozen=True)
class CopyConfig:
    """Which clips count as copies of one another.

    Attributes:
        near: look for re-encoded and resized copies by perceptual hash.
        max_bits: bits of 64 in which the hashes of a copy may differ, on average over the clip.
        max_duration_ratio: how much longer one copy may be than the other.
    """

    near: bool = True
    max_bits: float = 13.0
    max_duration_ratio: float = 1.35


@dataclass(frozen=True)
class DecideConfig:
    """Thresholds. Every field but `copies` and `semantic` is a range over the clips column of its name.

    Attributes:
        duration_s: seconds of the clip (end_s - start_s).
        black_ratio: share of black frames, 0 to 1.
        luma: mean luma, 0 to 255.
        static_ratio: share of frame pairs without change, 0 to 1.
        motion: optical flow in % of the diagonal per second.
        sharpness: Laplacian variance at 144 lines.
        text_area: share of the picture covered by text.
        overlay_area: share of the picture covered by static overlays.
        aesthetic: LAION aesthetic score.
        clip_text_sim: CLIP similarity to the source's caption.
        nsfw: probability of unsafe content.
        copies: how copies are found.
        semantic: how clips that show the same thing are found, and balanced.
    """

    duration_s: Range = field(default_factory=lambda: Range(min=1.0, if_null="reject"))
    black_ratio: Range = field(default_factory=lambda: Range(max=0.5))
    luma: Range = field(default_factory=lambda: Range(min=20.0, max=245.0))
    static_ratio: Range = field(default_factory=lambda: Range(max=0.9))
    motion: Range = field(default_factory=lambda: Range(min=0.3))
    sharpness: Range = field(default_factory=lambda: Range(min=20.0))
    text_area: Range = field(default_factory=lambda: Range(max=0.1))
    overlay_area: Range = field(default_factory=lambda: Range(max=0.1))
    aesthetic: Range = field(default_factory=Range)
    clip_text_sim: Range = field(default_factory=Range)
    nsfw: Range = field(default_factory=lambda: Range(max=0.5))
    copies: CopyConfig = field(default_factory=CopyConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)

    def ranges(self) -> dict[str, Range]:
        """Column -> range, in the order in which reasons are given."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Range)}


# Columns of clips/ that deciding reads.
NEEDED = [
    "clip_id", "source_id", "start_s", "end_s", "width", "height", "crop", "phash",
    "black_ratio", "luma", "static_ratio", "motion", "sharpness", "text_area", "overlay_area", "aesthetic",
    "clip_text_sim", "nsfw",
]  # fmt: skip


def needed(config: DecideConfig) -> list[str]:
    """Columns of clips/ that deciding by `config` reads; embeddings only where they are used."""
    semantic = config.semantic.min_similarity is not None or config.semantic.balance
    return [*NEEDED, *(["embedding", "embedding_model"] if semantic else [])]


def decide(
    clips: pa.Table, config: DecideConfig, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> pa.Table:
    """The decisions table, one row per clip in the order of `clips` (columns needed(config)).

    A further column `bitrate` (bits per second of the source), if there is one, helps to choose among copies.
    `overrides`: clip_id -> the row of overrides/ that counts. What it rejects stands for no copy; what it keeps is
    kept beside its better copy, with the reasons that the rules had against it.
    """
    # To the microsecond: a difference of two times is not exact, and would fall short of a round bound.
    clips = clips.append_column("duration_s", pc.round(pc.subtract(clips["end_s"], clips["start_s"]), 6))
    reasons: list[list[str]] = [[] for _ in range(len(clips))]
    for name, limits in config.ranges().items():
        _apply(name, limits, clips[name], reasons)

    ids = clips["clip_id"].to_pylist()
    words = [_word((overrides or {}).get(clip)) for clip in ids]
    for why, (kept, told) in zip(reasons, words, strict=True):
        if kept is False:
            why.insert(0, f"override {told}")
    by_hand = np.array([kept is True for kept, _ in words], dtype=bool)

    passed = by_hand | np.array([not why for why in reasons], dtype=bool)
    copy_of = near_copies(clips, passed, config.copies) if config.copies.near else {}
    duplicate_of: list[str | None] = [None] * len(ids)
    for row, (better, bits) in copy_of.items():
        duplicate_of[row] = ids[better]
        reasons[row].append(
            f"copy of {ids[better]} ({bits:.1f} of 64 bits differ <= {config.copies.max_bits:g})"
        )

    cluster = np.full(len(ids), -1, np.int32)
    semantic = config.semantic
    if semantic.min_similarity is not None or semantic.balance:
        passed = by_hand | np.array([not why for why in reasons], dtype=bool)
        cluster, same = semantic_copies(clips, passed, quality_order(clips), semantic)
        for row, (better, cosine) in same.items():
            duplicate_of[row] = ids[better]
            figure = f"cosine {cosine:.3f} >= {semantic.min_similarity:g}"
            reasons[row].append(f"semantic copy of {ids[better]} ({figure})")
        for row, (better, _) in copy_of.items():  # its original may now be a copy itself
            is_copy = duplicate_of[better] is not None and not by_hand[better]
            duplicate_of[row] = duplicate_of[better] if is_copy else ids[better]

    keep = [bool(kept) or not why for kept, why in zip(by_hand, reasons, strict=True)]
    rejected = [not kept for kept in keep]
    weight = (
        balance(cluster, np.array(keep, dtype=bool)) if semantic.balance else np.ones(len(ids), np.float32)
    )
    return pa.Table.from_arrays(
        [
            clips["clip_id"].combine_chunks(),
            pa.array(keep, pa.bool_()),
            pa.array(
                [why[0] if out else None for out, why in zip(rejected, reasons, strict=True)], pa.string()
            ),
            pa.array(reasons, pa.list_(pa.string())),
            pa.array(
                [of if out else None for out, of in zip(rejected, duplicate_of, strict=True)], pa.string()
            ),
            pa.array(cluster, pa.int32(), mask=cluster < 0),
            pa.array(weight),
            pa.array(
                [None if kept is None else f"{_VERB[kept]} {told}" for kept, told in words], pa.string()
            ),
            pa.array([config_hash(config)] * len(ids), pa.string()),
        ],
        schema=DECISIONS,
    )


_VERB = {True: "keep", False: "reject"}


def _word(row: Mapping[str, Any] | None) -> tuple[bool | None, str]:
    """What a row of overrides/ says (None: nothing), and who says so and why."""
    if row is None or row["keep"] is None:
        return None, ""
    return row["keep"], f"by {row['author']}" + (f": {row['note']}" if row["note"] else "")


def _apply(name: str, limits: Range, column: pa.ChunkedArray, reasons: list[list[str]]) -> None:
    values = column.cast(pa.float64()).to_numpy()  # NaN for null
    # A bound is compared as the column can hold it: 0.1 stored as float32 is above the double 0.1.
    exact = np.float32 if column.type == pa.float32() else np.float64
    if limits.if_null == "reject" and (limits.min is not None or limits.max is not None):
        for row in np.flatnonzero(np.isnan(values)):
            reasons[row].append(f"{name} is null")
    if limits.min is not None:
        for row in np.flatnonzero(values < float(exact(limits.min))):  # NaN compares false
            reasons[row].append(f"{name} {_figure(values[row], limits.min)} < {limits.min:g}")
    if limits.max is not None:
        for row in np.flatnonzero(values > float(exact(limits.max))):
            reasons[row].append(f"{name} {_figure(values[row], limits.max)} > {limits.max:g}")


def _figure(value: float, bound: float) -> str:
    """The value, with enough digits to differ from the bound as printed."""
    for digits in (2, 3, 4, 6):
        text = f"{value:.{digits}f}"
        if float(text) != bound:
            return text
    return repr(value)


def reason_name(reason: str) -> str:
    """The filter behind a reason, for counting: `motion 0.12 < 0.50` -> `motion`; copies -> `copy`."""
    return reason.split(" ", 1)[0]
