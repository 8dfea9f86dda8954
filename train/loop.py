"""The training loop of the diffusion transformer: batch, forward, backward, clip, step, average, log, save.

    folder = train(TrainConfig(dataset="demo-run/dataset", out="demo-run/runs/dit", steps=1500), log=print)

Run it as `reelmill train`. Under torchrun every rank runs this function; the loss is the sum over generated
tokens divided by their number over all ranks and packs of the step, so ranks and accumulation change nothing.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.attention import head_warning
from model.dit import DiT
from model.errors import BadInput
from train.batch import Feed, by_mode, token_errors
from train.caption_counts import count, count_names, ratios
from train.checkpoint import Progress, checkpoints, load_checkpoint, save_checkpoint
from train.condition_counts import N_COUNTS, by_condition, count_conditions
from train.conditions import MODES, ClipTable, draw_conditions
from train.config import OptimConfig, TrainConfig
from train.data import LatentDataset
from train.ema import Ema
from train.flops import train_flops
from train.metrics import Metrics
from train.muon import Muon
from train.packing import PackPlan
from train.ranks import Ranks, joined
from train.resume import check_same_run, describe, next_packs
from train.start import first_model

logger = logging.getLogger(__name__)


def train(config: TrainConfig, log: Callable[[dict[str, Any]], None]) -> Path:
    """Train, or go on with the run in config.out; returns the folder of the last checkpoint.

    `log` is called on rank 0 with each row of metrics.jsonl. Raises BadInput for data or a configuration that
    cannot be used, and when the loss is not finite.
    """
    with joined(config.device) as ranks:
        return _train(config, ranks, log)


def _train(config: TrainConfig, ranks: Ranks, log: Callable[[dict[str, Any]], None]) -> Path:
    run = Path(config.out)
    data = LatentDataset(config.dataset, config.vae_id)
    resumed = next(reversed(checkpoints(run)), None)
    if resumed:
        check_same_run(resumed, config, data)
    model = first_model(config, data, resumed).to(ranks.device)
    shape = model.config
    table = ClipTable.of(data.clips, shape)
    plan = PackPlan(
        n_tokens=lambda epoch: draw_conditions(table, epoch, config).n_tokens,
        config=config.packing,
        seed=config.seed,
        flops=lambda n_tokens: train_flops(n_tokens, shape),
    )

    model.backend = config.attention
    optimizer = build_optimizer(model, config.optim, ranks)
    ema = Ema(model, config.optim.ema)
    about = describe(config, data, shape)
    counted = count_names(kind for clip in data.clips for kind in clip.kinds)
    shown = [0] * len(counted)  # since the first step of the run
    progress, note = Progress(), None
    if resumed:
        before = json.loads((resumed / "config.json").read_text()).get("captions_shown", {})
        shown = [before.get(name, 0) for name in counted]
        progress = load_checkpoint(resumed, model, optimizer, ema)
        if progress.step >= config.steps:
            return resumed
        cursor, note = next_packs(resumed, progress.cursor, config)
        progress = replace(progress, cursor=cursor)
    if ranks.rank == 0:
        for warning in (note, head_warning(shape) if ranks.device.type == "cuda" else None):
            if warning:
                logger.warning(warning)
    metrics = Metrics(run / "metrics.jsonl", progress.step) if ranks.rank == 0 else None
    feed = iter(Feed(data, plan, progress.cursor, config, shape, rank=ranks.rank, ranks=ranks.size))
    since, resumed_at = Interval(len(counted)), progress.step

    while progress.step < config.steps:
        waited = time.perf_counter()
        step = next(feed)
        since.waited_s += time.perf_counter() - waited
        batches = [batch.to(ranks.device) for batch in step.batches]
        # All tokens, what is given and tokens with a loss, captions shown: over every rank and pack of this step.
        counts = torch.tensor(
            [
                sum(b.n_tokens for b in batches),
                *count_conditions(batches),
                *count(counted, (choice for b in batches for choice in b.captions)),
            ],
            device=ranks.device,
        )
        tokens, *drawn = ranks.sum_(counts).tolist()
        given, drawn = drawn[:N_COUNTS], drawn[N_COUNTS:]
        generated = sum(given[: len(MODES)])

        lr = learning_rate(progress.step, config.steps, config.optim)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        sums = torch.zeros(1 + len(MODES), device=ranks.device)  # the loss, and errors by mode
        for batch in batches:
            with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                v = model(batch.pack)  # (S, token_width)
            errors = token_errors(v, batch)  # (S,)
            part = errors.sum() / generated
            part.backward()
            sums += torch.cat([part.detach()[None], by_mode(errors.detach(), batch)])
        ranks.sum_gradients(model)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        loss, *of_modes = ranks.sum_(sums).tolist()
        if not (math.isfinite(loss) and norm.isfinite()):
            raise BadInput(
                f"step {progress.step + 1}: loss {loss}, gradient norm {norm.item()}: the run diverged. "
                f"Lower --optim.lr from {config.optim.lr:g} or lengthen --optim.warmup, with another --out."
            )
        optimizer.step()
        ema.update(model)

        progress = Progress(progress.step + 1, progress.tokens + tokens, step.after)
        room = config.packing.budget * len(batches) * ranks.size
        since.add(loss, of_modes, tokens, room, given, drawn)
        shown = [total + more for total, more in zip(shown, drawn, strict=True)]
        last = progress.step == config.steps
        if metrics and (last or progress.step % config.log_every == 0):
            row: dict[str, Any] = {
                "step": progress.step,
                "epoch": step.epoch,
                "lr": lr,
                "grad_norm": norm.item(),
            }
            row |= {"tokens": progress.tokens, "resumed_at": resumed_at, **since.row()}
            row |= {"captions": ratios(counted, since.drawn), "captions_total": ratios(counted, shown)}
            row |= {"note": note} if note else {}
            note = None
            metrics.write(row)
            log(row)
            since = Interval(len(counted))
        if last or progress.step % config.save_every == 0:
            if ranks.rank == 0:
                told = about | {"captions_shown": dict(zip(counted, shown, strict=True))}
                save_checkpoint(run, progress, model, optimizer, ema, told, config.keep)
            ranks.wait()
    if metrics:
        metrics.close()
    return checkpoints(run)[-1]


def build_optimizer(model: DiT, config: OptimConfig, ranks: Ranks | None = None) -> torch.optim.Optimizer:
    """AdamW, or Muon, whose weight decay spares all but the weight matrices of linear layers."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.endswith("weight")]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and name.endswith("weight"))]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    betas, decay = (config.beta1, config.beta2), config.weight_decay
    if config.name == "muon":
        return Muon(groups, lr=config.lr, betas=betas, weight_decay=decay, ranks=ranks)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=decay, fused=True)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then constant or a cosine to lr / 20."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


