"""What the live view says, as plain values: the state, the overview, pages of clips, one clip, a decision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines import report_data as data
from pipelines import report_scores as scores
from pipelines.report_budget import SAMPLES, Budget
from pipelines.report_captions import statistics
from pipelines.report_rules import rules_of
from pipelines.report_runs import runs
from pipelines.serve_rows import Found, Wanted
from pipelines.serve_search import MARKS, MOST_RANKED, Captions, Matches
from pipelines.serve_vectors import NONE
from pipelines.serve_view import View, captions_in_tables

if TYPE_CHECKING:
    import duckdb

    from pipelines.serve_live import Live

RUNS = 20
LEAST_OF_ID = 8  # signs of a clip id that are taken for one; shorter ones may be words
Hits = tuple[np.ndarray, np.ndarray]


def state(live: Live, person: str | None) -> dict[str, Any]:
    """What there is to see, and what is still being prepared; `person`: whose token it was."""
    view = live.now
    vectors = view.vectors.value
    return {
        "dataset": live.dataset.uri,
        "author": person or live.author,
        "asks_name": person is None,
        "view": view.number,
        "clips": len(view.rows),
        "choices": view.rows.choices,
        "captions": view.captions.told,
        "has_index": view.captions.value is None or view.captions.value.has_index,
        "vectors": view.vectors.told,
        "models": vectors.models if vectors is not None else [],
        "pending": view.rows.find(Wanted(state="pending", limit=1)).total,
        "trouble": live.trouble,
    }


def overview(live: Live) -> dict[str, Any]:
    """The same figures as the report's; those of the tables are gathered once for a view."""
    found: dict[str, Any] = live.now.once("overview", _overview, live.dataset)
    place = (live.dataset, "runs") if live.run is None else (Dataset(live.run), "")
    return found | {"runs": runs(*place, Budget(SAMPLES))[:RUNS]}


def _overview(tables: duckdb.DuckDBPyConnection, dataset: Dataset) -> dict[str, Any]:
    n_errors, errors = data.errors(tables)
    has_clips = "clips" in data.views_of(tables)
    return {
        "funnel": data.funnel(tables),
        "histograms": scores.histograms(tables, rules_of(dataset), dataset.uri),
        "camera": scores.counts_by(tables, "camera"),
        "aspect": scores.aspects(tables),
        "sizes": scores.counts_by(tables, "width || '×' || height")[:40] if has_clips else [],
        "captions": data.captions(tables),
        "caption_facts": statistics(tables),
        "n_errors": n_errors,
        "errors": errors,
    }


def clips(live: Live, asked: dict[str, str]) -> dict[str, Any]:
    """A page of clips.

    `asked` holds the fields of `Wanted`, and q (words, or a clip's id), like (a clip) or text (by CLIP).
    """
    view = live.now
    wanted = wanted_of(asked)
    searches = [name for name in ("q", "like", "text") if asked.get(name)]
    if len(searches) > 1:
        raise BadInput(f"search by one thing at a time, not by {' and '.join(searches)}.")
    captions = view.captions.value
    hits, matches, remarks = None, None, ""
    if asked.get("q") and (by_id := _by_id(view, asked["q"])) is not None:
        hits, remarks = by_id
    elif asked.get("q"):
        hits, matches, remarks = _by_words(view, captions, asked["q"])
    elif searches:
        hits, remarks = _by_embedding(live, view, asked)
    found = view.rows.find(wanted, hits)
    cards = view.rows.cards(found.rows)
    _add_captions(view, captions, cards)
    _add_words(view, cards)
    if matches is not None:
        _add_snippets(captions, cards, found, matches)
    elif asked.get("like") or asked.get("text"):
        for card, row in zip(cards, found.rows, strict=True):
            card["cosine"] = found.values[row]
    return {
        "view": view.number,
        "total": found.total,
        "offset": wanted.offset,
        "remarks": remarks,
        "clips": cards,
    }


def wanted_of(asked: dict[str, str]) -> Wanted:
    """The filter in an address. Raises BadInput for what is no number."""
    numbers: dict[str, Any] = {}
    for name, kind in (("least", float), ("most", float), ("offset", int), ("limit", int)):
        if text := asked.get(name, ""):
            try:
                numbers[name] = kind(text)
                if math.isnan(numbers[name]):
                    raise ValueError("nothing lies above or below nan")
            except ValueError as error:
                raise BadInput(f"{name}={text[:60]!r} is no number.") from error
    words: dict[str, Any] = {
        name: asked.get(name, "")[:1000] for name in ("state", "reason", "score", "camera", "source", "sort")
    }
    return Wanted(**words, **numbers, descending=asked.get("order") == "desc")


def clip(live: Live, clip_id: str) -> dict[str, Any]:
    """All that the tables say of one clip, and what people said of it, the newest first."""
    view = live.now
    row = view.rows.row_of(clip_id)
    if row is None:
        raise BadInput("there is no such clip any more.")
    (card,) = view.rows.cards([row])
    # As the tables have them now, which takes ten times as long while the search has those of before.
    _add_captions(view, None if view.captions.is_old else view.captions.value, [card])
    _add_words(view, [card])
    card["history"] = [*reversed(view.words.get(clip_id, []))]
    card["score_errors"] = view.rows.score_errors(row)
    return card


