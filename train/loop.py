"""The training loop of the diffusion transformer: batch, forward, backward, clip, step, average, log, save.

    place = train(TrainConfig(dataset="demo-run/dataset", out="demo-run/runs/dit", steps=1500), log=print)

Run it as `reelmill train`. Under torchrun, or Ray Train, every rank runs this function; the loss is the sum over
generated tokens divided by their number over all ranks and packs of the step, so ranks and accumulation change nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.attention import head_warning
from model.errors import BadInput
from train.batch import Batch, token_errors
from train.board import Board
from train.caption_counts import count_names, ratios
from train.checkpoint import Progress, load_checkpoint, newest_whole, step_name
from train.conditions import ClipTable, draw_conditions
from train.config import TrainConfig
from train.data import LatentDataset
from train.ema import Ema
from train.feed import Feed
from train.flops import peak_flops, train_flops
from train.guard import Guard
from train.metrics import Metrics
from train.optim import build_optimizer, learning_rate
from train.packing import PackPlan
from train.parallel import clip_gradients, last_of_step, share_out, sum_gradients
from train.ranks import Ranks, joined
from train.resume import check_same_run, describe, n_held, next_packs, read_about
from train.saver import Saver
from train.start import first_model
from train.stop import Stop, on_sigterm
from train.store import Store
from train.tally import N_SUMS, StepCounts, Tally, count_step, sums_of
from train.trouble import Trouble
from train.validate import Validation
from train.watchdog import WAITS, Watchdog

logger = logging.getLogger(__name__)

Log = Callable[[dict[str, Any]], None]


def train(config: TrainConfig, log: Log, data: LatentDataset | None = None) -> str:
    """Train, or go on with the run in config.out; returns the place of the last checkpoint.

    `log` is called on rank 0 with each row of metrics.jsonl. `data` are the clips, null those that config.dataset has
    latents of. On SIGTERM, or when there is a file OUT/stop, the run saves after the step it is in, and returns. Raises
    BadInput for data or a configuration that cannot be used, and for a run that cannot go on.
    """
    with joined(config.device, config.guard.wait_s) as ranks, on_sigterm(Path(config.out) / "stop") as stop:
        data = data or LatentDataset(config.dataset, config.vae_id)
        return _train(config, data.only(config.only), ranks, stop, log)


def _train(config: TrainConfig, all_data: LatentDataset, ranks: Ranks, stop: Stop, log: Log) -> str:
    if "://" in config.out:
        raise BadInput(
            f"--out {config.out} must be a folder of this machine; checkpoints go to a store by --save_to."
        )
    run, device = Path(config.out), ranks.device
    store = Store(config.save_to or f"{run}/checkpoints")
    data, held = all_data.held_back(n_held(config, all_data))
    newest = newest_whole(store, ranks)
    before = read_about(store, newest) if newest else None
    if before:
        check_same_run(store.place, before, config, all_data)
    model = first_model(config, all_data, before).to(device)
    shape = model.config
    shares = share_out(model, config, ranks)
    optimizer, ema, guard = (
        build_optimizer(model, config.optim, ranks),
        Ema(model, config.optim.ema),
        Guard(config.guard, config.feed.corrupt_share),
    )
    table = ClipTable.of(data.clips, shape)
    plan = PackPlan(
        n_tokens=lambda epoch: draw_conditions(table, epoch, config).n_tokens,
        config=config.packing,
        seed=config.seed,
        flops=lambda n_tokens: train_flops(n_tokens, shape),
    )
    counted = count_names(kind for clip in data.clips for kind in clip.kinds)
    progress, note, seen = Progress(), None, dict[str, Any]()
    shown = [0] * len(counted)  # captions since the first step of the run
    if newest and before:
        progress, seen = load_checkpoint(store.uri(newest), model, optimizer, ema)
        if progress.step >= config.steps:
            return store.uri(newest)
        guard.remember(seen)
        shown = [before.get("captions_shown", {}).get(name, 0) for name in counted]
        cursor, note = next_packs(before, progress.cursor, config)
        progress = replace(progress, cursor=cursor)
    about, resumed_at = describe(config, all_data, shape), progress.step
    warnings = [note, head_warning(shape) if device.type == "cuda" else None]
    trouble = Trouble(run, ranks, warnings, resumed_at, guard.rollbacks)
    metrics = Metrics(run / "metrics.jsonl", progress.step) if ranks.rank == 0 else None
    board = Board(run, progress.step, about) if ranks.rank == 0 else None
    saver = Saver(store, ranks, config.keep, newest, progress.step, trouble.lost_checkpoint)
    validation = Validation(held, config, shape, shares, ranks, stop)
    peak = peak_flops(device)
    packs = config.accumulate * shares.ranks

    def count(batches: list[Batch], waited_s: float) -> StepCounts:
        return count_step(batches, counted, shape, ranks, shares.is_first, stop.asked, waited_s)

    def new_tally() -> Tally:
        return Tally(counted, config.packing.budget * packs, ranks, peak and peak * ranks.size)

    tally, is_over = new_tally(), False
    tally.remember(seen.get("tally", {}))
    feed = Feed(
        data,
        plan,
        progress.cursor,
        config,
        shape,
        rank=shares.rank,
        ranks=shares.ranks,
        device=device,
    )
    with Watchdog(ranks, run / "stalls", config.guard.stall_s) as watchdog, feed, saver:
        while not is_over:
            watchdog.at(progress.step + 1, "data")
            waited = time.perf_counter()
            step = next(feed)
            waited = time.perf_counter() - waited
            watchdog.at(progress.step + 1, WAITS)
            batches, counts = step.batches, count(step.batches, waited)
            if counts.disputed and shares.sequence:
                batches = shares.agreed(batches)
                counts = count(batches, waited)
            batches = [batch.to(device) for batch in batches]
            watchdog.at(progress.step + 1, "compute")

            lr = learning_rate(progress.step, config.steps, config.optim)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            sums = torch.zeros(N_SUMS, device=device)
            for number, batch in enumerate(batches, start=1):
                last_of_step(model, number == len(batches))
                own = shares.own(batch)
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    v = model(batch.pack)  # (S, token_width)
                errors = token_errors(v, own)  # (S,)
                part = errors.sum() / max(1, counts.generated)
                part.backward()
                sums += sums_of(errors.detach(), part, own)
            watchdog.at(progress.step + 1, WAITS)
            sum_gradients(model, ranks)
            norm = clip_gradients(model, config.optim.clip)
            loss, *errors_by = ranks.sum_(sums).tolist()
            verdict = guard.judge(loss, norm.item(), counts.generated)
            if verdict != "skip":
                optimizer.step()
                ema.update(model)

            progress = Progress(progress.step + 1, progress.tokens + counts.tokens, step.after)
            tally.add(counts, loss, errors_by)
            shown = [total + more for total, more in zip(shown, counts.drawn, strict=True)]
            trouble.look(progress, batches, counts, verdict, loss, norm.item(), guard, config)
            if verdict == "spike" and config.guard.spike == "rollback":
                if back := saver.go_back():
                    kept, seen = load_checkpoint(store.uri(back), model, optimizer, ema)
                    trouble.rolled_back(progress.step, kept.step, guard, config)
                    progress = replace(kept, cursor=progress.cursor)
                    guard.forget(seen)
                    if metrics and board:
                        metrics.forget(progress.step)
                        board.forget(progress.step)
                    tally = new_tally()
                    tally.remember(seen.get("tally", {}))
                    continue
                trouble.cannot_go_back(progress.step)

            is_last, is_asked = progress.step == config.steps, counts.stops > 0
            is_over = is_last or is_asked
            is_round = held.clips and progress.step % config.validation.every == 0
            # One that was asked to end has no time for more than its checkpoint.
            validates = held.clips and not is_asked and (is_last or is_round)
            is_row = is_round or progress.step % config.log_every == 0
            if is_row or is_over:
                row: dict[str, Any] = {"step": progress.step, "epoch": step.epoch, "lr": lr}
                row |= {"grad_norm": norm.item() if norm.isfinite() else None}
                row |= {"tokens": progress.tokens, "resumed_at": resumed_at, **tally.row(), **trouble.row()}
                row |= {
                    "captions_total": ratios(counted, shown),
                    "skipped": guard.skipped,
                    "spikes": guard.spikes,
                }
                if validates:
                    watchdog.at(progress.step, "validation")
                    with ema.shown(model):
                        row["validation"], row["validation_damaged"] = validation.losses(model)
                        videos = validation.videos(model)
                    if board:
                        board.videos(progress.step, videos)
                if metrics and board:
                    metrics.write(row)
                    board.scalars(row)
                    log(row)
            if is_row:  # not one of the end alone: a run that goes on from there goes on with this one's sums
                tally = new_tally()
            saver.poll()
            if is_over or (saver.is_free and saver.is_due(progress.step, config.save_every)):
                watchdog.at(progress.step, "checkpoint")
                if not saver.is_free:
                    saver.wait()
                told = about | {"captions_shown": dict(zip(counted, shown, strict=True))}
                saver.begin(progress, model, optimizer, ema, told, guard.seen() | {"tally": tally.seen()})
    if metrics and board:
        metrics.close()
        board.close()
    if saver.saved != step_name(progress.step):
        raise BadInput(
            f"the last checkpoint could not be written to {store.place}; the run stands at "
            f"{saver.saved or 'its beginning'}. See the error above: make room, or see that the store can be reached, "
            "and give the same command again."
        )
    return store.uri(saver.saved)
