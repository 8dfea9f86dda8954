"""The training loop of the video VAE: clips, forward, loss, backward, clip, save, step, validate, log.

    vae = train_vae(Path("runs/vae"), PRESETS["tiny"], VaeTraining(steps=500), data, print)

Run it as `reelmill train-vae`, or on several GPUs by torchrun: each rank takes clips of its own, and gradients are
averaged. A run that was killed goes on from its last checkpoint with the numbers it would have had: the clips of a
step and the noise on their latents are functions of step and rank.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import BadInput
from model.vae import VideoVAE, from_pixels, load_vae, save_vae
from model.vae_config import VAEConfig
from train.checkpoint import checkpoints
from train.lpips import LPIPS, load_lpips
from train.ranks import Ranks, joined
from train.vae_batches import Ahead, Clips, VaeData
from train.vae_discriminator import adaptive_weight, discriminator_loss, generator_loss
from train.vae_loss import vae_loss
from train.vae_settings import VaeTraining
from train.vae_start import start_from_principal_components
from train.vae_state import VaeState
from train.vae_validate import measure_latents, validate

logger = logging.getLogger(__name__)

FIRST_BATCHES = 16  # whose principal components training starts from


def train_vae(
    run: Path,
    config: VAEConfig,
    settings: VaeTraining,
    data: VaeData,
    log: Callable[[dict[str, Any]], None],
    look: Callable[[VideoVAE, int], None] = lambda vae, step: None,
    device: str = "cpu",
) -> VideoVAE:
    """Train a VAE, or go on with the one in `run`, and leave it in run/vae; returns the averaged model as saved.

    On rank 0 `log` takes the row of each step, `look` the averaged model at each validation. Raises BadInput when
    training diverges, naming step and clips, and when `run` was begun with another VAE, other data or another seed.
    """
    with joined(device) as ranks:
        return _train(run, config, settings, data, log, look, ranks)


def _train(
    run: Path,
    config: VAEConfig,
    settings: VaeTraining,
    data: VaeData,
    log: Callable[[dict[str, Any]], None],
    look: Callable[[VideoVAE, int], None],
    ranks: Ranks,
) -> VideoVAE:
    state = VaeState.new(config, settings, ranks.device)
    told = {"vae": config.told(), "data": {**data.about, "ranks": ranks.size}, "training": asdict(settings)}
    state.resume(run, told)
    # One batch more than steps: the last weights, too, are saved only once they have been seen to work.
    mine = range(state.step * ranks.size + ranks.rank, (settings.steps + 1) * ranks.size, ranks.size)
    if state.step == 0:
        unused = (settings.steps + 1) * ranks.size  # the first batch that no rank trains on
        _begin(state, [data.batch_at(unused + i).frames for i in range(FIRST_BATCHES)], ranks)
    lpips = None
    if settings.loss.lpips_weights is not None:
        lpips = load_lpips(settings.loss.lpips_weights).to(ranks.device)
    ahead = Ahead(data.batch_at, mine, settings.prepare_threads)
    began, seen = time.monotonic(), 0

    for clips in ahead:
        resumed = state.watch.state()
        x = from_pixels(clips.frames.to(ranks.device, non_blocking=True))  # (B, 3, T, H, W)
        y, loss, parts = _forward(state, x, settings, lpips, state.step * ranks.size + ranks.rank)
        own_norm, grad_norm = _average_gradients(state.vae, settings, ranks)
        mean_loss = ranks.sum_(loss.detach().clone()).item() / ranks.size
        if reason := state.watch.amiss(mean_loss, grad_norm):
            raise BadInput(_diverged(run, state.step, reason, own_norm, parts, clips, ranks))
        # What is kept has made a sound loss and gradient, and is not on its way to divergence.
        last = state.step == settings.steps
        due = last or (state.step > 0 and state.step % settings.checkpoint_every == 0)
        if due and ranks.rank == 0:
            if last or state.watch.calm:
                state.save(run, told, resumed)
            else:
                logger.warning("step %d: the loss has risen, so no checkpoint is kept", state.step)
        if last:
            break

        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        state.optimizer.step()
        if "adversarial" in parts:
            parts["discriminator"] = _teach(state, y, x, settings, ranks)
        state.step += 1
        state.follow(settings.ema)
        seen += x.shape[0] * x.shape[2] * ranks.size
        elapsed = time.monotonic() - began
        row: dict[str, Any] = {"step": state.step, "loss": mean_loss, "grad_norm": grad_norm}
        row |= {name: part.item() for name, part in parts.items()}
        row |= {"lr": learning_rate(state.step - 1, settings), "frames_per_s": seen / elapsed}
        row |= {"waited": ahead.waited_s / elapsed}
        if state.step == settings.steps or state.step % settings.validate_every == 0:
            row |= validate(state.average, data.validation, lpips, ranks)
            if ranks.rank == 0:
                look(state.average, state.step)
        if ranks.rank == 0:
            log(row)

    if ranks.rank == 0:
        measure_latents(state.average, data.typical)
        save_vae(state.average, run / "vae", torch.float16)
    ranks.wait()
    return load_vae(run / "vae").to(ranks.device)


def _begin(state: VaeState, batches: list[Tensor], ranks: Ranks) -> None:
    """Before the first step: principal components, the same on all ranks; and can the critic see these clips?"""
    first = [from_pixels(frames.to(ranks.device)) for frames in batches]
    start_from_principal_components(state.vae, first)
    ranks.same_as_first(state.vae)
    state.average.load_state_dict(state.vae.state_dict())
    if state.critic is not None:
        with torch.no_grad():
            state.critic(first[0])  # raises where they are too small for it


def _forward(
    state: VaeState, x: Tensor, settings: VaeTraining, lpips: LPIPS | None, number: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Reconstructions of x (B, 3, T, H, W), their loss and its parts; the gradients of all parts are left behind.

    The loss is that without the discriminator, whose part says nothing about how well things go. `number` is that
    of the batch: the noise on the latents depends on it.
    """
    vae, critic, weights = state.vae, state.critic, settings.loss
    noise = torch.Generator(x.device).manual_seed(settings.seed * 1_000_003 + number)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
        y, posterior = vae(x, noise)
        loss, parts = vae_loss(y, x, posterior, weights)
        if lpips is not None:
            parts["lpips"] = lpips(y, x).mean()
            loss = loss + weights.lpips * parts["lpips"]
        total = loss
        if critic is not None and state.step >= weights.adversarial_from:
            critic.requires_grad_(False)
            parts["adversarial"] = generator_loss(critic(y))
            parts["balance"] = adaptive_weight(loss, parts["adversarial"], vae.decoder.last.weight)
            total = loss + weights.adversarial * parts["balance"] * parts["adversarial"]
    state.optimizer.zero_grad()
    total.backward()
    return y, loss, parts


