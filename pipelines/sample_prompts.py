"""One command per video: the prompts of the command line and of a file, each with options of its own.

wanted = one_by_one(SampleCommand(..., prompt=["a star"], prompts="more.jsonl"))
wanted[0].config                                     # has one prompt and a seed
wanted[1].where                                      # "more.jsonl, line 1"
asked(wanted[0].config)                              # {"prompt": "a star", "seed": 0}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from curate.errors import BadInput
from model.errors import BadInput as ModelBadInput
from pipelines.sample import SampleCommand
from pipelines.spelling import alternatives, nearest

#: Options that a line of a .jsonl file may have beside `prompt`.
OWN = (
    "seed", "frames", "width", "height", "fps", "image", "video", "extend", "loop", "connect", "edit", "keep",
    "strength", "only_generated", "piece", "context", "stretch",
)  # fmt: skip


#: Seeds below this; noise of later pieces has seeds above (pipelines/generate.py).
SEEDS = 1 << 32


@dataclass(frozen=True)
class Wanted:
    """One video to make.

    Attributes:
        config: the command, with one prompt and the seed of this video.
        where: file and line that ask for it; empty for a prompt of the command line.
    """

    config: SampleCommand
    where: str = ""


@contextmanager
def told_where(where: str) -> Iterator[None]:
    """What cannot be used is told with the line of the file that asks for it."""
    try:
        yield
    except (BadInput, ModelBadInput) as error:
        if not where:
            raise
        raise BadInput(f"{where}: {error}") from error


def one_by_one(config: SampleCommand) -> list[Wanted]:
    """A command for each video: prompts first, then the lines of the file, each `upsample.variants` times.

    Seeds count on from that of the command, or from that of a line for its variants. Without any prompt there is one
    video with an empty one, if a picture or video is given. Raises BadInput.
    """
    if config.upsample.variants < 1:
        raise BadInput(f"--upsample.variants={config.upsample.variants}: give at least 1.")
    rows: list[tuple[str, dict[str, Any]]] = [("", {"prompt": prompt}) for prompt in config.prompt]
    if config.prompts is not None:
        rows += _read(Path(config.prompts))
    if not rows:
        if all(getattr(config, name) is None for name in ("image", "video", "connect", "edit")):
            raise BadInput('there is no prompt: give --prompt "what to show".')
        rows = [("", {"prompt": ""})]
    found: list[Wanted] = []
    for where, row in rows:
        with told_where(where):
            _check_text(row)
            own = {name: row[name] for name in OWN if name in row}
            for variant in range(config.upsample.variants):
                seed = own["seed"] + variant if "seed" in own else config.seed + len(found)
                if not 0 <= seed < SEEDS:
                    raise BadInput(f"--seed={seed}: seeds are from 0 to {SEEDS - 1}.")
                one = replace(config, **{**own, "seed": seed}, prompt=[row["prompt"]], prompts=None)
                found.append(Wanted(one, where))
    return found


def asked(config: SampleCommand, **instead: Any) -> dict[str, Any]:
    """A line of a .jsonl file that asks for the one video of `config`; `instead` replaces some of it."""
    default = {field.name: field.default for field in fields(SampleCommand)}
    found = {name: getattr(config, name) for name in OWN if getattr(config, name) != default[name]}
    return {"prompt": config.prompt[0], "seed": config.seed, **found, **instead}


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Where each line stands, and what it asks for."""
    kind = path.suffix.lower()
    if kind not in (".txt", ".jsonl"):
        raise BadInput(f"--prompts={path}: give a .txt file with one prompt in each line, or a .jsonl file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompts {path}: {error}. Give a text file in UTF-8.") from error
    # Not splitlines: a prompt may hold signs that Unicode counts among line breaks.
    lines = [
        (f"{path}, line {n}", line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise BadInput(f"--prompts={path} has no line.")
    return [(where, {"prompt": line} if kind == ".txt" else _row(line, where)) for where, line in lines]


def _check_text(row: dict[str, Any]) -> None:
    """Raise BadInput for halves of signs, which no file and no model can take."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{row['prompt']!a} is no text (it cannot be written in UTF-8). Write the whole signs."
        ) from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is no JSON: {error.msg} at column {error.colno}.") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise BadInput(f"{where} is no JSON that can be read: {error}.") from error
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
