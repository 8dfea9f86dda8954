"""Draws clips from the model: Euler steps from noise, with classifier-free guidance.

    wanted = [Request(size=(5, 8, 12), fps=16.0, text=features, seed=0), ...]
    latents = sample(dit, wanted, SampleConfig(), FlowConfig())         # list of (C, t, h, w)

A request's result depends on its seed and not on the others in the batch. Latent frames given in `known` come
back unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import FlowConfig, SampleConfig
from model.dit import DiT
from model.flow import time_grid
from model.pack import Clip, make_pack
from model.patches import Size, grid, unpatchify


@dataclass(frozen=True)
class Request:
    """One clip to draw.

    Attributes:
        size: latent frames, rows and columns.
        fps: frames per second of the video.
        text: (L, text_width) features, or null for no text.
        seed: seed of the noise.
        known: (C, t, h, w) latent that holds the given frames, or null.
        is_known: (t,) bool, which frames of `known` are given.
    """

    size: Size
    fps: float
    text: Tensor | None
    seed: int
    known: Tensor | None = None
    is_known: Tensor | None = None


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """unconditional + guidance · (conditional - unconditional): Ho & Salimans, arXiv:2207.12598."""
    return unconditional + guidance * (conditional - unconditional)


@torch.inference_mode()
def sample(
    dit: DiT,
    requests: list[Request],
    config: SampleConfig,
    flow: FlowConfig,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Latents (C, t, h, w), float32 on the CPU, in the order of `requests`.

    `on_step(steps done, steps in all)` is called after each step of each batch.
    """
    passes = 1 if config.guidance == 1 else 2
    batches: list[list[Request]] = [[]]
    room = config.token_budget
    for request in requests:
        need = passes * _n_tokens(request, dit)
        if batches[-1] and need > room:
            batches.append([])
            room = config.token_budget
        batches[-1].append(request)
        room -= need
    done: list[Tensor] = []
    for batch in batches:
        finished = len(done) * config.steps

        def tell(steps: int, batch: list[Request] = batch, finished: int = finished) -> None:
            if on_step is not None:
                on_step(finished + steps * len(batch), config.steps * len(requests))

        done += _sample_batch(dit, batch, config, flow, tell)
    return done


def _n_tokens(request: Request, dit: DiT) -> int:
    t, h, w = grid(request.size, dit.config.patch)
    return t * h * w


def _sample_batch(
    dit: DiT,
    requests: list[Request],
    config: SampleConfig,
    flow: FlowConfig,
    tell: Callable[[int], None],
) -> list[Tensor]:
    if not requests:
        return []
    x = [_noise(request, dit) for request in requests]  # (C, t, h, w) each
    times = [time_grid(config.steps, _n_tokens(request, dit), flow) for request in requests]
    for step in range(config.steps):
        v = _velocities(dit, requests, x, [float(t[step]) for t in times], config.guidance)
        for i, request in enumerate(requests):
            moved = x[i] + (times[i][step + 1] - times[i][step]) * v[i]
            x[i] = _keep_known(moved, request)
        tell(step + 1)
    return x


def _noise(request: Request, dit: DiT) -> Tensor:
    generator = torch.Generator().manual_seed(request.seed)
    return _keep_known(torch.randn(dit.config.channels, *request.size, generator=generator), request)


def _keep_known(x: Tensor, request: Request) -> Tensor:
    if request.known is None or request.is_known is None:
        return x
    return torch.where(request.is_known[:, None, None], request.known, x)


def _velocities(
    dit: DiT, requests: list[Request], x: list[Tensor], times: list[float], guidance: float
) -> list[Tensor]:
    """The guided velocity of each clip, (C, t, h, w); clips with and without text share one pack."""

    def clips(with_text: bool) -> list[Clip]:
        return [
            Clip(latent, r.fps, r.text if with_text else None, t, r.is_known)
            for r, latent, t in zip(requests, x, times, strict=True)
        ]

    both = clips(True) if guidance == 1 else clips(True) + clips(False)
    pack = make_pack(both, dit.config).to(dit.null_text.device)
    parts = [part.float().cpu() for part in dit(pack).split(pack.lengths)]
    if guidance != 1:
        n = len(requests)
        parts = [guide(a, b, guidance) for a, b in zip(parts[:n], parts[n:], strict=True)]
    shapes = [(dit.config.channels, *request.size) for request in requests]
    return [unpatchify(part, shape, dit.config.patch) for part, shape in zip(parts, shapes, strict=True)]