class Interval:
    """Sums since the last row of the metrics."""

    def __init__(self, counts: int) -> None:
        """`counts`: how many counts of captions a step gives."""
        self.began_s = time.perf_counter()
        self.losses: list[float] = []
        self.errors = [0.0] * len(MODES)
        self.waited_s, self.tokens, self.room = 0.0, 0, 0
        self.given, self.drawn = [0] * N_COUNTS, [0] * counts

    def add(
        self, loss: float, errors: list[float], tokens: int, room: int, given: list[int], drawn: list[int]
    ) -> None:
        """Take in a step: its loss, its errors by mode, its tokens and how many its packs had room for, its counts."""
        self.losses.append(loss)
        self.tokens += tokens
        self.room += room
        self.errors = [total + more for total, more in zip(self.errors, errors, strict=True)]
        self.given = [total + more for total, more in zip(self.given, given, strict=True)]
        self.drawn = [total + more for total, more in zip(self.drawn, drawn, strict=True)]

    def row(self) -> dict[str, Any]:
        """Mean loss, that by mode, useful tokens per s, shares of the budget left empty and of time without data."""
        seconds = time.perf_counter() - self.began_s
        return {
            "loss": sum(self.losses) / len(self.losses),
            "conditions": by_condition(self.given, self.errors),
            "tokens_per_s": self.tokens / seconds,
            "steps_per_s": len(self.losses) / seconds,
            "padding_share": 1 - self.tokens / self.room,
            "data_wait_share": self.waited_s / seconds,
        }
