"""One self-contained HTML page that shows a dataset: what came in, what was kept and why, captions, errors.

    reelmill report --dataset films.reel                     # -> films.reel/report/index.html
    reelmill report --dataset films.reel --run runs/first --out page.html

The page needs no network and no server: pictures and samples are inside it. Every text from footage, captions
and errors reaches the page as data and is shown as text, never as HTML (pipelines/report_page/).
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput
from pipelines import report_budget as budget

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset

PAGE = Path(__file__).with_name("report_page")
# In this order: they share one scope.
SCRIPTS = (
    "build", "funnel", "scores", "clips", "gallery", "copies", "captions", "training", "errors", "page",
)  # fmt: skip
CARD = (
    "clip_id", "source_caption", "keep", "reason", "reasons", "uri", "start_s", "end_s", "n_frames", "fps",
    "width", "height", "camera", "motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area",
    "overlay_area", "aesthetic", "clip_text_sim", "nsfw", "object_motion", "embedding_spread", "score_errors",
    "override", "picture", "no_picture", "frames", "picture_w", "picture_h", "captions", "bucket",
)  # fmt: skip
SIDE = (
    "clip_id", "uri", "start_s", "end_s", "width", "height", "keep", "is_file", "size_bytes", "duration_s", "picture",
    "no_picture", "frames", "picture_w", "picture_h",
)  # fmt: skip
PAIRS = 12
RUNS = 20


@dataclass(frozen=True)
class ReportConfig:
    """Write one HTML page that shows a dataset: funnel, scores, clips, captions, errors, training.

    Attributes:
        dataset: folder or URI of the dataset.
        run: folder of a training run to show; null shows those in DATASET/runs.
        samples: folder of sampled videos and pictures to show, besides those in the runs.
        out: file to write; null writes DATASET/report/index.html.
        gallery: most kept clips, and most rejected clips, to show with pictures.

    Example:
        reelmill report --dataset films.reel
        reelmill report --dataset films.reel --run runs/first --samples samples --out page.html
    """

    dataset: str
    run: str | None = None
    samples: str | None = None
    out: str | None = None
    gallery: int = 36


def report(config: ReportConfig) -> None:
    """Write the page. Raises BadInput when the dataset holds no table, or `run` no metrics."""
    from curate.dataset import Dataset

    dataset = Dataset(config.dataset)
    if config.out is not None and not Path(config.out).resolve().parent.is_dir():
        raise BadInput(f"cannot write {config.out}: there is no folder {Path(config.out).parent}.")
    page = render(gather(dataset, config)).encode("utf-8", "replace")
    if config.out is None:
        dataset.write_bytes(page, "report", "index.html")
        place = f"{dataset.uri.rstrip('/')}/report/index.html"
    else:
        Path(config.out).write_bytes(page)
        place = str(Path(config.out).resolve())
    print(f"report: {place} ({len(page) / 1e6:.1f} MB)")


def gather(dataset: Dataset, config: ReportConfig) -> dict[str, Any]:
    """Everything the page shows, as plain values."""
    from curate.dataset import Dataset
    from pipelines import report_data as data
    from pipelines import report_scores as scores
    from pipelines.query import connect
    from pipelines.report_captions import statistics
    from pipelines.report_rules import rules_of
    from pipelines.report_runs import runs, samples

    tables = connect(dataset)
    room = budget.Budget(budget.SAMPLES)
    shown = runs(dataset, "runs", room) if config.run is None else runs(Dataset(config.run), "", room)
    if config.run is not None and not shown:
        raise BadInput(f"{config.run} holds no metrics.jsonl; give the folder of a training run.")
    n_errors, errors = data.errors(tables)
    none: dict[str, Any] = {"samples": [], "samples_left_out": [], "n_left_out": 0}
    return {
        "dataset": config.dataset,
        "query": f"reelmill query --dataset {shlex.quote(config.dataset)}",
        "what_if": f"reelmill decide --dataset {shlex.quote(config.dataset)} --what-if motion.min=0.4",
        "made_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "funnel": data.funnel(tables),
        "histograms": scores.histograms(tables, rules_of(dataset), config.dataset),
        "camera": scores.counts_by(tables, "camera"),
        "aspect": scores.aspects(tables),
        "sizes": scores.counts_by(tables, "width || '×' || height")[:40],
        "captions": data.captions(tables),
        "caption_facts": statistics(tables),
        **_pictures(dataset, tables, config.gallery),
        "n_errors": n_errors,
        "errors": budget.within(errors, budget.ERRORS),
        "n_runs": len(shown),
        "runs": shown[:RUNS],
        **(samples(Dataset(config.samples), "", room) if config.samples else none),
    }


def _pictures(dataset: Dataset, tables: duckdb.DuckDBPyConnection, count: int) -> dict[str, Any]:
    """The gallery and the pairs of copies, with as many pictures and words as the page has room for."""
    from pipelines.progress import Progress
    from pipelines.report_copies import copies
    from pipelines.report_data import gallery
    from pipelines.report_pictures import add_strips

    clips = gallery(tables, count)
    found = copies(tables, PAIRS)
    sides = [pair[name] for pair in found["pairs"] for name in ("kept", "copy")]
    with Progress("report", total=len(clips) + len(sides), unit="clips") as progress:
        add_strips(dataset, [*clips, *sides], progress.advance)
    kept = [clip for clip in clips if clip["keep"] is not False]
    rejected = [clip for clip in clips if clip["keep"] is False]
    # In turn, so that a phone shows both at once, and what is left out is left out of both.
    in_turn = [clip for turn in zip_longest(kept, rejected) for clip in turn if clip is not None]
    no_room = budget.keep_pictures(in_turn, budget.GALLERY_PICTURES)
    budget.keep_pictures(sides, budget.COPY_PICTURES)
    cards = [_card(clip) for clip in in_turn]
    sizes = [{**card, "picture": None} for card in cards]
    fitting = {card["clip_id"] for card in budget.within(sizes, budget.CARDS)}
    by_id = {card["clip_id"]: card for card in cards if card["clip_id"] in fitting}
    for pair in found["pairs"]:
        pair |= {side: {name: pair[side].get(name) for name in SIDE} for side in ("kept", "copy")}
    return {
        "gallery": [by_id[clip["clip_id"]] for clip in in_turn if clip["clip_id"] in by_id],
        "left_out": {"pictures": no_room, "cards": len(cards) - len(by_id)},
        "copies": found,
    }


def _card(clip: dict[str, Any]) -> dict[str, Any]:
    card = {name: clip.get(name) for name in CARD}
    return card | {
        "captions": budget.shortened(clip["captions"]),
        "source_caption": budget.cut(clip["source_caption"]),
        "score_errors": {error["key"]: error["value"] for error in clip["score_errors"] or []},
    }


def render(values: dict[str, Any]) -> str:
    """The page with its style, script and data inside. Nothing in `values` can become markup."""
    style = (PAGE / "page.css").read_text("utf-8")
    script = "\n".join((PAGE / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    # Only this very script may run, even if some text were to find its way into the markup.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = budget.written(values)
    parts = {"{{style}}": style, "{{script}}": script, "{{digest}}": digest, "{{data}}": data}
    page = (PAGE / "page.html").read_text("utf-8")
    for mark, text in parts.items():  # data comes last, so that no mark inside it is replaced
        page = page.replace(mark, text)
    return page


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(ReportConfig, report, argv, name="report")


if __name__ == "__main__":
    raise SystemExit(main())
