"""The training loop of the video VAE: clips, forward, loss, backward, clip, step, log, validate, save.

    vae = train_vae(Path("runs/vae"), PRESETS["tiny"], VaeTraining(steps=500), data, print)

Run it as `reelmill train-vae`, or on several GPUs by torchrun: each rank takes clips of its own, and gradients are
averaged. A run that was killed goes on from its last checkpoint with the numbers it would have had: the clips of a
step and the noise on their latents are functions of step and rank.
"""

from __future__ import annotations

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
from train.lpips import load_lpips
from train.ranks import Ranks, joined
from train.vae_batches import Ahead, Clips, VaeData
from train.vae_discriminator import adaptive_weight, discriminator_loss, generator_loss
from train.vae_loss import vae_loss
from train.vae_settings import VaeTraining
from train.vae_start import start_from_principal_components
from train.vae_state import VaeState
from train.vae_validate import measure_latents, validate

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
    training diverges, naming step and clips, and when `run` was begun with other settings.
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
    weights, device = settings.loss, ranks.device
    lpips = None if weights.lpips_weights is None else load_lpips(weights.lpips_weights).to(device)
    state = VaeState.new(config, settings, device)
    vae, critic = state.vae, state.critic
    told = {"vae": config.told(), "training": asdict(settings)}
    state.resume(run, told)
    if state.step == 0:
        unused = settings.steps * ranks.size  # the first batch that no rank trains on
        batches = [data.batch_at(unused + i).frames for i in range(FIRST_BATCHES)]
        start_from_principal_components(vae, [from_pixels(frames.to(device)) for frames in batches])
        state.average.load_state_dict(vae.state_dict())
    mine = range(state.step * ranks.size + ranks.rank, settings.steps * ranks.size, ranks.size)
    ahead = Ahead(data.batch_at, mine, settings.prepare_threads)
    began, seen = time.monotonic(), 0

    for clips in ahead:
        x = from_pixels(clips.frames.to(device, non_blocking=True))  # (B, 3, T, H, W)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        number = state.step * ranks.size + ranks.rank
        noise = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + number)
        judges = critic is not None and state.step >= weights.adversarial_from

        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
            y, posterior = vae(x, noise)
            loss, parts = vae_loss(y, x, posterior, weights)
            if lpips is not None:
                parts["lpips"] = lpips(y, x).mean()
                loss = loss + weights.lpips * parts["lpips"]
            total = loss
            if critic is not None and judges:
                critic.requires_grad_(False)
                parts["adversarial"] = generator_loss(critic(y))
                parts["balance"] = adaptive_weight(loss, parts["adversarial"], vae.decoder.last.weight)
                total = loss + weights.adversarial * parts["balance"] * parts["adversarial"]
        state.optimizer.zero_grad()
        total.backward()
        grad_norm = _average_gradients(vae, settings, ranks)
        mean_loss = ranks.sum_(loss.detach().clone()).item() / ranks.size
        if reason := state.watch.amiss(mean_loss, grad_norm):
            raise BadInput(_diverged(run, state.step, reason, loss, parts, clips, ranks))
        state.optimizer.step()
        if judges:
            parts["discriminator"] = _teach(state, y, x, settings, ranks)

        state.step += 1
        state.follow(settings.ema)
        seen += x.shape[0] * x.shape[2] * ranks.size
        elapsed = time.monotonic() - began
        row: dict[str, Any] = {"step": state.step, "loss": mean_loss, "grad_norm": grad_norm}
        row |= {name: part.item() for name, part in parts.items()}
        row |= {"lr": learning_rate(state.step - 1, settings), "frames_per_s": seen / elapsed}
        row |= {"waited": ahead.waited_s / elapsed}
        last = state.step == settings.steps
        if last or state.step % settings.validate_every == 0:
            row |= validate(state.average, data.validation, lpips, ranks)
            if ranks.rank == 0:
                look(state.average, state.step)
        if ranks.rank == 0:
            if last or (state.step % settings.checkpoint_every == 0 and state.watch.calm):
                state.save(run, told)
            log(row)

    if ranks.rank == 0:
        measure_latents(state.average, data.typical)
        save_vae(state.average, run / "vae", torch.float16)
    ranks.wait()
    return load_vae(run / "vae").to(device)


def _average_gradients(network: nn.Module, settings: VaeTraining, ranks: Ranks) -> float:
    """Replace gradients by their mean over all ranks, shortened to `grad_clip`; returns their norm before."""
    ranks.sum_gradients(network)
    weights = [p for p in network.parameters() if p.grad is not None]
    if ranks.size > 1:
        torch._foreach_div_([p.grad for p in weights if p.grad is not None], float(ranks.size))
    return torch.nn.utils.clip_grad_norm_(weights, settings.grad_clip).item()


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
    run: Path, step: int, reason: str, loss: Tensor, parts: dict[str, Tensor], clips: Clips, ranks: Ranks
) -> str:
    """What to say; of several ranks, the clips of the one whose loss is worst."""
    found = ranks.gather((loss.item(), {name: part.item() for name, part in parts.items()}, clips.names))
    _, worst, names = max(found, key=lambda one: (not math.isfinite(one[0]), one[0]))
    figures = ", ".join(f"{name} {value:.3g}" for name, value in worst.items())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    kept = checkpoints(run)
    where = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
    return (
        f"training diverged at step {step}: {reason} ({figures}) on {shown}; {where}. "
        "Start a new run with a lower lr or grad_clip, or with bf16 off."
    )
