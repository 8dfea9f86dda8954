"""Checkpoints: CHECKPOINTS/step-00001000/, finished or not there, with all that an exact resume needs.

    model.safetensors      weights                      ema.safetensors       averaged weights
    optimizer.safetensors  the optimizer's means         config.json           model, data and training config
    state.json             step, cursor, what was seen   COMPLETE              the files, written last

Under FSDP2 each rank writes its rows of all tensors, model-00001-of-00008.safetensors and so on (model/pieces.py), and
any number of ranks reads them. There is no pickle in a checkpoint. Noise, captions and order are pure functions of
seed, clip and epoch (train/draws.py), so there is no generator state to keep.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import BadInput
from model.pieces import Pieces, piece_metadata, piece_name
from train.ema import Ema
from train.packing import Cursor
from train.ranks import Ranks
from train.shards import forget_gathered, is_cut, own_rows
from train.store import Store

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimizer steps done, tokens seen by all ranks, and where the data stands."""

    step: int = 0
    tokens: int = 0
    cursor: Cursor = field(default_factory=Cursor)


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor that this rank holds, on the CPU; `start` and `rows` are null of a tensor that is whole."""

    tensor: Tensor
    start: int | None
    rows: int | None


#: By file, what this rank writes into it.
Snapshot = dict[str, dict[str, Rows]]


def step_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """The step of a checkpoint's folder."""
    return int(name.removeprefix("step-"))


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, ranks: Ranks) -> Snapshot:
    """A copy of all that this rank has to write; the training may go on at once.

    Where weights are not cut, rank 0 writes them all.
    """
    weights = dict(model.named_parameters())
    cut = any(map(is_cut, weights.values()))
    if ranks.rank and not cut:
        return {}
    moments = {
        f"{name}:{key}": value
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }
    found: dict[str, dict[str, Rows | None]] = {
        "model": {name: _rows(value, ranks) for name, value in model.state_dict().items()},
        "ema": {name: _rows_like(weights[name], x) for name, x in ema.average.items()},
        "optimizer": {place: _rows(value, ranks) for place, value in moments.items()},
    }
    return {
        file: {name: x for name, x in tensors.items() if x is not None} for file, tensors in found.items()
    }


def _rows_like(weight: Tensor, x: Tensor) -> Rows:
    """Rows x of an average, which are those of its weight."""
    return Rows(_copy(x), *(own_rows(weight)[1:] if is_cut(weight) else (None, None)))


def _rows(x: Tensor, ranks: Ranks) -> Rows | None:
    """None where the tensor is whole, and another rank's to write."""
    if is_cut(x):
        local, start, rows = own_rows(x)
        return Rows(_copy(local), start, rows)
    return None if ranks.rank else Rows(_copy(own_rows(x)[0]), None, None)


def _copy(x: Tensor) -> Tensor:
    """On the CPU, and not x itself: the next step changes that."""
    x = x.detach()
    return x.cpu().contiguous() if x.device.type != "cpu" else x.clone(memory_format=torch.contiguous_format)


def write_pieces(
    store: Store, folder: str, held: Snapshot, rank: int, ranks: int
) -> dict[str, tuple[int, int]]:
    """Write this rank's part of a checkpoint; returns bytes and checksums by file. Raises OSError."""
    written = {}
    is_cut = any(x.start is not None for tensors in held.values() for x in tensors.values())
    for file, tensors in held.items():
        cut = {n: (x.start, x.rows) for n, x in tensors.items() if x.start is not None and x.rows is not None}
        name = piece_name(file, rank, ranks if is_cut else 1)
        path = f"{folder}/{name}"
        written[name] = store.write_tensors(
            path, {n: x.tensor for n, x in tensors.items()}, piece_metadata(cut)
        )
    return written