def _average_gradients(network: nn.Module, settings: VaeTraining, ranks: Ranks) -> tuple[float, float]:
    """Replace gradients by their mean over all ranks, shortened to `grad_clip`.

    Returns this rank's norm before and that of the mean before it was shortened.
    """
    weights = [p for p in network.parameters() if p.grad is not None]
    gradients = [p.grad for p in weights if p.grad is not None]
    own = torch.nn.utils.get_total_norm(gradients).item() if ranks.size > 1 else math.nan
    ranks.sum_gradients(network)
    if ranks.size > 1:
        torch._foreach_div_(gradients, float(ranks.size))
    norm = torch.nn.utils.clip_grad_norm_(weights, settings.grad_clip).item()
    return (own if ranks.size > 1 else norm), norm


def _teach(state: VaeState, y: Tensor, x: Tensor, settings: VaeTraining, ranks: Ranks) -> Tensor:
    """One step of the discriminator on reconstructions y of x, (B, 3, T, H, W); returns its loss."""
    critic, optimizer = state.critic, state.critic_optimizer
    assert critic is not None
    assert optimizer is not None
    critic.requires_grad_(True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
        loss = discriminator_loss(critic(x), critic(y.detach()))
    optimizer.zero_grad()
    loss.backward()
    _average_gradients(critic, settings, ranks)
    optimizer.step()
    return loss.detach()


def learning_rate(step: int, settings: VaeTraining) -> float:
    """Linear warm-up, then half a cosine down to zero after the last step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def _diverged(
    run: Path,
    step: int,
    reason: str,
    own_norm: float,
    parts: dict[str, Tensor],
    clips: Clips,
    ranks: Ranks,
) -> str:
    """What to say; of several ranks, the clips of the one whose gradient is worst."""
    found = ranks.gather((own_norm, {name: part.item() for name, part in parts.items()}, clips.names))
    _, worst, names = max(found, key=lambda one: (not math.isfinite(one[0]), one[0]))
    figures = ", ".join(f"{name} {value:.3g}" for name, value in worst.items())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    kept = checkpoints(run)
    where, remedy = "there is no checkpoint yet", "Start anew"
    if kept:
        at = int(kept[-1].name.removeprefix("step-"))
        where = f"the last good checkpoint is {kept[-1]}"
        remedy = f"Take it as it is (--training.steps={at}), or go on from it"
    return (
        f"training diverged at step {step}: {reason} ({figures}) on {shown}; {where}. {remedy} with a lower "
        "--training.lr or --training.grad_clip, or with --training.bf16=false."
    )