def story(live: Live, clip_id: str) -> dict[str, Any]:
    """The lines of `reelmill inspect`."""
    return {"story": live.now.ask(_story, clip_id)}


def word_of(body: dict[str, Any], person: str | None) -> dict[str, Any]:
    """keep, note and author of a decision that was sent. Who came by a token of their own is the author."""
    keep, note, author = body.get("keep", "missing"), body.get("note"), body.get("author")
    are_texts = all(text is None or isinstance(text, str) for text in (note, author))
    if not (keep is None or isinstance(keep, bool)) or not are_texts:
        raise BadInput('send {"keep": true, false or null, "note": "…", "author": "…"}.')
    return {"keep": keep, "note": note, "author": person or author}


def decide(live: Live) -> dict[str, Any]:
    """Decide again; how many clips were kept before and are now."""
    before = live.now.rows.find(Wanted(state="kept", limit=1)).total
    live.decide()
    return {
        "before": before,
        "kept": live.now.rows.find(Wanted(state="kept", limit=1)).total,
        "view": live.now.number,
    }


def _story(tables: duckdb.DuckDBPyConnection, clip_id: str) -> list[str]:
    from pipelines import inspect

    try:
        return list(inspect.story(tables, clip_id))
    except TypeError as error:  # tables that others wrote may lack what ours always have
        return [f"a column that `reelmill inspect` needs is null: {error}"]


def _by_id(view: View, words: str) -> tuple[Hits, str] | None:
    """The clips whose id is `words`, or begins so, as pasted from SQL or a log; None where none does."""
    text = words.strip()
    if len(text) < LEAST_OF_ID:
        return None
    rows = view.rows.beginning_with(text)
    told = "The clip of this id." if len(rows) == 1 else f"{len(rows):,} clips whose ids begin so."
    return ((rows, np.zeros(len(rows))), told) if len(rows) else None


def _by_words(view: View, captions: Captions | None, words: str) -> tuple[Hits, Matches, str]:
    """The clips whose captions hold `words`, best first; each counts by its best caption."""
    if captions is None:
        raise BadInput(f"the captions are still being read for the search ({view.captions.told}).")
    matches = captions.search(words)
    rows = view.rows_of(captions.clip_ids)[matches.captions]
    unique, first = np.unique(rows, return_index=True)
    is_clip = unique >= 0
    remarks = ""
    if not captions.has_index:
        remarks = "This Python's SQLite has no full-text index (FTS5): texts that hold the words, in no order of rank."
    elif not matches.is_ranked:
        remarks = f"{matches.total:,} captions match, more than the {MOST_RANKED:,} that are ranked: in order of clips."
    return (unique[is_clip], -first[is_clip].astype(np.float64)), matches, remarks


def _by_embedding(live: Live, view: View, asked: dict[str, str]) -> tuple[Hits, str]:
    """The clips by their cosine with an example or a text."""
    vectors = view.vectors.value
    if vectors is None:
        raise BadInput(f"the embeddings are still being read ({view.vectors.told}).")
    if asked.get("like"):
        model, cosines = vectors.like(asked["like"])
    else:
        if not vectors.models:
            raise BadInput(NONE)
        model = vectors.models[0]
        cosines = vectors.near(live.texts.feature(asked["text"], model), model)
    rows = view.rows_of(vectors.clip_ids(model))
    is_other = (rows >= 0) & ~np.isnan(cosines)
    told = f"By cosine of CLIP embeddings ({model})." if model else "By cosine of CLIP embeddings."
    if len(vectors.models) > 1:
        told += f" {len(vectors) - vectors.count(model):,} clips have embeddings by another model."
    return (rows[is_other], cosines[is_other].astype(np.float64)), told


def _add_captions(view: View, captions: Captions | None, cards: list[dict[str, Any]]) -> None:
    clip_ids = [card["clip_id"] for card in cards]
    texts = captions.of(clip_ids) if captions is not None else view.ask(captions_in_tables, clip_ids)
    for card in cards:
        card["captions"] = texts.get(card["clip_id"], [])


def _add_words(view: View, cards: list[dict[str, Any]]) -> None:
    """What a person said last of each clip; `pending` where decisions/ does not follow it yet."""
    for card in cards:
        told = view.words.get(card["clip_id"], [])
        word = told[-1] if told else None
        card["word"] = word
        said, decided = (word["keep"] if word else None), card["keep"]
        is_new = said is not None and said != decided
        taken_back = said is None and card["override"] is not None
        card["pending"] = is_new or taken_back


def _add_snippets(captions: Captions, cards: list[dict[str, Any]], found: Found, matches: Matches) -> None:
    best = {row: int(matches.captions[int(-found.values[row])]) for row in found.rows}
    snippets = captions.snippets(matches, list(best.values()))
    for card, row in zip(cards, found.rows, strict=True):
        card["snippet"] = snippets.get(best[row])
        card["marks"] = MARKS