def complete(
    store: Store, folder: str, files: dict[str, tuple[int, int]], state: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write what is left of a checkpoint whose pieces are all there, COMPLETE last. Raises OSError.

    What else is in the folder goes: pieces of an attempt that was cut off, perhaps on other ranks.
    """
    for name in store.names(folder):
        if name not in files:
            store.remove(f"{folder}/{name}")
    store.write(f"{folder}/state.json", json.dumps(state).encode() + b"\n")
    store.write(f"{folder}/config.json", json.dumps(about, indent=2).encode() + b"\n")
    told = {name: {"bytes": size, "crc32": crc} for name, (size, crc) in sorted(files.items())}
    store.write(f"{folder}/COMPLETE", json.dumps(told, indent=2).encode() + b"\n")


def described(progress: Progress, ema: Ema, seen: dict[str, Any]) -> dict[str, Any]:
    """state.json: how far the run is, and `seen`, what else its future depends on."""
    cursor = asdict(progress.cursor)
    return {"step": progress.step, "tokens": progress.tokens, **cursor, "ema": ema.updates, **seen}


def remove_all_but(store: Store, keep: int, newest: str) -> None:
    """Delete all checkpoints up to `newest`, which is finished, but the last `keep` finished ones. Raises OSError.

    Later ones are left alone: the run went on from an earlier one, or back to it.
    """
    done = [name for name in finished(store) if name <= newest]
    for name in store.names():
        if _NAME.fullmatch(name) and name not in done[-keep:] and name <= newest:
            store.remove(
                f"{name}/COMPLETE"
            )  # a deletion that is cut off leaves no checkpoint that looks whole
            store.remove(name)


def finished(store: Store) -> list[str]:
    """The finished checkpoints of a store by name, oldest first."""
    return [name for name in store.names() if _NAME.fullmatch(name) and "COMPLETE" in store.names(name)]


def checkpoints(run: Path) -> list[Path]:
    """The finished checkpoints of a run on a disk, oldest first."""
    return [run / "checkpoints" / name for name in finished(Store(f"{run}/checkpoints"))]


def newest_whole(store: Store, ranks: Ranks) -> str | None:
    """The newest checkpoint whose files are as they were written; a warning names each that is not.

    Those are not taken for finished ones any more, by nobody. Ranks share the work of reading them. Raises BadInput if
    there are checkpoints and none is whole.
    """
    passed_over: dict[str, str] = {}
    there = finished(store) if ranks.rank == 0 else []
    there = ranks.gather(there)[0]
    for name in reversed(there):
        amiss = next(filter(None, ranks.gather(_damage(store, name, ranks))), None)
        if amiss is None:
            for damaged, why in passed_over.items():
                _disown(store, damaged, why)
            return name
        if ranks.rank == 0:
            passed_over[name] = amiss
            logger.warning("%s is damaged (%s): going on from the one before.", store.uri(name), amiss)
    if there:
        raise BadInput(
            f"none of the {len(there)} checkpoints in {store.place} is whole: see the warnings above. Restore one, or "
            "begin a new run (--out)."
        )
    return None


def _disown(store: Store, name: str, why: str) -> None:
    """Mark a damaged checkpoint as one that is not finished; its files stay until newer ones are there."""
    try:
        store.write(f"{name}/DAMAGED", f"{why}\n".encode())
        store.remove(f"{name}/COMPLETE")
    except OSError as error:
        logger.warning("%s could not be marked as damaged: %s", store.uri(name), error)


def _damage(store: Store, name: str, ranks: Ranks) -> str | None:
    """What is wrong with a checkpoint, as far as this rank looks."""
    try:
        if ranks.rank == 0:
            json.loads(store.read(f"{name}/state.json"))["step"]
            json.loads(store.read(f"{name}/config.json"))["model"]
        told = json.loads(store.read(f"{name}/COMPLETE") or b"{}")
        for file, about in [*told.items()][ranks.rank :: ranks.size]:
            if (size := store.size(f"{name}/{file}")) != about["bytes"]:
                return f"{file} has {size} bytes, not {about['bytes']}"
            if store.checksum(f"{name}/{file}") != about["crc32"]:
                return f"{file} has another content than was written"
        if ranks.rank == 0:
            for file in ("model", "ema", "optimizer"):
                Pieces(store.uri(name), file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@torch.no_grad()
def load_checkpoint(
    folder: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema
) -> tuple[Progress, dict[str, Any]]:
    """Put weights, moments and averages back in place, each rank its rows; returns how far the run was, and state.json.

    Raises BadInput if the checkpoint is of another model.
    """
    folder = str(folder)
    state = json.loads(Store(folder).read("state.json"))
    weights = dict(model.named_parameters())
    for file, found in (("model", model.state_dict()), ("ema", None)):
        pieces = Pieces(folder, file)
        for name, weight in (found or weights).items():
            local, start, _ = own_rows(weight)
            target = local if found else ema.average[name]
            if pieces.shapes.get(name) != tuple(weight.shape):
                raise BadInput(
                    f"{folder} has {name} of shape {pieces.shapes.get(name)}, not {tuple(weight.shape)}."
                )
            target.copy_(pieces.rows(name, start, start + (len(local) if local.ndim else 1)))
    forget_gathered(model)
    ema.updates = state["ema"]
    pieces = Pieces(folder, "optimizer")
    for place, shape in pieces.shapes.items():
        name, key = place.rsplit(":", 1)
        weight = weights[name]
        if shape == tuple(weight.shape) and shape:
            value = torch.zeros_like(weight, dtype=pieces.dtypes[place])
            local, start, _ = own_rows(value)
            local.copy_(pieces.rows(place, start, start + len(local)))
        else:  # of a fused AdamW the count too lies on the device
            value = pieces.rows(place, 0, shape[0] if shape else 1).to(weight.device)
        optimizer.state[weight][key] = value
    cursor = Cursor(state["epoch"], state["pack"], state.get("group"))
    return Progress(state["step"], state["tokens"], cursor), state
