"""One command per video: the prompts of the command line and of a file, each with options of its own.

wanted = one_by_one(SampleCommand(..., prompt=["a star"], prompts="more.jsonl"))    # each has one prompt and a seed
asked(wanted[0])                                                                    # {"prompt": "a star", "seed": 0}
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from curate.errors import BadInput
from pipelines.sample import SampleCommand
from pipelines.spelling import alternatives, nearest

#: Options that a line of a .jsonl file may have beside `prompt`.
OWN = (
    "seed", "frames", "width", "height", "fps", "image", "video", "extend", "loop", "connect", "edit", "keep",
    "strength", "only_generated", "piece", "context", "stretch",
)  # fmt: skip


def one_by_one(config: SampleCommand) -> list[SampleCommand]:
    """A command for each video: prompts first, then the lines of the file, each `upsample.variants` times.

    Seeds count on from that of the command, or from that of a line for its variants. Without any prompt there is one
    video with an empty one, if a picture or video is given. Raises BadInput.
    """
    if config.upsample.variants < 1:
        raise BadInput(f"--upsample.variants={config.upsample.variants}: give at least 1.")
    rows: list[dict[str, Any]] = [{"prompt": prompt} for prompt in config.prompt]
    if config.prompts is not None:
        rows += _read(Path(config.prompts))
    if not rows:
        if all(getattr(config, name) is None for name in ("image", "video", "connect", "edit")):
            raise BadInput('there is no prompt: give --prompt "what to show".')
        rows = [{"prompt": ""}]
    found: list[SampleCommand] = []
    for row in rows:
        own = {name: row[name] for name in OWN if name in row}
        for variant in range(config.upsample.variants):
            seed = own["seed"] + variant if "seed" in own else config.seed + len(found)
            found.append(replace(config, **{**own, "seed": seed}, prompt=[row["prompt"]], prompts=None))
    return found


def asked(config: SampleCommand, **instead: Any) -> dict[str, Any]:
    """A line of a .jsonl file that asks for the one video of `config`; `instead` replaces some of it."""
    default = {field.name: field.default for field in fields(SampleCommand)}
    found = {name: getattr(config, name) for name in OWN if getattr(config, name) != default[name]}
    return {"prompt": config.prompt[0], "seed": config.seed, **found, **instead}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompts {path}: {error}.") from error
    if path.suffix not in (".txt", ".jsonl"):
        raise BadInput(f"--prompts={path}: give a .txt file with one prompt in each line, or a .jsonl file.")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise BadInput(f"--prompts={path} has no line.")
    if path.suffix == ".txt":
        return [{"prompt": line.strip()} for _, line in lines]
    return [_row(line, f"{path}, line {number}") for number, line in lines]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is no JSON: {error}.") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise BadInput(f'{where} must be an object with a "prompt", such as {{"prompt": "a star"}}.')
    hints = get_type_hints(SampleCommand)
    for name, value in row.items():
        if name != "prompt" and name not in OWN:
            raise BadInput(f"{where} has no use for {name!r}; the nearest is {nearest(name, OWN)!r}.")
        if name != "prompt" and not any(_fits(value, hint) for hint in alternatives(hints[name])):
            raise BadInput(
                f"{where}: {json.dumps(value)} cannot be {name}. `reelmill sample --help` tells what can."
            )
    return row


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type of SampleCommand."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(part, get_args(hint)[0]) for part in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
