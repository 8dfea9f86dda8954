"""What it costs the trainer to read its clips, beside plain webdataset over the same shards, in one run.

    python -m tests.bench.train_loader --json out.json
    python -m tests.bench.train_loader --clips 40 --repeats 1 --steps 2      # only to see that it runs
    python -m tests.bench.train_loader --preset XL --budget 32768 --steps 40  # the share of data wait on a GPU

A synthetic dataset of cached latents is written to a temporary folder: clips of 197 to 205 kB of latent and 82 kB of
text features, in two tars. All ways read every clip of it once, from the page cache, one round after the other; the
least time of the rounds counts. Bytes are those of KEY.latent and KEY.text. A thread that reads is one core's work:
torch computes with one thread for each.

webdataset goes through the tars in their order, or shuffles shards and a buffer of 1000 samples, and hands out the
tensors of the safetensors members as they are; in `W processes` by its own WebLoader. The trainer reads in the order
of its packing plan, which is random, by byte ranges; it also looks whether all numbers are finite, whether the clip
is what the index says, and converts to float32. `Feed` is all that comes before the model: the plan of the epoch,
reading, draws, noising and packing, by W threads.

The share of data wait is that of a real training on the same clips, as metrics.jsonl tells it: seconds in which the
loop waits for its feed. The first row holds the start, with the plan of the epoch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from model.config import PRESETS, SizeConfig
from tests.bench.record import machine, print_table
from tests.small_latents import CHANNELS, write_latents
from train.conditions import ClipTable, draw_conditions
from train.config import FeedConfig, PackingConfig, TrainConfig, ValidationConfig
from train.data import LatentDataset
from train.feed import Feed
from train.flops import train_flops
from train.loop import train
from train.packing import Cursor, PackPlan

TEXT_WIDTH = 512
#: Latents (t, h, w) in turn: three of videos and one of a large picture; 1536, 1600, 1568 and 1600 tokens.
SIZES = ((6, 32, 32), (4, 40, 40), (8, 28, 28), (1, 80, 80))
SHUFFLED = 1000

Read = Callable[[], int]


def write(folder: Path, count: int) -> LatentDataset:
    """A dataset of `count` clips whose values are stretches of one row of random numbers."""
    values = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))

    def stretch(start: int, *shape: int) -> torch.Tensor:
        size = torch.Size(shape)
        start %= len(values) - size.numel()
        return values[start : start + size.numel()].view(size)

    clips = []
    for number in range(count):
        texts = {
            "short": stretch(number, 16, TEXT_WIDTH),
            "dense": stretch(number, 64, TEXT_WIDTH),
        }
        size = SIZES[number % len(SIZES)]
        clips.append((f"{number:016x}", stretch(977 * number, CHANNELS, *size), texts))
    write_latents(folder, clips, text_width=TEXT_WIDTH)
    return LatentDataset(str(folder))


def sample_of(members: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What webdataset hands out of a clip."""
    return load(members["latent"]), load(members["text"])


def with_webdataset(data: LatentDataset, workers: int) -> dict[str, Read]:
    """Ways to read by webdataset; none where it is not installed."""
    try:
        import webdataset as wds
    except ImportError:
        return {}
    tars = sorted({f"{data.root}/{clip.shard}" for clip in data.clips})

    def in_order() -> int:
        return count(wds.WebDataset(tars, shardshuffle=False, empty_check=False).map(sample_of))

    def shuffled() -> int:
        found = wds.WebDataset(tars, shardshuffle=len(tars), empty_check=False).shuffle(SHUFFLED)
        return count(found.map(sample_of))

    def by_processes() -> int:
        found = wds.WebDataset(tars, shardshuffle=len(tars), empty_check=False).shuffle(SHUFFLED)
        return count(wds.WebLoader(found.map(sample_of), batch_size=None, num_workers=workers))

    return {
        "webdataset": in_order,
        "webdataset, shuffled": shuffled,
        f"webdataset, shuffled, {workers} processes": by_processes,
    }


def with_trainer(data: LatentDataset, config: TrainConfig) -> dict[str, Read]:
    """Ways of the trainer's own: reading alone, in one thread and in several, and all that the feed does."""
    shape = config.model.config(channels=CHANNELS, text_width=TEXT_WIDTH)
    table = ClipTable.of(data.clips, shape)

    def new_plan() -> PackPlan:
        return PackPlan(
            lambda epoch: draw_conditions(table, epoch, config).n_tokens,
            config.packing,
            config.seed,
            lambda n_tokens: train_flops(n_tokens, shape),
        )

    order = [clip for pack in new_plan().epoch(0, 1) for clip in pack]
    workers = config.feed.workers

    def read() -> int:
        return count(data.read_given(number) for number in order)

    def read_by_threads() -> int:
        with ThreadPoolExecutor(workers) as pool:
            return count(pool.map(data.read_given, order))

    def feed() -> int:
        clips = 0
        with Feed(data, new_plan(), Cursor(), config, shape) as steps:
            while True:
                step = next(steps)
                clips += sum(len(batch.clip_ids) for batch in step.batches)
                if step.after.epoch:
                    return clips

    return {
        "trainer reads": read,
        f"trainer reads, {workers} threads": read_by_threads,
        f"whole Feed, {workers} threads": feed,
    }


