"""The training loop of the video VAE: batch, forward, loss, backward, clip, step, log, validate, save.

    vae = train_vae(Path("runs/vae"), PRESETS["tiny"], VaeTraining(steps=500), batch_at, typical, validation, print)

Run it as `reelmill train-vae`. `batch_at(step)` makes the batch of a step and must give the same one every
time: a run that was killed goes on from its last checkpoint with the numbers it would have had.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import BadInput
from model.vae import VideoVAE, from_pixels, load_vae, save_vae
from model.vae_config import VAEConfig
from train.checkpoint import checkpoints
from train.muon import Muon
from train.vae_loss import psnr, ssim, vae_loss
from train.vae_settings import VaeTraining
from train.vae_start import start_from_principal_components

#: step -> the clips of that step, (B, T, H, W, 3) uint8 RGB.
Batches = Callable[[int], Tensor]


def train_vae(
    run: Path,
    config: VAEConfig,
    settings: VaeTraining,
    batch_at: Batches,
    typical: Iterable[Tensor],
    validation: list[Tensor],
    log: Callable[[dict[str, Any]], None],
    device: str = "cpu",
) -> VideoVAE:
    """Train a VAE, or go on with the one in `run`, and leave it in run/vae; returns the averaged model as saved.

    The statistics of the latents are taken from `typical` clips, shaped as they will be encoded; `validation`
    holds unseen ones, (B, T, H, W, 3) uint8. Raises BadInput when the loss is not finite, naming
    the step, and when `run` was begun with other settings.
    """
    torch.manual_seed(settings.seed)
    vae = VideoVAE(config).to(device)
    # The principal components stay: steps of any size would shake what the network builds upon.
    for path in (vae.encoder.linear, vae.decoder.linear):
        path.requires_grad_(False)
    average = copy.deepcopy(vae).eval()
    optimizer = Muon([p for p in vae.parameters() if p.requires_grad], lr=settings.lr)
    told = {"vae": asdict(config), "training": asdict(settings)}
    step = _resume(run, told, vae, average, optimizer)
    if step == 0:
        first = [from_pixels(batch_at(settings.steps + i)).to(device) for i in range(16)]
        start_from_principal_components(vae, first)
        average.load_state_dict(vae.state_dict())
    began, seen = time.monotonic(), 0

    while step < settings.steps:
        x = from_pixels(batch_at(step)).to(device)  # (B, 3, T, H, W)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        noise = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + step)

        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
            y, posterior = vae(x, noise)
        loss, parts = vae_loss(y, x, posterior, settings.loss)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), settings.grad_clip)
        if not (loss.isfinite() and grad_norm.isfinite()):
            raise BadInput(_diverged(run, step, loss, grad_norm, parts))
        optimizer.step()
        _follow(average, vae, min(settings.ema, (1.0 + step) / (10.0 + step)))

        step += 1
        seen += x.shape[0] * x.shape[2]
        row: dict[str, Any] = {"step": step, "loss": loss.item(), "grad_norm": grad_norm.item()}
        row |= {name: part.item() for name, part in parts.items()}
        row |= {"lr": learning_rate(step - 1, settings), "frames_per_s": seen / (time.monotonic() - began)}
        last = step == settings.steps
        if last or step % settings.validate_every == 0:
            row |= validate(average, validation)
        if last or step % settings.checkpoint_every == 0:
            _save(run, step, told, vae, average, optimizer)
        log(row)

    measure_latents(average, typical)
    save_vae(average, run / "vae", torch.float16)
    return load_vae(run / "vae").to(device)


def learning_rate(step: int, settings: VaeTraining) -> float:
    """Linear warm-up, then half a cosine down to zero after the last step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))


@torch.no_grad()
def validate(vae: VideoVAE, clips: list[Tensor]) -> dict[str, float]:
    """Mean PSNR in dB and SSIM over clips (B, T, H, W, 3) uint8, through the normalised latents."""
    found: dict[str, list[float]] = {"val_psnr": [], "val_ssim": []}
    device = vae.latent_std.device
    for frames in clips:
        x = from_pixels(frames).to(device)
        y = vae.decode_latents(vae.encode_latents(x), like=x)
        found["val_psnr"] += psnr(y, x).tolist()
        found["val_ssim"] += ssim(y, x).tolist()
    return {name: sum(values) / len(values) for name, values in found.items() if values}


@torch.no_grad()
def measure_latents(vae: VideoVAE, batches: Iterable[Tensor]) -> None:
    """Store mean and standard deviation of each latent channel over `batches` in the VAE."""
    device = vae.latent_std.device
    means = [vae.encode(from_pixels(batch).to(device)).mean for batch in batches]
    values = torch.cat([mean.transpose(0, 1).flatten(1) for mean in means], dim=1)  # (C, positions)
    vae.latent_mean.copy_(values.mean(dim=1))
    # A channel that the KL term has switched off must not be blown up to unit variance.
    vae.latent_std.copy_(values.std(dim=1).clamp_min(1e-2))


@torch.no_grad()
def _follow(average: VideoVAE, vae: VideoVAE, decay: float) -> None:
    for old, new in zip(average.parameters(), vae.parameters(), strict=True):
        old.lerp_(new, 1.0 - decay)


def _diverged(run: Path, step: int, loss: Tensor, grad_norm: Tensor, parts: dict[str, Tensor]) -> str:
    figures = ", ".join(f"{name} {part.item():.3g}" for name, part in parts.items())
    kept = checkpoints(run)
    where = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
    return (
        f"training diverged at step {step}: loss {loss.item():.3g}, gradient norm {grad_norm.item():.3g} "
        f"({figures}); {where}. Start a new run with a lower lr or grad_clip, or with bf16 off."
    )


# Checkpoints: run/checkpoints/step-00001000/, whole or absent. -----------------------------


def _save(
    run: Path,
    step: int,
    told: dict[str, Any],
    vae: VideoVAE,
    average: VideoVAE,
    optimizer: torch.optim.Optimizer,
) -> None:
    folder = run / "checkpoints" / f"step-{step:08d}"
    temporary = folder.with_name(f".{folder.name}.tmp")
    for stale in (temporary, folder):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, model in (("model", vae), ("ema", average)):
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, temporary / f"{name}.safetensors"
        )
    torch.save(optimizer.state_dict(), temporary / "optimizer.pt")
    (temporary / "state.json").write_text(json.dumps({"step": step, **told}, indent=2) + "\n")
    (temporary / "COMPLETE").touch()
    temporary.rename(folder)
    for old in checkpoints(run)[:-2]:
        shutil.rmtree(old)


def _resume(
    run: Path,
    told: dict[str, Any],
    vae: VideoVAE,
    average: VideoVAE,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load the last complete checkpoint; returns the steps done (0 if there is none)."""
    found = checkpoints(run)
    if not found:
        return 0
    state = json.loads((found[-1] / "state.json").read_text())
    for part, values in json.loads(json.dumps(told)).items():
        if differing := sorted(key for key in values if values[key] != state[part].get(key)):
            raise BadInput(
                f"{run} was begun with other values of {', '.join(differing)}. Give them as before to go on, "
                "or another folder to start anew."
            )
    vae.load_state_dict(load_file(found[-1] / "model.safetensors"))
    average.load_state_dict(load_file(found[-1] / "ema.safetensors"))
    optimizer.load_state_dict(torch.load(found[-1] / "optimizer.pt", weights_only=True))
    return int(state["step"])
