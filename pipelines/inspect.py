"""One clip's whole story: where it comes from, its scores, why it was kept or not, captions, shard, latents.

    reelmill inspect --dataset films.reel --clip 3fa2          # the first letters of an id are enough

Run as `python -m pipelines.inspect`, never as a script path: the folder would shadow Python's own `inspect`.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput
from pipelines.query import rows_of

if TYPE_CHECKING:
    import duckdb

SCORES = (
    "motion", "camera", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area",
    "aesthetic", "clip_text_sim", "nsfw", "phash",
)  # fmt: skip


@dataclass(frozen=True)
class InspectConfig:
    """Tell the whole story of one clip: source, span, scores, decision, captions, shard and latents.

    Attributes:
        dataset: folder or URI of the dataset.
        clip: id of the clip, or its first letters.

    Example:
        reelmill inspect --dataset films.reel --clip 3fa2
    """

    dataset: str
    clip: str


def inspect(config: InspectConfig) -> None:
    """Print what every table says of one clip. Raises BadInput if no clip, or more than one, has that id."""
    from curate.dataset import Dataset
    from pipelines.query import connect

    for line in story(connect(Dataset(config.dataset)), config.clip):
        print(line)


def story(tables: duckdb.DuckDBPyConnection, wanted: str) -> Iterator[str]:
    """The lines to print, from a connection of `pipelines.query.connect`."""
    from curate.overrides import is_followed

    views = {row["view_name"] for row in rows_of(tables, "SELECT view_name FROM duckdb_views()")}
    clip = _find(tables, wanted)
    clip_id = clip["clip_id"]

    def rows(view: str, where: str = "clip_id = ?", value: str = clip_id) -> list[dict[str, Any]]:
        return rows_of(tables, f"FROM {view} WHERE {where}", value) if view in views else []

    yield f"clip {clip_id}"
    shots = rows_of(tables, "SELECT count(*) AS n FROM clips WHERE source_id = ?", clip["source_id"])
    for source in rows("sources", "source_id = ? ORDER BY duplicate_of NULLS FIRST", clip["source_id"])[:1]:
        yield from _source(source)
    yield from _span(clip, shots[0]["n"])
    yield from _scores(clip)

    yield ""
    decisions = rows("decisions")
    if not decisions:
        yield "decision    none yet: run `reelmill decide --dataset URI`"
    for decision in decisions:
        yield from _decision(decision)
    words = rows("overrides", "clip_id = ? ORDER BY created_at DESC, override_id DESC")
    for word in words:
        yield from _wrapped("word", _word(word))
    if words and any(not is_followed(words[0]["keep"], decision) for decision in decisions):
        yield from _wrapped("", "which waits for `reelmill overrule --dataset URI` to decide again")
    copies = [row["clip_id"] for row in rows("decisions", "duplicate_of = ? ORDER BY clip_id")]
    if copies:
        yield from _wrapped("copies", f"{', '.join(copies)} (rejected in favour of this clip)")

    yield ""
    captions = rows("captions", 'clip_id = ? ORDER BY kind, "window", created_at, caption_id')
    yield f"captions    {len(captions) or 'none'}"
    for caption in captions:
        yield from _caption(caption)

    yield ""
    shards, latents = rows("shards"), rows("latents")
    yield from _wrapped("shard", "; ".join(map(_place, shards)) or "in none")
    for row in latents:
        yield from _wrapped("latents", f"{row['vae_id']}: {_latent(row)}")
    if not latents:
        yield "latents     none"


def _find(tables: duckdb.DuckDBPyConnection, wanted: str) -> dict[str, Any]:
    """The row of the one clip whose id begins with `wanted`, without its embedding: that is most of what lies there."""
    found = rows_of(
        tables,
        "SELECT * EXCLUDE (embedding) FROM clips WHERE starts_with(clip_id, ?) ORDER BY clip_id LIMIT 6",
        wanted,
    )
    if not found:
        some = rows_of(tables, "SELECT clip_id FROM clips ORDER BY clip_id LIMIT 1")
        hint = f"ids look like {some[0]['clip_id']}" if some else "the dataset holds no clips"
        raise BadInput(f"no clip id begins with {wanted!r}; {hint}. `reelmill query` lists them.")
    exact = [row for row in found if row["clip_id"] == wanted] or found
    if len(exact) > 1:
        ids = ", ".join(row["clip_id"] for row in exact[:5])
        raise BadInput(f"more than one clip id begins with {wanted!r}: {ids}… Give more letters.")
    return exact[0]


def _source(source: dict[str, Any]) -> Iterator[str]:
    yield from _wrapped("source", source["uri"])
    facts = [
        f"{source['width']}x{source['height']}",
        f"{_number(source['fps'])} fps" + (" (variable)" if source["is_vfr"] else ""),
        f"{_number(source['duration_s'])} s",
        source["codec"],
        "with audio" if source["has_audio"] else "no audio",
    ]
    yield from _wrapped("", ", ".join(fact for fact in facts if fact))
    yield from _wrapped(
        "", f"status {source['status']}" + (f": {source['error']}" if source["error"] else "")
    )
    if source["caption"]:
        yield from _wrapped("", f"its caption: {source['caption']}")


def _span(clip: dict[str, Any], shots: int) -> Iterator[str]:
    seconds = clip["end_s"] - clip["start_s"]
    yield from _wrapped(
        "span",
        f"{_shot(clip['index'])} of {shots}: {clip['start_s']:.3f} to {clip['end_s']:.3f} s "
        f"({seconds:.3f} s, {clip['n_frames']} frames), begins by {clip['transition_in']}, "
        f"ends by {clip['transition_out']}",
    )
    if crop := clip["crop"]:
        inside = (crop["x"], crop["y"], crop["w"], crop["h"]) != (0, 0, clip["width"], clip["height"])
        picture = f"{crop['w']}x{crop['h']} at {crop['x']},{crop['y']} inside its borders"
        yield from _wrapped("picture", picture if inside else f"{clip['width']}x{clip['height']}, no borders")


def _shot(index: int | None) -> str:
    return "a shot" if index is None else f"shot {index + 1}"


def _scores(clip: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "scores"
    why = {pair["key"]: pair["value"] for pair in clip["score_errors"] or ()}
    for name in SCORES:
        value = clip[name]
        told = _number(value) if value is not None else f"null: {why.get(name, 'not measured')}"
        yield from _wrapped(f"  {name}", told, indent=18)
    model = clip["embedding_model"]
    told = f"from {model}" if model else f"null: {why.get('embedding', 'not measured')}"
    yield from _wrapped("  embedding", told, indent=18)


def _decision(decision: dict[str, Any]) -> Iterator[str]:
    reasons = decision["reasons"] or []
    if decision["keep"]:
        told = f"kept, by hand: {decision['override']}" if decision["override"] else "kept"
        yield from _wrapped("decision", told)
        for reason in reasons:
            yield from _wrapped("", f"in spite of: {reason}")
    else:
        yield from _wrapped("decision", f"rejected: {decision['reason']}")
        for reason in reasons[1:]:
            yield from _wrapped("", f"also: {reason}")
    if decision["duplicate_of"]:
        yield from _wrapped("", f"a copy of {decision['duplicate_of']}")
    if decision["keep"]:
        yield from _wrapped("", f"weight {_number(decision['weight'])}")


def _word(word: dict[str, Any]) -> str:
    said = {True: "keep it", False: "reject it", None: "what was said is taken back"}[word["keep"]]
    note = f": {word['note']}" if word["note"] else ""
    return f"{word['author']}, {word['created_at']:%Y-%m-%d %H:%M} UTC, {said}{note}"


def _caption(caption: dict[str, Any]) -> Iterator[str]:
    marks = [
        caption["captioner"],
        caption["model"],
        f"prompt {caption['prompt_id']}" if caption["prompt_id"] else "",
    ]
    marks += ["chosen" if caption["chosen"] else "", *(caption["flags"] or [])]
    if caption["status"] != "ok":
        marks.append(f"status {caption['status']}")
    if caption["clip_score"] is not None:
        marks.append(f"clip score {_number(caption['clip_score'])}")
    yield from _wrapped(f"  {caption['kind']}", f"[{', '.join(mark for mark in marks if mark)}]")
    yield from _wrapped("", caption["text"] or caption["error"] or caption["text_raw"] or "(no text)")


def _place(row: dict[str, Any]) -> str:
    if row["shard"] is None:
        return f"could not be cut: {row['error']}"
    if row["mp4_offset"] is None or row["mp4_size"] is None:
        return f"shards/{row['shard']}, nobody says where in it"
    return (
        f"shards/{row['shard']}, bytes {row['mp4_offset']} to {row['mp4_offset'] + row['mp4_size']} "
        f"({row['width']}x{row['height']}, {_number(row['fps'])} fps, {row['n_frames']} frames)"
    )


def _latent(row: dict[str, Any]) -> str:
    if row["shard"] is None:
        return f"could not be encoded: {row['error']}"
    shape = f"{row['t']}x{row['h']}x{row['w']}, {row['n_tokens']} tokens"
    return f"{shape}, captions {', '.join(row['caption_kinds'] or [])}, in {row['shard']}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wrapped(label: str, text: str, *, indent: int = 12) -> list[str]:
    """`label` and `text` in two columns, as wide as the terminal."""
    width = max(60, shutil.get_terminal_size((110, 24)).columns)
    first = f"{label:<{indent}}"
    lines = textwrap.wrap(
        " ".join(str(text).split()),
        width,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,  # names of files and models stay whole, to be copied
        break_long_words=False,
    )
    return lines or [first.rstrip()]


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(InspectConfig, inspect, argv, name="inspect")


if __name__ == "__main__":
    raise SystemExit(main())
