"""`reelmill recaption --preview 20`: captions of a few clips on a page.

    chosen = spread(clips, 20)
    write_page(dataset, chosen, lines)         # DATASET/report/captions.html; lines of pipelines.recaption_bill

The page shows each clip in motion beside its captions: a row for each kind, in it a column for each captioner. It
holds no script, and every text in it is escaped: captions are what strangers and models wrote.
"""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from curate.dataset import Dataset
from recaption.plan import KeptClip
from recaption.reading import PART

PAGE = ("report", "captions.html")


def spread(clips: Sequence[KeptClip], count: int) -> list[KeptClip]:
    """`count` clips evenly through the list, from the centres of equal parts."""
    count = min(count, len(clips))
    return [clips[int((part + 0.5) * len(clips) / count)] for part in range(count)]


def write_page(dataset: Dataset, clips: list[KeptClip], lines: list[str]) -> str:
    """Write the page; returns where it lies."""
    from pipelines.report_pictures import add_strips

    ids = {clip.span.clip_id for clip in clips}
    rows = [row for row in dataset.read("captions").to_pylist() if row["clip_id"] in ids]
    by_clip: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: (*_asked(r), r["created_at"])):
        by_clip[row["clip_id"]].append(row)
    columns = sorted({_who(row) for row in rows if row["kind"] != "original"})
    cards = [
        {"clip_id": c.span.clip_id, "uri": c.uri, "start_s": c.span.start_s, "end_s": c.span.end_s}
        for c in clips
    ]
    add_strips(dataset, cards)
    by_id = {card["clip_id"]: card for card in cards}
    body = "\n".join(
        _card(by_id[clip.span.clip_id], clip, by_clip[clip.span.clip_id], columns) for clip in clips
    )
    made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = _PAGE.format(
        style=_STYLE,
        title=html.escape(f"Captions of {dataset.uri}"),
        about=html.escape(f"{len(clips)} clips, {len(rows)} captions, {made_at}"),
        estimate=html.escape("\n".join(lines)),
        body=body,
    )
    dataset.write_bytes(page.encode(), *PAGE)
    return "/".join([dataset.uri.rstrip("/"), *PAGE])


_ORDER = {"original": 0, "short": 1, "dense": 2, "merged": 3, "rewrite": 4, "structured": 5}
_SCORES = (("clip_score", "CLIP score"), ("clip_margin", "margin"))
_Captioner = tuple[str, str]


def _card(
    card: dict[str, Any], clip: KeptClip, rows: list[dict[str, Any]], columns: Sequence[_Captioner]
) -> str:
    """One clip: its pictures, its facts, and a table with a row per kind and a column per captioner."""
    if card["picture"]:
        count, width, height = card["frames"], card["picture_w"], card["picture_h"]
        seconds = max(1.0, clip.span.end_s - clip.span.start_s)
        picture = (
            f'<div class="film" style="width:{width}px;height:{height}px;'
            f"background-image:url({card['picture']});--to:-{count * width}px;"
            f'animation:play {seconds:.2f}s steps({count}) infinite"></div>'
        )
    else:
        picture = f'<p class="none">no picture: {html.escape(card["no_picture"] or "")}</p>'
    facts = [f"{clip.span.start_s:.2f} to {clip.span.end_s:.2f} s"]
    facts += [f"camera {clip.facts.camera}"] if clip.facts.camera else []
    facts += [f"motion {clip.facts.motion:.1f}"] if clip.facts.motion is not None else []
    name = html.escape(clip.uri.rsplit("/", 1)[-1])
    head = "".join(
        f"<th>{html.escape(captioner)}<br><small>{html.escape(model)}</small></th>"
        for captioner, model in columns
    )
    lines = "".join(_line(list(group), columns) for _, group in groupby(rows, key=_asked))
    lines = lines or f'<tr><td colspan="{len(columns) + 1}">no captions yet</td></tr>'
    return (
        f'<section><div class="left">{picture}<p>{name}<br>{html.escape(", ".join(facts))}<br>'
        f"<code>{html.escape(clip.span.clip_id)}</code></p></div>"
        f"<table><tr><th></th>{head}</tr>{lines}</table></section>"
    )


def _asked(row: dict[str, Any]) -> tuple[int, str, bool, int]:
    """What stands in one row of a clip's table, in their order: a kind, or one window of it."""
    return _ORDER.get(row["kind"], 9), row["kind"], not _is_part(row), row["window"]


def _who(row: dict[str, Any]) -> _Captioner:
    return row["captioner"] or "", row["model"] or ""


def _line(rows: list[dict[str, Any]], columns: Sequence[_Captioner]) -> str:
    """The captions of one kind (and window) of a clip, those of each captioner in its own cell."""
    first = rows[0]
    window = f"<br><small>window {first['window'] + 1}</small>" if _is_part(first) else ""
    head = f"<th>{html.escape(first['kind'])}{window}</th>"
    if first["kind"] == "original":  # nobody's column: people wrote it
        return f'<tr>{head}<td colspan="{max(1, len(columns))}">{"".join(map(_caption, rows))}</td></tr>'
    cells = ("".join(_caption(row) for row in rows if _who(row) == column) for column in columns)
    return f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _caption(row: dict[str, Any]) -> str:
    told = [f"{row[name]:.3f} {label}" for name, label in _SCORES if row[name] is not None]
    told += [] if row["status"] == "ok" else [row["status"]]
    told += row["flags"] or []
    told += [row["prompt_id"]] if row["prompt_id"] else []
    told += ["chosen"] if row["chosen"] else []
    if row["structured"]:
        fields = json.loads(row["structured"])
        text = "<br>".join(f"<b>{html.escape(k)}</b> {html.escape(v)}" for k, v in fields.items() if v)
    else:
        text = html.escape(row["text"] or row["error"] or row["text_raw"] or "")
    state = "" if row["text"] else ' class="bad"'
    return f"<p{state}>{text}<br><small>{html.escape(', '.join(told))}</small></p>"


def _is_part(row: dict[str, Any]) -> bool:
    return PART in (row["flags"] or [])


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }
pre { background: #8881; padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; }
section { display: flex; gap: 1.2rem; border-top: 1px solid #8884; padding: 1.2rem 0; align-items: flex-start; }
.left { flex: 0 0 220px; font-size: .8rem; overflow-wrap: anywhere; }
.film { background-repeat: no-repeat; border-radius: .3rem; max-width: 100%; }
@keyframes play { to { background-position-x: var(--to); } }
@media (prefers-reduced-motion: reduce) { .film { animation: none !important; } }
table { border-collapse: collapse; flex: 1; }
th { text-align: left; font-weight: 600; vertical-align: top; padding: .3rem .8rem .3rem 0; font-size: .85rem; }
td { vertical-align: top; padding: .3rem 1rem .3rem 0; overflow-wrap: anywhere; }
td p { margin: 0 0 .4rem; }
tr + tr > * { border-top: 1px solid #8882; }
small, .none { color: #777; font-weight: 400; }
.bad { color: #b3261e; }
@media (max-width: 760px) { section { flex-direction: column; } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{about}</p><pre>{estimate}</pre>
{body}
</body></html>
"""
