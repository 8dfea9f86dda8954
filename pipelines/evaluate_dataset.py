"""What `reelmill evaluate --dataset` measures: clips of the shards, and whether their captions say what is to be seen.

    told = evaluate_dataset(config, uri)         # writes results.json, table.md, clips.jsonl, evaluation.png

Of any clips: flicker, and which way their objects move. Of clips of the procedural world also how many of the
attributes that each kind of caption names the judges see. The captions that `reelmill recaption` wrote with the
embedded captioner are from one of these judges; the pixels are the independent one.
"""

from __future__ import annotations

import datetime
import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from av.error import FFmpegError

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines.demo.scene import ATTRIBUTES, DIRECTIONS, STILL
from pipelines.demo.world_oracle import parse
from pipelines.encode_frames import FrameConfig, Shape, fit, read_clip, timing
from pipelines.evaluate_judge import LEAST_SIDE, Judge, Seen
from pipelines.evaluate_results import MEASURES, write_lines, write_text
from pipelines.evaluate_shares import ALL, by_flow, shares
from pipelines.evaluate_table import markdown, share_told
from pipelines.evaluate_world import EVALUATION
from pipelines.progress import Progress
from pipelines.whole_file import write_json, write_png
from train.blend import captions_of

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateConfig

#: What the judges look at: small pictures, the first seconds.
FRAMES = FrameConfig(pixels=128 * 128, side=16, fps=8.0, max_frames=33)
#: In the procedural world the pixel oracle knows nearly every background, in real footage hardly any.
IS_WORLD = 0.5
NONE = "none"  # the object's way is neither straight nor still


def evaluate_dataset(config: EvaluateConfig, uri: str) -> str:
    """Measure `config.prompts` clips; returns the table. Raises BadInput if there is none to measure."""
    dataset = Dataset(uri)
    rows = [row for row in dataset.read("shards").to_pylist() if row["shard"] is not None]
    rows.sort(key=lambda row: row["clip_id"])
    order = np.random.default_rng((EVALUATION, config.seed)).permutation(len(rows))[: config.prompts]
    judge = Judge()
    seen: dict[str, Seen] = {}
    captions: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with Progress("evaluate", total=len(order), unit="clips") as bar:
        for row in (rows[number] for number in order):
            key = row["clip_id"]
            try:
                video, fps, texts = read(dataset, row)
            except (BadInput, FFmpegError, OSError, ValueError) as error:
                failed[key] = f"{type(error).__name__}: {error}"
            else:
                (seen[key],) = judge([video], fps)
                captions[key] = texts
            bar.advance(1, failed=key in failed)
    if not seen:
        raise BadInput(
            f"{uri} has no clip that can be measured ({len(rows)} in shards/, {len(failed)} of them failed). Run "
            f"`reelmill shard --dataset {uri}`."
        )
    out = Path(config.out)
    results = {
        "date": datetime.date.today().isoformat(),
        "dataset": uri,
        "seed": config.seed,
        "measures": MEASURES,
        "clips": len(rows),
        "failed": failed,
        **dataset_figures(list(seen.values()), list(captions.values())),
    }
    write_json(out / "results.json", results)
    write_lines(
        out / "clips.jsonl", [{"clip_id": key, "captions": captions[key], **seen[key].told()} for key in seen]
    )
    plot(out / "evaluation.png", results)
    write_text(out / "table.md", told := table(results))
    return f"{told}\n{out}: results.json, table.md, clips.jsonl, evaluation.png"


def read(dataset: Dataset, row: dict[str, Any]) -> tuple[np.ndarray, float, dict[str, Any]]:
    """A clip by its row of the shards' index: (T, H, W, 3) uint8, frames per second, captions by kind."""
    width, height = fit(row["width"], row["height"], FRAMES)
    if min(width, height) < LEAST_SIDE:
        raise ValueError(f"{width}x{height} pixels are too few to judge")
    frames, fps = timing(row["n_frames"], row["fps"], FRAMES, 1)
    mp4, record = (
        dataset.read_bytes(
            "shards",
            *row["shard"].split("/"),
            start=row[f"{kind}_offset"],
            end=row[f"{kind}_offset"] + row[f"{kind}_size"],
        )
        for kind in ("mp4", "json")
    )
    return read_clip(io.BytesIO(mp4), Shape(frames, height, width), fps), fps, captions_of(json.loads(record))


