"""What `reelmill evaluate` found: results.json, table.md, pictures, and what was seen in every video.

    results = Results(config, checkpoints)       # with what an earlier run into the same folder measured likewise
    results.add(measured)                        # writes everything, so that nothing is lost if the next one breaks
    print(results.publish())                     # the tables

Each row of results.json can be read alone: model, weights, VAE, text encoders, sampler, date, machine, seconds. Its
`digest` is that of all that decides the figures. A row with the same name and digest is not measured again; rows
that were measured in another way make room.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from curate.dataset import config_hash
from pipelines.demo.weights import embedded_name
from pipelines.evaluate_models import Checkpoint, Setting
from pipelines.evaluate_shares import blind_guess, figures
from pipelines.evaluate_table import tables
from pipelines.evaluate_world import PERFECT, Measured, held_out_prompts
from pipelines.sample_sheet import write_strip
from pipelines.whole_file import write_json

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateConfig

#: What the figures are, for those who read results.json alone. Rows with figures of another meaning are not kept.
MEASURES = {
    "captioner": "share of the attributes named by the prompts that the embedded captioner's short caption of the "
    "video names as well; one that it does not name is wrong",
    "pixels": "the same, seen by the pixel oracle, which knows how the world is drawn and is no model",
    "flow": "the same for the direction of what moves otherwise than the camera, by optical flow",
    "flicker": "mean |frame - median of it and its two neighbours| over all pixels, levels of 255",
    "coca_frechet": "Fréchet distance between the videos and the true clips of the same prompts; features of the "
    "visual tower of the embedded CoCa, mean and mean |difference| over views of four moments each that hold all "
    "frames; not FVD, and only comparable for the same number of prompts",
}
#: File names that no row may take.
TAKEN = ("evaluation", "scaling", "results", "table")
MOST_STEM = 60  # characters

Key = tuple[Path | None, Setting]


class Results:
    """The rows of an evaluation, in memory and in config.out: the true clips of each setting, then the checkpoints."""

    def __init__(self, config: EvaluateConfig, checkpoints: Sequence[Checkpoint]) -> None:
        """Take over what config.out holds already. Nothing is written yet."""
        self.config, self.out = config, Path(config.out)
        settings = list(dict.fromkeys(checkpoint.setting for checkpoint in checkpoints))
        subjects = [*((None, setting) for setting in settings), *((c, c.setting) for c in checkpoints)]
        names = [PERFECT if checkpoint is None else checkpoint.name for checkpoint, _ in subjects]
        self.stems = {_key(*subject): stem for subject, stem in zip(subjects, stems(names), strict=True)}
        self.guess = blind_guess([prompt for one in settings for prompt in held_out_prompts(config, one)])
        earlier = {(row.get("digest"), *row.get("files", [])): row for row in self._earlier()}
        self.rows: dict[Key, dict[str, Any]] = {}
        for checkpoint, setting in subjects:
            files = self._files(checkpoint, setting)
            row = earlier.get((digest(config, checkpoint, setting), *files))
            if row is not None and all((self.out / name).is_file() for name in files):
                self.rows[_key(checkpoint, setting)] = row | _named(checkpoint)
        if self.rows:
            print(
                f"evaluate: {len(self.rows)} of {len(subjects)} rows are in {self.out} already, measured in the same "
                "way. Give another --out to measure them again.",
                file=sys.stderr,
            )

    def has(self, checkpoint: Checkpoint | None, setting: Setting) -> bool:
        """Whether it is measured; null for the true clips."""
        return _key(checkpoint, setting) in self.rows

    def add(self, measured: Measured) -> None:
        """Write what was seen in each video and the first videos, then everything anew with this row."""
        self._write_results()  # no row may stand whose files are about to change
        checkpoint, setting = measured.checkpoint, measured.setting
        lines, sheet = self._files(checkpoint, setting)
        write_lines(self.out / lines, videos(measured))
        texts = [prompt.text for prompt in measured.prompts[: len(measured.shown)]]
        write_strip(self.out / sheet, measured.shown, texts)
        self.rows[_key(checkpoint, setting)] = row_of(self.config, measured) | {"files": [lines, sheet]}
        self.publish()

    def publish(self) -> str:
        """Write results.json, the tables and, once there is a model, the pictures; returns the tables."""
        from pipelines.evaluate_plot import plot, plot_scaling

        rows = self._write_results()
        write_text(self.out / "table.md", told := tables(rows, self.guess))
        files = ["results.json", "table.md"]
        if any(row["checkpoint"] is not None for row in rows):
            plot(self.out / "evaluation.png", rows, self.guess)
            files.append("evaluation.png")
        if len({row["tokens"] for row in rows} - {None, 0}) > 1:
            plot_scaling(self.out / "scaling.png", rows, self.guess)
            files.append("scaling.png")
        else:
            (self.out / "scaling.png").unlink(missing_ok=True)  # of other checkpoints
        files += [name for row in rows for name in row["files"]]
        return f"{told}\n{self.out}: {', '.join(files)}"

    def _write_results(self) -> list[dict[str, Any]]:
        rows = [self.rows[key] for key in self.stems if key in self.rows]
        told = {"config": asdict(self.config), "measures": MEASURES, "captioner": embedded_name("coca")}
        write_json(self.out / "results.json", {**told, "rows": rows, "blind_guess": self.guess})
        return rows

    def _files(self, checkpoint: Checkpoint | None, setting: Setting) -> list[str]:
        stem = self.stems[_key(checkpoint, setting)]
        return [f"{stem}.jsonl", f"{stem}.png"]

    def _earlier(self) -> list[dict[str, Any]]:
        """The rows in the folder; none if there are none, or of another command."""
        try:
            told = json.loads((self.out / "results.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return []
        return told.get("rows", []) if isinstance(told, dict) else []


def digest(config: EvaluateConfig, checkpoint: Checkpoint | None, setting: Setting) -> str:
    """Changes with whatever the figures depend on: prompts, judges, setting, and of a model weights and sampler.

    The batch and the device do not count, as they change no more than rounding does.
    """
    asked = [config.prompts, config.manner, config.cameras, config.seed]
    found: list[Any] = [MEASURES, embedded_name("coca"), *asked, asdict(setting)]
    if checkpoint is not None:
        about = [checkpoint.about["model"], checkpoint.about["flow"]]
        found += [checkpoint.weights_id, checkpoint.text_id, about, asdict(config.sampler)]
    return config_hash(found)


def row_of(config: EvaluateConfig, measured: Measured) -> dict[str, Any]:
    """One row of results.json: a model or the true clips, how it was measured, and its figures."""
    checkpoint, setting = measured.checkpoint, measured.setting
    kept = ("step", "tokens", "parameters", "weights_id", "text_id")
    told = _named(checkpoint) | dict.fromkeys((*kept, "weights", "text_encoder", "model", "sampler"))
    if checkpoint is not None:
        told |= {name: getattr(checkpoint, name) for name in kept}
        told |= {"text_encoder": config.text_encoder or checkpoint.about["latents"]["text_encoder"]}
        told |= {"weights": config.weights, "model": checkpoint.about["model"]}
        told |= {"sampler": asdict(config.sampler)}
    return told | {
        "setting": asdict(setting),
        "prompts": len(measured.prompts),
        "date": datetime.date.today().isoformat(),
        "machine": _machine(config.device),
        "seconds": {name: round(seconds, 3) for name, seconds in measured.seconds.items()},
        "digest": digest(config, checkpoint, setting),
        **figures(measured),
    }


def stems(names: Sequence[str]) -> list[str]:
    """A file name without suffix for each of the names, no two the same."""
    found: list[str] = []
    for name in names:
        stem = plain = re.sub(r"[^\w.-]+", "-", name)[-MOST_STEM:].strip("-.") or "model"
        number = 1
        while stem.casefold() in {other.casefold() for other in (*TAKEN, *found)}:
            number += 1
            stem = f"{plain}-{number}"
        found.append(stem)
    return found


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
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """The file appears whole."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    os.replace(temporary, path)


def _key(checkpoint: Checkpoint | None, setting: Setting) -> Key:
    return None if checkpoint is None else checkpoint.folder, setting


def _named(checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is None:
        return {"name": PERFECT, "checkpoint": None}
    return {"name": checkpoint.name, "checkpoint": str(checkpoint.folder)}


def _machine(device: str) -> dict[str, Any]:
    is_cuda = device != "cpu" and torch.cuda.is_available()
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": "cuda" if is_cuda else "cpu",
        "name": torch.cuda.get_device_name() if is_cuda else _processor(),
        "cores": here,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    """As the kernel calls it, where it tells."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