def count(samples: Iterable[object]) -> int:
    return sum(1 for _ in samples)


def timed(ways: dict[str, Read], clips: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each round, round after round, so that the noise of the machine falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            read = way()
            seconds[name].append(time.perf_counter() - began)
            if read != clips:
                raise RuntimeError(f"{name} read {read} clips of {clips}")
    return seconds


def data_wait(config: TrainConfig) -> dict[str, Any]:
    """Shares of waiting in a real training: of its first row, and, by steps, of all others."""
    train(config, log=lambda row: None)
    lines = (Path(config.out) / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    shares = [row["data_wait_share"] for row in rows]
    steps = [
        row["step"] - before for row, before in zip(rows, [0, *(row["step"] for row in rows)], strict=False)
    ]
    # A share is of the seconds of its row: steps / steps_per_s.
    seconds = [n / row["steps_per_s"] for n, row in zip(steps, rows, strict=True)]
    later = sum(s * share for s, share in zip(seconds[1:], shares[1:], strict=True))
    return {
        "preset": config.model.preset,
        "budget": config.packing.budget,
        "steps": steps,
        "seconds": seconds,
        "data_wait_share_by_row": shares,
        "first_row": shares[0],
        "after_first_row": later / sum(seconds[1:]) if seconds[1:] else None,
        "tokens_per_s": rows[-1]["tokens_per_s"],
    }


def ratios_of(rates: dict[str, float], workers: int) -> dict[str, float | None]:
    """Clips/s of the trainer over those of webdataset; null where that is not installed."""
    alone, together = "trainer reads", f"trainer reads, {workers} threads"
    pairs = {
        "trainer / webdataset": (alone, "webdataset"),
        "trainer / webdataset, shuffled": (alone, "webdataset, shuffled"),
        f"{workers} threads / {workers} processes": (
            together,
            f"webdataset, shuffled, {workers} processes",
        ),
    }
    return {
        name: rates[ours] / rates[theirs] if theirs in rates else None
        for name, (ours, theirs) in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=FeedConfig().workers)
    parser.add_argument("--budget", type=int, default=8192, help="tokens in a pack")
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS), help="what to train")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of the training")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads made later have one too: a thread that reads is one core's work
    is_cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / "dataset", options.clips)
        config = TrainConfig(
            dataset=f"{folder}/dataset",
            out=f"{folder}/run",
            steps=options.steps,
            save_every=options.steps,
            log_every=max(1, options.steps // 4),
            precision="bf16" if is_cuda else "fp32",
            model=SizeConfig(preset=options.preset),
            packing=PackingConfig(budget=options.budget),
            feed=FeedConfig(workers=options.workers),
            validation=ValidationConfig(every=0),
        )
        size_mb = sum(clip.latent[1] + (clip.text[1] if clip.text else 0) for clip in data.clips) / 1e6
        ways = with_webdataset(data, options.workers) | with_trainer(data, config)
        rounds = timed(ways, len(data.clips), options.repeats)
        wait = data_wait(config)
    least = {name: min(seconds) for name, seconds in rounds.items()}
    rates = {name: len(data.clips) / seconds for name, seconds in least.items()}
    ratios = ratios_of(rates, options.workers)
    reading = {
        name: {"clips_per_s": rates[name], "mb_per_s": size_mb / least[name], "seconds": rounds[name]}
        for name in ways
    }
    found = {
        "machine": machine(),
        "settings": vars(options) | {"json": None},
        "dataset": {"clips": len(data.clips), "mb": size_mb},
        "reading": reading,
        "missing": None if ratios["trainer / webdataset"] else "webdataset is not installed",
        "ratios": ratios,
        "training": wait,
    }
    rows = [[name, row["clips_per_s"], row["mb_per_s"]] for name, row in reading.items()]
    print_table(f"{len(data.clips)} clips, {size_mb:.0f} MB", ["read by", "clips/s", "MB/s"], rows)
    told = [[name, ratio, ">= 1"] for name, ratio in ratios.items()]
    told.append([f"data wait, {options.preset}, {options.budget} tokens", wait["after_first_row"], "< 0.02"])
    told.append(["data wait of the first row", wait["first_row"], None])
    print_table("Ratios of clips/s, and shares of waiting", ["figure", "found", "goal"], told)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
