"""What `reelmill evaluate` found: results.json, table.md, pictures, and what was seen in every video.

    told = publish(config, measured)             # writes them, returns the table
    figures(measured[0])["captioner"]["colour"]  # {"asked": 500, "right": 471, "none": 3, "accuracy": 0.942, ...}

An error is the standard error of a share, sqrt(p (1 - p) / n): it tells what other prompts would change, not what
another training would.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.demo.prompts import VALUES, Prompt, counted
from pipelines.demo.scene import ATTRIBUTES
from pipelines.evaluate_judge import Seen
from pipelines.evaluate_models import Setting
from pipelines.evaluate_world import Measured
from pipelines.sample_sheet import write_strip
from pipelines.whole_file import write_json

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateConfig

PERFECT, GUESS, ALL = "true clips through the VAE", "a blind guess", "all"
#: What the figures are, for those who read results.json alone.
MEASURES = {
    "captioner": "share of the attributes named by the prompts that the embedded captioner's short caption of the "
    "video names as well; one that it does not name is wrong",
    "pixels": "the same, seen by the pixel oracle, which knows how the world is drawn and is no model",
    "flow": "the same for the direction of what moves otherwise than the camera, by optical flow",
    "flicker": "mean |frame - median of it and its two neighbours| over all pixels, levels of 255",
    "coca_frechet": "Fréchet distance between the videos and the true clips of the same prompts, features of the "
    "visual tower of the embedded CoCa; not FVD, and only comparable for the same number of prompts",
}


def publish(config: EvaluateConfig, measured: Sequence[Measured]) -> str:
    """Write everything into config.out; returns the tables as they are printed."""
    from pipelines.evaluate_plot import plot, plot_scaling

    out = Path(config.out)
    rows = [row_of(one) for one in measured]
    guess = blind_guess(measured[0].prompts)
    write_json(
        out / "results.json",
        {
            "date": datetime.date.today().isoformat(),
            "machine": _machine(config.device),
            "config": asdict(config),
            "measures": MEASURES,
            "rows": rows,
            "blind_guess": guess,
        },
    )
    for one, row in zip(measured, rows, strict=True):
        stem = re.sub(r"[^\w.-]+", "-", row["name"]).strip("-")
        write_lines(out / f"{stem}.jsonl", videos(one))
        write_strip(out / f"{stem}.png", one.shown, [p.text for p in one.prompts[: len(one.shown)]])
    plot(out / "evaluation.png", rows, guess)
    if len({row["tokens"] for row in rows} - {None}) > 1:
        plot_scaling(out / "scaling.png", rows, guess)
    told = tables(rows, guess)
    (out / "table.md").write_text(told)
    return f"{told}\n{out}: results.json, table.md, {', '.join(sorted(p.name for p in out.glob('*.png')))}"


def row_of(measured: Measured) -> dict[str, Any]:
    """One row of results.json: a model or the true clips, and its figures."""
    checkpoint, setting = measured.checkpoint, measured.setting
    told: dict[str, Any] = {
        "name": PERFECT,
        "checkpoint": None,
        "step": None,
        "tokens": None,
        "parameters": None,
    }
    if checkpoint is not None:
        told = {name: getattr(checkpoint, name) for name in ("name", "step", "tokens", "parameters")}
        told |= {"checkpoint": str(checkpoint.folder), "model": checkpoint.about["model"]}
    return told | {"setting": asdict(setting), "prompts": len(measured.prompts), **figures(measured)}


def figures(measured: Measured) -> dict[str, Any]:
    """Counts and shares by judge and attribute, mean flicker, and distance."""
    asked, seen = [prompt.asked for prompt in measured.prompts], measured.seen
    flickers = [one.flicker for one in seen if one.flicker is not None]
    return {
        "captioner": shares(counted(asked, [one.captioner for one in seen])),
        "pixels": shares(counted(asked, [one.pixels for one in seen])),
        "flow": {"direction": shares(counted(asked, [by_flow(one) for one in seen]))["direction"]},
        "flicker": sum(flickers) / len(flickers) if flickers else None,
        "coca_frechet": measured.distance,
    }


def by_flow(seen: Seen) -> dict[str, str | None]:
    """The one attribute that optical flow can tell, and null for the others."""
    return {**dict.fromkeys(ATTRIBUTES), "direction": seen.flow}


def shares(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, Any]]:
    """The counts with accuracy and standard error; `all` is every attribute of every prompt."""
    total = {key: sum(count[key] for count in counts.values()) for key in ("asked", "right", "none")}
    found: dict[str, dict[str, Any]] = {}
    for name, count in (counts | {ALL: total}).items():
        n = count["asked"]
        share = count["right"] / n if n else None  # none if no prompt names it
        error = None if share is None else (share * (1 - share) / n) ** 0.5
        found[name] = count | {"accuracy": share, "error": error}
    return found


def blind_guess(prompts: Sequence[Prompt]) -> dict[str, float | None]:
    """Accuracy of drawing every attribute that the prompts name at random."""
    asked = [name for prompt in prompts for name in prompt.asked]
    by_all = sum(1 / len(VALUES[name]) for name in asked) / len(asked) if asked else None
    return {**{name: 1 / len(values) for name, values in VALUES.items()}, ALL: by_all}


def tables(rows: Sequence[dict[str, Any]], guess: dict[str, float | None]) -> str:
    """Two tables in Markdown."""
    names = (*ATTRIBUTES, ALL)
    head = ["model", "parameters", "tokens", *names, "direction by flow", "flicker", "CoCa Fréchet"]
    body = [
        [
            *_who(row, rows),
            *(_share(row["captioner"][name]["accuracy"]) for name in names),
            _share(row["flow"]["direction"]["accuracy"]),
            *("–" if row[name] is None else f"{row[name]:.3g}" for name in ("flicker", "coca_frechet")),
        ]
        for row in rows
    ]
    body.append(
        [GUESS, "", "", *(_share(guess[name]) for name in names), _share(guess["direction"]), "–", "–"]
    )
    pixels = [
        [*_who(row, rows), *(_share(row["pixels"][name]["accuracy"]) for name in names)] for row in rows
    ]
    pixels.append([GUESS, "", "", *(_share(guess[name]) for name in names)])
    worst = max(row["captioner"][name]["error"] or 0 for row in rows for name in names)
    return "\n".join(
        [
            f"{rows[0]['prompts']} prompts for held-out combinations. Share of the attributes that the captioner finds",
            f"again (standard error at most {worst:.3f}), direction by optical flow, flicker in levels of 255, Fréchet",
            "distance of CoCa's features from the true clips:",
            "",
            *markdown(head, body),
            "",
            "The same attributes, read from the pixels without any model:",
            "",
            *markdown(["model", "parameters", "tokens", *names], pixels),
            "",
        ]
    )


def videos(measured: Measured) -> list[dict[str, Any]]:
    """What was asked for and what was seen, one row per video."""
    pairs = zip(measured.prompts, measured.seen, strict=True)
    return [
        {"number": number, "seed": prompt.seed, "prompt": prompt.text, "asked": prompt.asked}
        | seen.told()
        | {"scene": asdict(prompt.scene)}
        for number, (prompt, seen) in enumerate(pairs)
    ]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines; the file appears whole."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    os.replace(temporary, path)


def _who(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    name = row["name"]
    if len({str(one["setting"]) for one in rows}) > 1:  # several VAEs, sizes or lengths: which is it?
        name = f"{name} ({Setting(**row['setting'])})"
    return [name, *("" if row[key] is None else f"{row[key]:,}" for key in ("parameters", "tokens"))]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def markdown(head: list[str], body: list[list[str]]) -> list[str]:
    """The lines of a table."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return [f"| {' | '.join(row)} |" for row in rows]


def _machine(device: str) -> dict[str, Any]:
    is_cuda = device != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if is_cuda else platform.machine(),
        "cores": os.cpu_count(),
    }
