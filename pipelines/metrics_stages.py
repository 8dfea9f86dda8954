"""How the stages of each command are told of: a name, what they do one after another, and what came of it.

    told = of_curate()
    name, count = told[AnalyseSources].name, told[AnalyseSources].count(rows_in, rows_out)

The counts are read off the rows that go into a stage and come out of it, so that no stage knows of them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.metrics import Counts, Outcome

if TYPE_CHECKING:
    from curate.stage import Stage

Rows = list[dict]


@dataclass(frozen=True)
class Told:
    """How a stage is told of.

    Attributes:
        name: what it is called.
        unit: what is counted as done: files, clips, captions, shards.
        count: what a call did, from the rows it took (after the call) and made.
    """

    name: str
    unit: str
    count: Callable[[Rows, Rows], Counts]


def of_curate(text_frames: int = 2) -> Mapping[type, Told]:
    """`text_frames`: keyframes of a clip that are searched for text, at most."""
    from curate.clip_scores import ScoreWithClip, SkipClip
    from curate.nsfw import ClassifyNsfw
    from curate.sources import AnalyseSources
    from curate.stitch import Stitch
    from curate.text_area import ReadText
    from curate.units import CommitUnits

    return {
        AnalyseSources: Told("analyse", "files", analysed),
        ScoreWithClip: Told("clip", "files", lambda taken, rows: scored(taken, rows, "embedding")),
        SkipClip: Told("clip", "files", lambda _, rows: Counts(len(rows), _found(rows))),
        ClassifyNsfw: Told("nsfw", "files", lambda taken, rows: scored(taken, rows, "nsfw")),
        Stitch: Told("stitch", "files", lambda _, rows: Counts(len(rows), _found(rows))),
        ReadText: Told("text", "files", lambda taken, rows: text_read(taken, rows, text_frames)),
        CommitUnits: Told("commit", "files", lambda _, rows: committed(rows)),
    }


def of_recaption() -> Mapping[type, Told]:
    from pipelines.recaption_stages import CommitCaptions, ReadFrames, WriteCaptions
    from pipelines.recaption_vllm_stages import MakeRequests, ReadAnswers

    return {
        ReadFrames: Told("frames", "clips", lambda _, rows: frames_read(rows)),
        WriteCaptions: Told("caption", "captions", lambda _, rows: captioned(rows)),
        MakeRequests: Told("request", "captions", requested),
        ReadAnswers: Told("caption", "captions", answered),
        CommitCaptions: Told("commit", "captions", lambda taken, _: captioned(taken)),
    }


def of_shard() -> Mapping[type, Told]:
    from curate.shard_stages import CutClips, PackShards

    return {
        CutClips: Told("cut", "files", lambda _, rows: made(rows, "cut")),
        PackShards: Told("pack", "shards", lambda _, rows: made(rows, "packed")),
    }


def of_encode() -> Mapping[type, Told]:
    from pipelines.encode_pack import PackLatents
    from pipelines.encode_stages import DecodeClips, EncodeClips

    return {
        DecodeClips: Told("decode", "clips", clips_decoded),
        EncodeClips: Told("encode", "clips", lambda _, rows: clips_encoded(rows)),
        PackLatents: Told("pack", "shards", lambda _, rows: made(rows, "packed")),
    }


def told_of(stage: Stage, told: Mapping[type, Told]) -> Told:
    """How `stage` is told of; of one that nobody described, its rows."""
    known = (told[kind] for kind in type(stage).__mro__ if kind in told)
    return next(known, Told(type(stage).__name__, "rows", lambda _, rows: Counts(len(rows))))


def analysed(_: Rows, rows: Rows) -> Counts:
    """Files by their status, those that failed by whether that may pass; the shots found; bytes of the files."""
    sources = [row["source"] for row in rows]
    outcomes = Counter(("files", source["status"], source["failure"] or "") for source in sources)
    size = sum(source["size_bytes"] or 0 for source in sources)
    return Counts(len(rows), outcomes + _found(rows), {"read": size})


def scored(rows_in: Rows, rows: Rows, score: str) -> Counts:
    """Clips with a score, and those that have none; bytes of all their keyframes, opened."""
    clips = (clip.get(score) is not None for row in rows for clip in row["clips"])
    outcomes = Counter(("clips", "scored" if is_scored else "failed", "") for is_scored in clips)
    keyframes = (jpeg for row in rows_in for of_clip in row["keyframes"] for jpeg in of_clip)
    return Counts(len(rows), outcomes, {"decoded": opened_bytes(keyframes)})


def text_read(rows_in: Rows, rows: Rows, frames: int) -> Counts:
    """Clips that were read; rejected, by the filter that rejects them before text is looked for; and failed.

    Bytes of the keyframes of those that were read, `frames` of each at most: all keyframes of a clip have one size.
    """
    clips = [clip for row in rows for clip in row["clips"]]
    keyframes = [of_clip for row in rows_in for of_clip in row["keyframes"]]
    outcomes = [_text_outcome(clip) for clip in clips]
    opened = (
        jpeg
        for (_, outcome, _), of_clip in zip(outcomes, keyframes, strict=True)
        for jpeg in of_clip[:frames]
        if outcome == "read"
    )
    return Counts(len(rows), Counter(outcomes), {"decoded": opened_bytes(opened)})


def opened_bytes(jpegs: Iterable[bytes]) -> int:
    """Bytes of these pictures in RGB, by what their heads say; a broken one has none."""
    from PIL import Image

    size = 0
    for jpeg in jpegs:
        with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            width, height = Image.open(io.BytesIO(jpeg)).size
            size += width * height * 3
    return size


def _text_outcome(clip: dict) -> Outcome:
    from curate.decide import reason_name

    why = dict(clip["score_errors"] or ()).get("text_area")
    if why is None:
        return "clips", "read", ""
    if why.startswith("not read: "):
        return "clips", "rejected", reason_name(why.removeprefix("not read: "))
    return "clips", "skipped" if "switched off" in why else "failed", ""


def committed(rows: Rows) -> Counts:
    """Files by their status, and the clips in them."""
    outcomes: Counter[Outcome] = Counter(("files", row["status"], "") for row in rows)
    return Counts(len(rows), outcomes + Counter({("clips", "found", ""): sum(row["clips"] for row in rows)}))


def decided(kept: int, rejected: Mapping[str, int]) -> Counts:
    """Clips that are kept, and rejected by filter."""
    outcomes = {("clips", "kept", ""): kept}
    outcomes |= {("clips", "rejected", reason): count for reason, count in rejected.items()}
    return Counts(kept + sum(rejected.values()), outcomes)


def frames_read(rows: Rows) -> Counts:
    """Clips with all their pictures, and those that lack some."""
    views = [row["views"] for row in rows]
    failed = sum(any(view["error"] is not None for view in of_clip) for of_clip in views)
    size = sum(len(view["frames"] or b"") for of_clip in views for view in of_clip)
    outcomes = {("clips", "read", ""): len(rows) - failed, ("clips", "failed", ""): failed}
    read = sum(row["read_bytes"] for row in rows)
    return Counts(len(rows), outcomes, {"read": read, "decoded": size})


def captioned(rows: Rows) -> Counts:
    """Captions by their status; an answer that a second one is asked for after is `again`, and not done."""
    outcomes = Counter("again" if row.get("again") else row["status"] for row in rows)
    return Counts(
        len(rows) - outcomes["again"], {("captions", name, ""): count for name, count in outcomes.items()}
    )


def requested(rows_in: Rows, rows: Rows) -> Counts:
    """Captions that are asked for, and those that cannot be, which are committed as they are."""
    wanted = sum(len(row["wanted"]) for row in rows_in)
    ended = {("captions", "error", ""): wanted - len(rows)} if wanted > len(rows) else {}
    return Counts(wanted, {("captions", "asked", ""): len(rows)} | ended, ended=ended)


def answered(rows_in: Rows, rows: Rows) -> Counts:
    """Captions by their status; the seconds are those that the engine took."""
    from pipelines.recaption_vllm_stages import ERROR

    took_s = [row["time_taken_llm"] for row in rows_in if not row[ERROR]]
    return replace(captioned(rows), seconds=sum(took_s) if took_s else None)


def made(rows: Rows, outcome: str) -> Counts:
    """Rows that tell how many clips they brought and how many failed, and what was read and written for them."""
    outcomes = {
        ("clips", outcome, ""): sum(row["clips"] for row in rows),
        ("clips", "failed", ""): sum(row["failed"] for row in rows),
    }
    read = sum(row.get("read_bytes", 0) for row in rows)
    return Counts(len(rows), outcomes, {"read": read, "written": sum(row["written_bytes"] for row in rows)})


def clips_decoded(rows_in: Rows, rows: Rows) -> Counts:
    clips = [clip for row in rows for clip in row["clips"]]
    failed = sum(clip["error"] is not None for clip in clips)
    read = sum(clip["mp4_size"] + clip["json_size"] for row in rows_in for clip in row["clips"])
    decoded = sum(len(clip.get("pixels") or b"") for clip in clips)
    outcomes = {("clips", "decoded", ""): len(clips) - failed, ("clips", "failed", ""): failed}
    return Counts(len(clips), outcomes, {"read": read, "decoded": decoded})


def clips_encoded(rows: Rows) -> Counts:
    counts = made(rows, "encoded")
    return Counts(sum(counts.outcomes.values()), counts.outcomes, counts.bytes)


def _found(rows: Iterable[dict]) -> Counter[Outcome]:
    return Counter({("clips", "found", ""): sum(len(row["clips"]) for row in rows)})
