"""The text of a dataset card: YAML header and Markdown. All text of the dataset is escaped: it stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from curate.tables import CLIPS
from pipelines.card import MADE_WITH
from pipelines.card_flags import MEANINGS
from pipelines.card_markdown import Code, are, counted, cut, escaped, table, were

if TYPE_CHECKING:
    from curate.decide import Range
    from pipelines.card import CardConfig
    from pipelines.card_data import Figures

_SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
}
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_ABOUT = {
    "clips": "one row per shot: where it lies in its source, and its scores",
    "captions": "one row per caption, with what made it and how well it fits its clip",
    "decisions": "one row per shot: kept or not, and why",
    "sources": "one row per input file",
    "shards": "where each clip lies that was cut and packed into the tars",
}
UNKNOWN = "unknown"


def render(config: CardConfig, figures: Figures, pictures: Sequence[str]) -> str:
    """The whole card."""
    name = _name(config)
    parts = [
        f"---\n{_header(config, figures, name)}---\n",
        f"# {escaped(name)}\n",
        _summary(figures),
        "## Tables\n",
        table(
            ["configuration", "files", "what it holds"],
            [
                [Code(c), Code(path), _about(c, figures.stale.get(c, 0))]
                for c, path in figures.configs.items()
            ],
        ),
        "Keys are `clip_id` and `source_id`. The Arrow metadata of each column tells its meaning and unit.\n",
        "The clips themselves are WebDataset tars in `shards/` (KEY.mp4 and KEY.json), where there are some.\n",
        "## Provenance\n",
        _provenance(config, figures),
        *(["## What was kept\n", _kept(figures)] if "decisions" in figures.configs else []),
        "## Figures\n",
        _figures(figures, pictures),
    ]
    if figures.samples:
        rows = [
            [Code(r["clip_id"]), f"{r['seconds']:.1f}", r["camera"], cut(r["text"])] for r in figures.samples
        ]
        parts += ["## Some captions\n", table(["clip", "seconds", "camera", "caption"], rows)]
    parts += ["## Limitations\n", _limitations(config, figures)]
    return "\n".join(parts)


def _about(name: str, stale: int) -> str:
    """What a configuration holds; `stale`: clips in it that are rejected since."""
    told = _ABOUT.get(name, "where the latents of each clip lie that was encoded")
    return f"{told}; {counted(stale, 'clip')} of these {are(stale)} rejected since" if stale else told


def _name(config: CardConfig) -> str:
    return " ".join((config.name or config.dataset.rstrip("/").rpartition("/")[2] or "dataset").split())


def _header(config: CardConfig, figures: Figures, name: str) -> str:
    count = figures.counts["kept" if figures.is_decided else "clips"]
    header: dict[str, Any] = {
        "license": config.license or UNKNOWN,
        "pretty_name": name,
        "task_categories": ["text-to-video"],
        "language": [lang for lang in figures.languages if _LANGUAGE.fullmatch(lang)],
        "size_categories": [next((told for limit, told in _SIZES.items() if count < limit), "n>10M")],
        "tags": ["video", "text-to-video", "video-captioning", *config.tags],
        "configs": [_config(table, path) for table, path in figures.configs.items()],
    }
    header["configs"][0]["default"] = True
    return yaml.safe_dump(
        {k: v for k, v in header.items() if v}, sort_keys=False, allow_unicode=True, width=1000
    )


def _config(table: str, path: str) -> dict[str, Any]:
    return {"config_name": table, "data_files": [{"split": "train", "path": path}]}


def _summary(figures: Figures) -> str:
    counts = figures.counts
    found = f"found in {counted(counts['files'], 'file')} (footage: {_time(counts['hours'])})"
    if not figures.is_decided:
        return (
            f"{counted(counts['clips'], 'clip')} ({_time(counts['hours_found'])}) {found}, not decided yet: "
            f"nobody has said which to keep. {MADE_WITH}\n"
        )
    parts = [f"{counts['kept']:,} kept ({_time(counts['hours_kept'])})", f"{counts['rejected']:,} rejected"]
    if counts["undecided"]:
        parts.append(f"{counts['undecided']:,} not decided yet")
    return f"{counted(counts['clips'], 'clip')} {found}: {', '.join(parts)}. {MADE_WITH}\n"


def _time(hours: float | None) -> str:
    if hours is None:
        return UNKNOWN
    for unit, seconds in (("hours", 3600), ("minutes", 60)):
        if hours * 3600 >= seconds:
            return f"{hours * 3600 / seconds:,.1f} {unit}"
    return f"{hours * 3600:.1f} seconds"


def _provenance(config: CardConfig, figures: Figures) -> str:
    lines = [
        f"- Licence: {escaped(config.license or UNKNOWN)}. The tables hold no licence of single files.",
        f"- Source of the footage: {escaped(config.source or UNKNOWN)}",
        f"- Homepage: {escaped(config.homepage or UNKNOWN)}",
        f"- Contact: {escaped(config.contact or UNKNOWN)}",
    ]
    for name, told in (("clips", "analysis"), ("decisions", "decision")):
        hashes = ", ".join(Code(value) for value in figures.hashes[name])
        lines.append(f"- Hash of the {told} configuration: {hashes or UNKNOWN}")
    text = "\n".join(lines) + "\n"
    if figures.captioners:
        header = ["captioner", "model", "revision", "prompt", "captions"]
        keys = ["captioner", "model", "revision", "prompt_id", "captions"]
        text += "\nCaptions were made by:\n\n" + table(
            header, [[row[k] for k in keys] for row in figures.captioners]
        )
    return text


def _kept(figures: Figures) -> str:
    """The rules in force, and what people decided against them, or beside them."""
    parts = []
    if figures.rules is None:
        parts.append("The decisions do not tell the rules that made them.\n")
    else:
        rows = [
            [Code(score), _bounds(score, kept), "kept" if kept.if_null == "keep" else "rejected"]
            for score, kept in figures.rules.ranges().items()
            if kept.min is not None or kept.max is not None
        ]
        parts.append("By rule, from the scores of a clip:\n")
        parts.append(table(["score", "kept are clips with", "clips without that score are"], rows))
        copies, semantic = figures.rules.copies, figures.rules.semantic
        lines = [
            f"Near copies: {f'rejected, if up to {copies.max_bits:g} of 64 bits differ' if copies.near else 'kept'}.",
            "Clips that show the same: "
            + (
                "kept."
                if semantic.min_similarity is None
                else f"rejected, from a cosine of {semantic.min_similarity:g} on."
            ),
        ]
        if semantic.balance:
            lines.append("`weight` balances clusters of clips that show the like.")
        parts.append("\n".join(f"- {line}" for line in lines) + "\n")
    by_hand = figures.by_hand
    if not by_hand["kept"] + by_hand["rejected"]:
        parts.append("Nobody decided on a clip by hand.\n")
    else:
        against = f" ({by_hand['in_spite']:,} against the rules)" if by_hand["in_spite"] else ""
        parts.append(
            f"By hand, {counted(by_hand['kept'], 'clip')} {were(by_hand['kept'])} kept{against} and "
            f"{by_hand['rejected']:,} rejected; `override` says so.\n"
        )
    return "\n".join(parts)


def _bounds(score: str, kept: Range) -> str:
    unit = b"s" if score == "duration_s" else (CLIPS.field(score).metadata or {}).get(b"unit", b"1")
    bounds = [(kept.min, "at least"), (kept.max, "at most")]
    told = " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)
    return told if unit == b"1" else f"{told} {unit.decode()}"


def _figures(figures: Figures, pictures: Sequence[str]) -> str:
    stages = [
        [stage["name"], f"{stage['total']:,}", ", ".join(f"{p['n']:,} {p['name']}" for p in stage["parts"])]
        for stage in figures.funnel
    ]
    parts = [table(["stage", "in", "of these"], stages)] if stages else []
    if figures.durations is not None:
        p5, p25, median, p75, p95 = (f"{value:.1f}" for value in figures.durations)
        parts.append(
            f"{'Kept clips' if figures.is_decided else 'Clips'} last {median} seconds in the median; "
            f"half of them {p25} to {p75}, nine in ten {p5} to {p95}.\n"
        )
    for title, rows in (
        ("Shapes", figures.aspects),
        (f"Most frequent sizes of {'kept ' if figures.is_decided else ''}clips, in pixels", figures.sizes),
        ("Words of a caption", figures.lengths),
    ):
        if rows:
            names = [name.replace("_", " ") for name in rows[0]]
            parts.append(f"{title}:\n\n{table(names, [list(row.values()) for row in rows])}")
    told = {"durations.png": "Lengths of the clips", "words.png": "Words of the captions"}
    parts += [f"![{told[picture]}](card/{picture})\n" for picture in pictures]
    return "\n".join(parts)


def _limitations(config: CardConfig, figures: Figures) -> str:
    counts = figures.counts
    lines, told_of = [], counts["kept" if figures.is_decided else "clips"]
    if config.license is None or config.source is None:
        lines.append("Licence or origin of the footage is unknown: find out before you use or pass it on.")
    if counts["undecided"]:
        lines.append(
            f"{counts['undecided']:,} of {counted(counts['clips'], 'clip')} {are(counts['undecided'])} not decided "
            "yet: neither kept nor rejected."
        )
    if figures.stale:
        places = " and ".join(f"{n:,} in {Code(name)}" for name, n in figures.stale.items())
        lines.append(
            f"Clips that are rejected since still lie there: {places}. Take the clips that `decisions` keep."
        )
    if any(row["captioner"] != "sidecar" for row in figures.captioners):
        lines.append(
            "Captions other than those of kind `original` were written by models and not checked by people."
        )
    if figures.failed:
        lines.append(f"Captions without a text: {figures.failed:,}; `status` and `error` say why.")
    for score, told in (
        ("nsfw", "not rated for unsafe content"),
        ("clip_text_sim", "not compared with a caption of their source"),
    ):
        if missing := figures.unscored[score]:
            of = counted(told_of, "kept clip" if figures.is_decided else "clip")
            lines.append(f"{missing:,} of {of} {were(missing)} {told} (`{score}` is null).")
    lines.append("Whether people shown or heard agreed to it is not recorded.")
    text = "\n".join(f"- {line}" for line in lines) + "\n"
    if figures.flags:
        rows = [[Code(flag), n, MEANINGS.get(flag)] for flag, n in figures.flags.items()]
        text += "\nFlags of captions:\n\n" + table(["flag", "captions", "what it means"], rows)
    return text
