"""Packing: how much of the budget is left empty, how unevenly ranks are loaded, and how long a plan takes.

    python -m tests.bench.packing --json out.json
    python -m tests.bench.packing --clips 1000000 --ranks 8 64

The clips are drawn, with a fixed seed, like those of a mixed library: areas of 256 x 256, 320 x 320 and 512 x 512
pixels (40, 40 and 20 %) in 16:9, 9:16, 1:1 and 4:3 (55, 25, 10 and 10 %), lengths log-normal about 4 s (sigma 0.6) cut
to 1 to 10 s at 16 frames per second, every fifth one a picture instead; latents of 4x8x8, patches of 1x2x2, and no clip
longer than the budget. Each epoch gives them conditions in the default mix, two keyframes and an ending of two latent
frames being there.

Padding is the share of computed tokens that belong to no clip: of packs of `budget` tokens; of batches of 8 clips in
shuffled order, each as long as its longest; and of clips all as long as the longest of the dataset. Sorted batches
are of clips of like length, which gives up the random order.

The straggler factor is the time of an epoch over that of evenly loaded ranks: FLOPs of the most loaded rank, summed
over steps, over those of the mean rank, one pack per rank and step; in each step ranks wait for the slowest. FLOPs of
a clip of n tokens are 6·N·n + 12·h·depth·n² (train/flops.py). The order is that of the packing, that of a window of 256
packs, and that of the default window, 24 packs per rank. Worst is the most uneven step but the last, which shares out
what is left.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.config import PRESETS
from tests.bench.record import machine, print_table
from train.conditions import ClipTable, draw_conditions
from train.config import PackingConfig, TrainConfig
from train.data import ClipEntry
from train.flops import train_flops
from train.packing import WINDOW, Cursor, PackPlan

Ints = NDArray[np.int64]
FPS, BATCH = 16, 8


def library(count: int, budget: int) -> list[ClipEntry]:
    """`count` clips as the index of their latents lists them; see the module."""
    rng = np.random.default_rng(20261121)
    side = rng.choice([256, 320, 512], count, p=[0.4, 0.4, 0.2])
    ratio = rng.choice([16 / 9, 9 / 16, 1, 4 / 3], count, p=[0.55, 0.25, 0.1, 0.1])
    height = np.maximum(1, np.round(side / 16 / np.sqrt(ratio))).astype(int)
    width = np.maximum(1, np.round(side / 16 * np.sqrt(ratio))).astype(int)
    seconds = np.clip(np.exp(rng.normal(np.log(4), 0.6, count)), 1, 10)
    frames = 1 + ((FPS * seconds).astype(int) - 1) // 4
    frames[rng.random(count) < 0.2] = 1
    frames = np.minimum(frames, budget // (height * width))
    found = []
    for number, (t, h, w) in enumerate(zip(frames.tolist(), height.tolist(), width.tolist(), strict=True)):
        at = tuple(sorted({max(1, (t - 1) // 2), t - 1})) if t > 1 else ()
        fps = float(FPS) if t > 1 else 0.0
        size = (t, 2 * h, 2 * w)
        found.append(ClipEntry(f"{number:024x}", "", (0, 0), None, size, fps, (), at, min(2, t - 1)))
    return found


def padding(n_tokens: Ints, packs: int, budget: int) -> dict[str, float]:
    """Shares of computed tokens that belong to no clip, by way of batching."""
    shuffled = n_tokens[np.random.default_rng(0).permutation(len(n_tokens))]

    def to_longest(lengths: Ints) -> float:
        whole = lengths[: len(lengths) // BATCH * BATCH].reshape(-1, BATCH)
        return float(1 - whole.sum() / (BATCH * whole.max(axis=1).sum()))

    return {
        "packed": float(1 - n_tokens.sum() / (budget * packs)),
        "pad to longest": to_longest(shuffled),
        "pad to longest, sorted": to_longest(np.sort(n_tokens)),
        "pad to max": float(1 - n_tokens.mean() / n_tokens.max()),
    }


def straggling(plan: PackPlan, ranks: int) -> dict[str, float]:
    """The straggler factor over the first epoch, and that of its worst step."""
    flops = plan.flops(plan.n_tokens(0))
    cursor, work = Cursor(), []
    while cursor.epoch == 0:
        packs, cursor = plan.step(cursor, ranks)
        work.append([flops[pack].sum() for pack in packs])
    loads = np.array(work)  # (steps, ranks)
    return {
        "factor": float(loads.max(axis=1).sum() / loads.mean(axis=1).sum()),
        "worst": float((loads.max(axis=1) / loads.mean(axis=1))[:-1].max(initial=1.0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--budget", type=int, default=32_768)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 8, 16, 64, 256])
    parser.add_argument("--presets", nargs="+", default=["S", "1.3B"], choices=list(PRESETS))
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()

    clips = library(flags.clips, flags.budget)
    config = TrainConfig(dataset="", out="", packing=PackingConfig(budget=flags.budget))
    shape = PRESETS["S"]  # all presets cut clips into the same tokens
    began_s = time.process_time()
    table = ClipTable.of(clips, shape)
    seconds = {"table": time.process_time() - began_s}
    began_s = time.process_time()
    n_tokens = draw_conditions(table, 0, config).n_tokens
    seconds["conditions of an epoch"] = time.process_time() - began_s

    def plan_of(preset: str, window: int | None) -> PackPlan:
        packing = PackingConfig(budget=flags.budget, window=window)
        return PackPlan(lambda epoch: n_tokens, packing, 0, lambda n: train_flops(n, PRESETS[preset]))

    rows: list[dict] = []
    for preset in flags.presets:
        plans = {
            "as packed": plan_of(preset, 1),
            "window": plan_of(preset, 256),
            "default": plan_of(preset, None),
        }
        began_s = time.process_time()
        packs = len(plans["default"].epoch(0, 8))
        seconds[f"plan of an epoch, {preset}"] = time.process_time() - began_s
        for ranks in flags.ranks:
            for order, plan in plans.items():
                window = plan.config.window or WINDOW * ranks
                told = {"order": order, "window": window, **straggling(plan, ranks)}
                rows.append({"preset": preset, "ranks": ranks, **told})
    shares = padding(n_tokens, packs, flags.budget)
    given = int((n_tokens - table.own).sum())
    print(
        f"{len(clips)} clips of {table.own.min()} to {table.own.max()} tokens, mean {table.own.mean():.0f}, and "
        f"{given / n_tokens.sum():.1%} given beside them; {packs} packs of {flags.budget}"
    )
    print_table("Padding", ["batches", "share"], [[name, share] for name, share in shares.items()])
    header = ["preset", "ranks", "order", "window", "factor", "worst"]
    print_table("Straggler factor", header, [[row[name] for name in header] for row in rows])
    print_table("CPU seconds", ["what", "s"], [[name, took] for name, took in seconds.items()])
    if flags.json:
        told = {
            **machine(),
            "settings": vars(flags) | {"json": None},
            "tokens": {"mean": float(table.own.mean()), "most": int(table.own.max()), "packs": packs},
            "padding": shares,
            "stragglers": rows,
            "cpu_s": seconds,
        }
        flags.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
