"""Finishes the captions table after captions were made: cleans again, flags, scores, and chooses those to train on.

    finished = finish(table, clips, current=ids, vectors=vectors)      # pa.Table in, pa.Table out, same rows

Everything here follows from `text_raw` and the measured columns of the clips, so it can be done again at any time
without asking a model: `reelmill recaption` does it at the end of every run, also of one that makes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.tables import CAPTIONS
from recaption.cleaning.clean import CLEANER_VERSION
from recaption.cleaning.repeats import FLAG as REPEATED
from recaption.cleaning.repeats import RepeatGate, find_repeats
from recaption.hints import FACTS, ClipFacts, camera_words, suffix
from recaption.reading import PART, SUFFIX, USABLE, read, without_read_flags
from recaption.trust.choose import ChoicePolicy, choose_all
from recaption.trust.facts import COLUMNS, FactLimits, contradictions
from recaption.trust.scores import SUSPECT, TrustConfig, score, suspects, without_mean

#: Columns of the clips table that finishing needs.
CLIP_COLUMNS = tuple(dict.fromkeys(["clip_id", "camera", "motion", "text_area", "embedding", *COLUMNS]))
#: Flags that are found here; all are taken off before they are looked for again.
FOUND_HERE = (REPEATED, SUSPECT, "fact", "abstained")
#: Flag of captions of which none of a clip and kind could be trusted.
ABSTAINED = "abstained"
#: Outcomes of cleaning, as far as there is a raw text.
OF_CLEANING = (*USABLE, "refused", "repetitive", "wrong_lang", "bad_json", "error")
#: How a server tells that it kept an answer back, whatever of it came.
KEPT_BACK = "content_filter"


@dataclass(frozen=True)
class Finishing:
    """What is trusted, and what is chosen.

    Attributes:
        repeats: when one caption on many clips is too many.
        facts: from where on a measure contradicts a word.
        trust: how captions are compared with other clips.
        choice: which of several captions is taken, and when none is.
    """

    repeats: RepeatGate = field(default_factory=RepeatGate)
    facts: FactLimits = field(default_factory=FactLimits)
    trust: TrustConfig = field(default_factory=TrustConfig)
    choice: ChoicePolicy = field(default_factory=ChoicePolicy)


def finish(
    captions: pa.Table,
    clips: pa.Table,
    *,
    current: Set[str] = frozenset(),
    vectors: np.ndarray | None = None,
    copies: Mapping[str, str] | None = None,
    config: Finishing | None = None,
) -> pa.Table:
    """The captions table with text, flags, scores and `chosen` as they now are; rows and order stay.

    Args:
        captions: rows of CAPTIONS, one per caption_id, cleaned by `recleaned`.
        clips: CLIP_COLUMNS of the clips.
        current: caption_ids that the present configuration asks for; they are preferred among equals.
        vectors: (rows, D) embeddings of the captions by the model that made the clips' embeddings, NaN where there
            is none; null leaves scores null.
        copies: clip_id -> its group of near copies; they may well have one caption.
    """
    config = config or Finishing()
    rows = captions.select(_NEEDED).to_pylist()
    place = {clip_id: i for i, clip_id in enumerate(clips["clip_id"].to_pylist())}
    measured = clips.select(list(COLUMNS)).to_pylist()
    embeddings = _embeddings(clips)
    clip_of = np.array([place.get(row["clip_id"], -1) for row in rows], np.int64)
    kinds = [row["kind"] for row in rows]

    flags = [[f for f in row["flags"] or [] if f.split(":")[0] not in FOUND_HERE] for row in rows]
    for i, row in enumerate(rows):
        if clip_of[i] >= 0 and row["kind"] != "original":
            flags[i] += [c.flag for c in contradictions(row["text"], measured[clip_of[i]], config.facts)]
    seen = np.isfinite(embeddings).all(1) if embeddings.shape[1] else np.zeros(len(embeddings), bool)
    ids = [clip_id for clip_id, there in zip(clips["clip_id"].to_pylist(), seen, strict=True) if there]
    repeats = find_repeats(captions, config.repeats, same_picture=copies, embeddings=(ids, embeddings[seen]))
    everywhere = {caption_id for repeat in repeats for caption_id in repeat.caption_ids}
    for row, marks in zip(rows, flags, strict=True):
        if row["caption_id"] in everywhere:
            marks.append(REPEATED)

    fit: dict[str, float] = {}
    apart: dict[str, np.ndarray] = {}
    clip_score = clip_margin = np.full(len(rows), np.nan, np.float32)
    if vectors is not None and embeddings.shape[1] and vectors.shape[1]:
        scores = score(embeddings, clip_of, vectors, kinds, config.trust)
        clip_score, clip_margin = scores.clip_score, scores.clip_margin
        for i in np.flatnonzero(suspects(scores, kinds, config.trust)).tolist():
            flags[i].append(SUSPECT)
        alone = without_mean(vectors, kinds)
        fit = {row["caption_id"]: float(scores.fit[i]) for i, row in enumerate(rows)}
        apart = {row["caption_id"]: alone[i] for i, row in enumerate(rows)}

    flagged = [row | {"flags": f} for row, f in zip(rows, flags, strict=True)]
    chosen, untrusted = _chosen(flagged, current, fit, apart, config)
    for row, found in zip(rows, flags, strict=True):
        if (row["clip_id"], row["kind"]) in untrusted and row["status"] in USABLE and PART not in found:
            found.append(ABSTAINED)
    return _with_columns(
        captions,
        flags=flags,
        clip_score=_null_for_nan(clip_score),
        clip_margin=_null_for_nan(clip_margin),
        chosen=[row["caption_id"] in chosen for row in rows],
    )


_NEEDED = ["caption_id", "clip_id", "kind", "text", "status", "flags", "created_at", "captioner", "model"]


def _chosen(
    rows: list[dict[str, Any]],
    current: Set[str],
    fit: Mapping[str, float],
    apart: Mapping[str, np.ndarray],
    config: Finishing,
) -> tuple[set[str], set[tuple[str, str]]]:
    """caption_ids that are chosen, and (clip_id, kind) of which no caption can be trusted."""
    # What people wrote is noise that training wants a little of: it is not held to a captioner's standard.
    theirs = [row for row in rows if row["kind"] == "original"]
    ours = [row for row in rows if row["kind"] != "original"]
    choices = {
        **choose_all(theirs, current=current),
        **choose_all(ours, current=current, fit=fit, vectors=apart, policy=config.choice),
    }
    chosen = {choice.caption_id for choice in choices.values() if choice.caption_id is not None}
    return chosen, {group for group, choice in choices.items() if choice.caption_id is None}


def recleaned(captions: pa.Table, clips: pa.Table) -> pa.Table:
    """Rows that an older CLEANER_VERSION made, cleaned anew from `text_raw`; the others as they are.

    A row that the captioner or its server gave up stays so, whatever of a text it has: it never was cleaned.
    """
    columns = ["cleaner_version", "status", "kind", "text_raw", "finish_reason"]
    old = [i for i, row in enumerate(captions.select(columns).to_pylist()) if _of_older_cleaner(row)]
    if not old:
        return captions
    facts = {
        row["clip_id"]: ClipFacts(*(row[name] for name in FACTS))
        for row in clips.select(["clip_id", *FACTS]).to_pylist()
    }
    rows = captions.to_pylist()
    for i in old:
        row = rows[i]
        known, lang = facts.get(row["clip_id"], ClipFacts()), row["lang"] or "en"
        flags = row["flags"] or []
        rows[i] = row | read(
            row["kind"],
            row["text_raw"],
            without_read_flags(flags),
            truncated=row["status"] == "truncated" or row["finish_reason"] == "length",
            camera=camera_words(known, lang),
            suffix=suffix(known) if SUFFIX in flags else "",
            lang=lang,
        )
        rows[i]["cleaner_version"] = CLEANER_VERSION
    return pa.Table.from_pylist(rows, schema=CAPTIONS)


def _of_older_cleaner(row: Mapping[str, Any]) -> bool:
    if row["cleaner_version"] in (None, CLEANER_VERSION) or row["kind"] == "original":
        return False
    # Rows from before the version was left out where nothing was cleaned: an error of the captioner has no words.
    kept_back = row["status"] == "refused" and row["finish_reason"] == KEPT_BACK
    return row["status"] in OF_CLEANING and bool((row["text_raw"] or "").strip()) and not kept_back


def _embeddings(clips: pa.Table) -> np.ndarray:
    """(N, D) float32, rows of NaN for clips without one."""
    found = clips["embedding"].to_pylist()
    width = max((len(vector) for vector in found if vector is not None), default=0)
    out = np.full((len(found), width), np.nan, np.float32)
    for i, vector in enumerate(found):
        if vector is not None and len(vector) == width:
            out[i] = vector
    return out


def _null_for_nan(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _with_columns(table: pa.Table, **columns: list) -> pa.Table:
    for name, values in columns.items():
        place = CAPTIONS.get_field_index(name)
        table = table.set_column(place, CAPTIONS.field(place), pa.array(values, CAPTIONS.field(place).type))
    return table
