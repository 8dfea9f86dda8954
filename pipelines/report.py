"""One self-contained HTML page that shows a dataset: what came in, what was kept and why, captions, errors.

    reelmill report --dataset films.reel                     # -> films.reel/report/index.html
    reelmill report --dataset films.reel --run runs/first --out page.html

The page needs no network and no server: pictures and samples are inside it. Every text from footage, captions
and errors reaches the page as data and is shown as text, never as HTML (pipelines/report_page/).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput

if TYPE_CHECKING:
    from curate.dataset import Dataset

PAGE = Path(__file__).with_name("report_page")
SCRIPTS = ("build", "funnel", "scores", "clips", "training", "page")  # in this order
CARD = (
    "clip_id", "source_caption", "keep", "reason", "reasons", "uri", "start_s", "end_s", "n_frames", "fps",
    "width", "height", "camera", "motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area",
    "overlay_area", "aesthetic", "clip_text_sim", "nsfw", "picture", "no_picture", "frames", "picture_w",
    "picture_h", "captions", "bucket",
)  # fmt: skip


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
    page = render(gather(dataset, config)).encode()
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
    from pipelines.progress import Progress
    from pipelines.query import connect
    from pipelines.report_pictures import add_strips
    from pipelines.report_runs import runs, samples

    tables = connect(dataset)
    shown = runs(dataset, "runs") if config.run is None else runs(Dataset(config.run), "")
    if config.run is not None and not shown:
        raise BadInput(f"{config.run} holds no metrics.jsonl; give the folder of a training run.")
    clips = data.gallery(tables, config.gallery)
    with Progress("report", total=len(clips), unit="clips") as progress:
        add_strips(dataset, clips, progress.advance)
    n_errors, errors = data.errors(tables)
    return {
        "dataset": config.dataset,
        "made_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "funnel": data.funnel(tables),
        "histograms": scores.histograms(tables),
        "camera": scores.counts_by(tables, "camera"),
        "aspect": scores.counts_by(tables, "width || '×' || height"),
        "captions": data.captions(tables),
        "gallery": [{name: clip.get(name) for name in CARD} for clip in clips],
        "n_errors": n_errors,
        "errors": errors,
        "runs": shown,
        **(
            samples(Dataset(config.samples), "")
            if config.samples
            else {"samples": [], "samples_left_out": []}
        ),
    }


def render(values: dict[str, Any]) -> str:
    """The page with its style, script and data inside. Nothing in `values` can become markup."""
    style = (PAGE / "page.css").read_text("utf-8")
    script = "\n".join((PAGE / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    # Only this very script may run, even if some text were to find its way into the markup.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = json.dumps(_finite(values), allow_nan=False, separators=(",", ":"))
    # Inside a script element only `<` could end it; the others are for older parsers.
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    parts = {"{{style}}": style, "{{script}}": script, "{{digest}}": digest, "{{data}}": data}
    page = (PAGE / "page.html").read_text("utf-8")
    for mark, text in parts.items():  # data comes last, so that no mark inside it is replaced
        page = page.replace(mark, text)
    return page


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(ReportConfig, report, argv, name="report")


if __name__ == "__main__":
    raise SystemExit(main())