def dataset_figures(seen: list[Seen], captions: list[dict[str, Any]]) -> dict[str, Any]:
    """Flicker and directions of clips; their captions, texts or fields by kind, against the judges if of the world."""
    flickers = [one.flicker for one in seen if one.flicker is not None]
    ways = Counter(one.flow or NONE for one in seen)
    known = sum(one.pixels["background"] is not None for one in seen) / len(seen)
    return {
        "measured": len(seen),
        "flicker": sum(flickers) / len(flickers) if flickers else None,
        "directions": {name: ways[name] / len(seen) for name in (*DIRECTIONS, STILL, NONE)},
        "known_backgrounds": known,
        "captions": _agreement(seen, captions) if known >= IS_WORLD else None,
    }


def _agreement(seen: list[Seen], captions: list[dict[str, Any]]) -> dict[str, Any]:
    """Kind of caption -> judge -> attribute -> shares."""
    found = {}
    for kind in sorted({kind for texts in captions for kind in texts if isinstance(texts[kind], str)}):
        pairs = [
            (parse(texts[kind]), one) for texts, one in zip(captions, seen, strict=True) if kind in texts
        ]
        asked = [{name: value for name, value in says.items() if value is not None} for says, _ in pairs]
        found[kind] = {
            "captions": len(pairs),
            "captioner": shares(asked, [one.captioner for _, one in pairs]),
            "pixels": shares(asked, [one.pixels for _, one in pairs]),
            "flow": {"direction": shares(asked, [by_flow(one) for _, one in pairs])["direction"]},
        }
    return found


def table(results: dict[str, Any]) -> str:
    """Text and, of clips of the world, a table in Markdown."""
    ways = ", ".join(f"{name} {share:.2f}" for name, share in results["directions"].items())
    flicker = "–" if results["flicker"] is None else f"{results['flicker']:.3g}"
    lines = [
        f"{results['measured']} of {results['clips']} clips measured, {len(results['failed'])} failed.",
        f"flicker {flicker} levels of 255; objects move {ways}",
        "",
    ]
    if results["captions"] is None:
        known = f"{100 * results['known_backgrounds']:.0f} %"
        return "\n".join(
            [*lines, f"Captions: not judged, these are no clips of the procedural world ({known}).", ""]
        )
    names = (*ATTRIBUTES, ALL)
    body = [
        [kind, judge, *(share_told(by[judge][name]) for name in names)]
        for kind, by in results["captions"].items()
        for judge in ("pixels", "captioner")
    ]
    lines += ["Share of the attributes named by the captions that the judges see, ± one standard error:", ""]
    return "\n".join([*lines, *markdown(["captions", "judge", *names], body), ""])


def plot(path: Path, results: dict[str, Any]) -> None:
    """Bars: directions, and of the world the share of named attributes that the pixel oracle sees."""
    from matplotlib.figure import Figure

    kinds = results["captions"] or {}
    figure = Figure(figsize=(11 if kinds else 5, 4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2 if kinds else 1, squeeze=False)[0]
    panels[0].bar(list(results["directions"]), list(results["directions"].values()))
    panels[0].set_title("which way objects move, share of clips", fontsize=10)
    for number, (kind, by) in enumerate(kinds.items()):
        width = 0.84 / len(kinds)
        found = [by["pixels"][name]["accuracy"] for name in ATTRIBUTES]
        at = [x + (number - (len(kinds) - 1) / 2) * width for x in range(len(ATTRIBUTES))]
        panels[1].bar(at, [share or 0 for share in found], 0.92 * width, label=f"{kind} captions")
        for x, share in zip(at, found, strict=True):
            if share is None:  # no caption of this kind names it
                panels[1].text(x, 0.01, "–", ha="center", va="bottom")
    if kinds:
        panels[1].set_xticks(range(len(ATTRIBUTES)), ATTRIBUTES)
        panels[1].set_title("named attributes that the pixels show, share", fontsize=10)
        figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    for panel in panels:
        panel.set_ylim(0, 1.02)
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    write_png(path, figure)
