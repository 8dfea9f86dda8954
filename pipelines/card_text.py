"""The text of a dataset card: YAML header and Markdown. All text of the dataset is escaped: it stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from curate.tables import CLIPS
from pipelines.card import MADE_WITH

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
    "shards": "where each kept clip lies in the tars",
}
UNKNOWN = "unknown"


def escaped(text: Any) -> str:
    """`text` as Markdown that shows it as it is, on one line, in a table or out of one."""
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_\[\]|~$!#])", r"\\\1", plain)
    # A colon of an address as an entity, so that no address in a caption becomes a link.
    return re.sub(r"(?i)(https?|ftp|mailto|www)([:.])", lambda m: f"{m[1]}&#{ord(m[2])};", plain)


class Code(str):
    """Markdown that shows its text as code; what could end it, or a table's cell, is left out."""

    def __new__(cls, text: Any) -> Code:
        return super().__new__(cls, "`" + re.sub(r"[`|\s]+", " ", str(text)) + "`")


def render(config: CardConfig, figures: Figures, pictures: Sequence[str]) -> str:
    """The whole card."""
    name = _name(config)
    parts = [
        f"---\n{_header(config, figures, name)}---\n",
        f"# {escaped(name)}\n",
        _summary(figures),
        "## Tables\n",
        _table(
            ["configuration", "files", "what it holds"],
            [
                [Code(c), Code(path), _ABOUT.get(c, "latents of the kept clips")]
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
            [Code(r["clip_id"]), f"{r['seconds']:.1f}", r["camera"], _cut(r["text"])] for r in figures.samples
        ]
        parts += ["## Some captions\n", _table(["clip", "seconds", "camera", "caption"], rows)]
    parts += ["## Limitations\n", _limitations(config, figures)]
    return "\n".join(parts)


def _name(config: CardConfig) -> str:
    return " ".join((config.name or config.dataset.rstrip("/").rpartition("/")[2] or "dataset").split())


def _header(config: CardConfig, figures: Figures, name: str) -> str:
    count = figures.counts["kept"]
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
    return (
        f"{counts['kept']:,} clips ({_time(counts['hours_kept'])}) kept of {counts['clips']:,} found in "
        f"{counts['files']:,} files (footage: {_time(counts['hours'])}). {MADE_WITH}\n"
    )


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
    for table, told in (("clips", "analysis"), ("decisions", "decision")):
        hashes = ", ".join(Code(value) for value in figures.hashes[table])
        lines.append(f"- Hash of the {told} configuration: {hashes or UNKNOWN}")
    text = "\n".join(lines) + "\n"
    if figures.captioners:
        header = ["captioner", "model", "revision", "prompt", "captions"]
        keys = ["captioner", "model", "revision", "prompt_id", "captions"]
        text += "\nCaptions were made by:\n\n" + _table(
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
        parts.append(_table(["score", "kept are clips with", "clips without that score are"], rows))
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
        parts.append(
            f"By hand, {by_hand['kept']:,} clips were kept, {by_hand['in_spite']:,} of them against the rules, and "
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
    parts = [_table(["stage", "in", "of these"], stages)] if stages else []
    if figures.durations is not None:
        p5, p25, median, p75, p95 = (f"{value:.1f}" for value in figures.durations)
        parts.append(
            f"Kept clips last {median} seconds in the median; half of them {p25} to {p75}, nine in ten {p5} to {p95}.\n"
        )
    for title, rows in (
        ("Shapes", figures.aspects),
        ("Most frequent sizes of kept clips, in pixels", figures.sizes),
        ("Words of a caption", figures.lengths),
    ):
        if rows:
            names = [name.replace("_", " ") for name in rows[0]]
            parts.append(f"{title}:\n\n{_table(names, [list(row.values()) for row in rows])}")
    told = {"durations.png": "Lengths of the clips", "words.png": "Words of the captions"}
    parts += [f"![{told[picture]}](card/{picture})\n" for picture in pictures]
    return "\n".join(parts)


def _limitations(config: CardConfig, figures: Figures) -> str:
    kept, lines = figures.counts["kept"], []
    if config.license is None or config.source is None:
        lines.append("Licence or origin of the footage is unknown: find out before you use or pass it on.")
    if "decisions" not in figures.configs:
        lines.append("Nothing has been rejected yet: every clip counts as kept.")
    if any(row["captioner"] != "sidecar" for row in figures.captioners):
        lines.append(
            "Captions other than those of kind `original` were written by models and not checked by people."
        )
    if figures.failed:
        lines.append(f"Captions without a text: {figures.failed:,}; `status` and `error` say why.")
    lines += [f"The captioner remarks: {escaped(flag)}" for flag in figures.flags]
    for score, told in (
        ("nsfw", "not rated for unsafe content"),
        ("clip_text_sim", "not compared with a caption of their source"),
    ):
        if missing := figures.unscored[score]:
            lines.append(f"{missing:,} of {kept:,} kept clips were {told} (`{score}` is null).")
    lines.append("Whether people shown or heard agreed to it is not recorded.")
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [list(header), ["---"] * len(header), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Code):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else escaped(value)
