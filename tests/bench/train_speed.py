"""How fast the transformer trains on one GPU, on synthetic latents: MFU, and useful tokens per second.

    python tests/bench/train_speed.py --json out.json                  # under 8 minutes on an H200; tiny sizes on a CPU
    python tests/bench/train_speed.py --only mfu,lengths --minutes 4

Needs torch, numpy and what model/ and train/ import; diffusers for the part `wan` alone. A step is the trainer's own,
by its own parts: forward under autocast to bfloat16, loss, backward, clipping, fused AdamW, weight average. Batches
are made beforehand and lie on the device, so it is the model that is measured; tests/bench/train_loader.py measures
the reading. No weight is zero, as gates and outputs of a new model are: products with zeros draw less power, and
run faster. Times are medians of steps after a warm-up, which compiles.

MFU is train_flops of the clips (train/flops.py) per second, over the device's peak; null where that is not known.
Packs hold as many clips as fit `budget` tokens. What runs out of memory is tried again with half and a quarter of
them, then with the backward pass computing every other block, or all, again; `ran_out` names the tries.

mfu        packs of equal clips, by model and size of clip; with `varlen` too where `auto` is FlashAttention 3
lengths    the same clips of many lengths (those of tests/bench/packing.py) in three ways: packed; padded, in random
           order, as many to a batch as stay within `budget` when all are as long as the longest; bucketed, likewise,
           but sorted by length. A padded batch is a pack of segments that are all as long as the longest, where
           padding has no loss. Nothing masks it in attention, so that the fused kernel serves it too, and texts are
           not padded: both favour the baseline. Memory for all three is that of `budget` tokens. Useful tokens are
           those of clips; a row is all batches together, its step_s their mean
wan        diffusers' WanTransformer3DModel of the same geometry and as many weights, by the same loop, batches of
           equal clips with texts filled up to the same length; eager and with compiled blocks, as our trainer does
attention  each backend, on a pack of equal clips and on one of many lengths
recompute  activation checkpointing: none, every other block (selective), all (full)
compile    blocks compiled or not

The parts come in the order of their worth. A case begins while at least as much time is left as the case before it
took; others are left out, and the last table and the JSON say so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

if not __package__:  # run as a script: what is imported is found from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from model.config import AttentionBackend
from model.errors import BadInput
from tests.bench.record import machine
from tests.bench.train_cases import ALL, Cases
from tests.bench.train_figures import print_figures, summary
from tests.bench.train_sizes import CPU, GPU, Scale
from tests.bench.train_steps import Clock, Row

PARTS = ("mfu", "lengths", "wan", "attention", "recompute", "compile")


class Run:
    """The parts: each adds the rows of its cases."""

    def __init__(
        self, scale: Scale, device: torch.device, clock: Clock, save: Callable[[Run], None] = lambda run: None
    ) -> None:
        """`save` is called after each case."""
        self.scale, self.clock, self.rows, self._save = scale, clock, list[Row](), save
        self._cases = Cases(scale, device, clock)

    def mfu(self, model: str) -> None:
        is_fa3 = self._cases.usual_backend(model) == "fa3"
        backends: tuple[AttentionBackend, ...] = ("auto", "varlen") if is_fa3 else ("auto",)
        for name in self.scale.clips:
            for backend in backends:
                self._add("mfu", model, name, partial(self._cases.equal, model, name, backend=backend))

    def lengths(self) -> None:
        for way in ("packed", "padded", "bucketed"):
            self._add("lengths", self.scale.main, way, partial(self._cases.way, way))

    def beside_wan(self) -> None:
        for is_compiled in (True, False) if self.scale.compile else (False,):
            case = f"{self.scale.usual}, {'compiled' if is_compiled else 'eager'}"
            self._add("wan", self.scale.wan, case, partial(self._cases.beside_wan, is_compiled))

    def attention(self) -> None:
        model, usual = self.scale.main, self.scale.usual
        backends: tuple[AttentionBackend, ...] = ("varlen", "fa3", "flex", "grouped", "loop")
        for backend in backends:
            of_equal = partial(self._cases.equal, model, usual, backend=backend)
            self._add("attention", model, f"{backend}, {usual}", of_equal)
            of_many = partial(self._cases.many_lengths, backend)
            self._add("attention", model, f"{backend}, many lengths", of_many)

    def recompute(self) -> None:
        model, usual = self.scale.main, self.scale.usual
        for kind in ALL:
            self._add("recompute", model, kind, partial(self._cases.equal, model, usual, tries=(kind,)))

    def compile(self) -> None:
        model, usual = self.scale.main, self.scale.usual
        for case, is_compiled in (("on", True), ("off", False)):
            self._add("compile", model, case, partial(self._cases.equal, model, usual, is_compiled))

    def _add(self, part: str, model: str, case: str, measure: Callable[[], Row]) -> None:
        row: Row = {"part": part, "model": model, "case": case, "reason": None}
        if self.clock.has_room():
            try:
                row |= measure()
            # A case that cannot run is told as such and ends no others.
            except BadInput as error:
                row["reason"] = str(error)
                self.clock.case_is_left_out()
            except Exception as error:  # of any kernel or compiler: what was measured before must not be lost
                row["reason"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self._cases.drop()
            else:
                self.clock.case_is_over()
        else:
            row["reason"] = "left out: no time"
            self.clock.case_is_left_out()
        self.rows.append(row)
        self._save(self)
        told = row["reason"] or f"{row['step_s']:.3f} s a step"
        print(f"{self.clock.seconds:5.0f} s  {part}, {model}, {case}: {told}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here, after each case")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no case that would end later")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    is_cuda = options.device != "cpu" and torch.cuda.is_available()
    if options.device == "cuda" and not is_cuda:
        parser.error("there is no CUDA device here: leave --device out for tiny sizes on the CPU")
    scale, device = (GPU, torch.device("cuda", 0)) if is_cuda else (CPU, torch.device("cpu"))
    if not is_cuda:
        torch.set_num_threads(1)  # sizes so small are no work for several
    about = {"machine": machine(), "device": str(device), "scale": asdict(scale), "parts": parts}

    def save(run: Run) -> None:
        if options.json:
            found = {"seconds": run.clock.seconds, "rows": run.rows, "summary": summary(run.rows, scale)}
            options.json.write_text(json.dumps(about | found, indent=1) + "\n")

    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    run = Run(scale, device, Clock(options.minutes), save)
    # In the order of their worth, but so that models are built and compiled few times.
    jobs: list[tuple[str, Callable[[], None]]] = [
        ("mfu", lambda: run.mfu(scale.main)),
        ("lengths", run.lengths),
        ("mfu", lambda: run.mfu(scale.wan)),
        ("wan", run.beside_wan),
        ("attention", run.attention),
        ("recompute", run.recompute),
        ("compile", run.compile),
    ]
    for part, job in jobs:
        if part in parts:
            job()
    print_figures(run.rows, scale, run.clock.seconds)


if __name__ == "__main__":
    main()
