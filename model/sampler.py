"""Draws clips from the model: a solver from noise to clip, guided, with what is given left as it is.

    wanted = [Request(size=(5, 8, 12), fps=16.0, text=features, seed=0), ...]
    latents = sample(dit, wanted, SampleConfig(), FlowConfig())         # list of (C, t, h, w)

A request's result depends on its seed and not on the others in the batch. Latent frames given in `known` come
back bit for bit; `spans` are seen by the model and are no part of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import FlowConfig
from model.dit import DiT
from model.errors import BadInput
from model.flow import mix, time_grid
from model.guidance import Pass, guide, rescaled, weigh_at
from model.pack import Clip, Span, make_pack, own_parts
from model.patches import Size, grid, unpatchify
from model.sample_config import SampleConfig
from model.solvers import SOLVERS, Solver, n_calls


@dataclass(frozen=True)
class Request:
    """One clip to draw.

    Attributes:
        size: latent frames, rows and columns.
        fps: frames per second of the video.
        text: (L, text_width) features, or null for no text.
        seed: seed of the noise.
        known: (C, t, h, w) latent that holds the given frames of the beginning, or null.
        is_known: (t,) bool, which frames of `known` are given.
        spans: what is given for later places, each encoded by itself; the first picture too if the VAE is not causal.
        start: (C, t, h, w) latent to start from instead of noise alone (SDEdit, arXiv:2108.01073), or null.
        strength: with `start`, the noise level that it is brought to first: 1 is noise alone, 0 returns it.
    """

    size: Size
    fps: float
    text: Tensor | None
    seed: int
    known: Tensor | None = None
    is_known: Tensor | None = None
    spans: tuple[Span, ...] = ()
    start: Tensor | None = None
    strength: float = 1.0

    @property
    def has_image(self) -> bool:
        """Whether anything but text is given."""
        return bool(self.spans) or (self.is_known is not None and bool(self.is_known.any()))

    def restore(self, x: Tensor) -> Tensor:
        """x (C, t, h, w) with the given frames as they were given."""
        if self.known is None or self.is_known is None:
            return x
        return torch.where(self.is_known[:, None, None], self.known, x)


@torch.inference_mode()
def sample(
    dit: DiT,
    requests: list[Request],
    config: SampleConfig,
    flow: FlowConfig,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Latents (C, t, h, w), float32 on the CPU, in the order of `requests`.

    `on_step(calls done, calls in all)` is told after each pass of the model for how many clips it was; a clip takes
    one call per step, with heun up to two. Raises BadInput for a request whose parts do not fit.
    """
    for request in requests:
        _check(request, dit)
    runs = [_Run(request, dit, config, flow) for request in requests]
    total, done = sum(run.calls for run in runs), 0
    for batch in batches([n_tokens(request, dit, config) for request in requests], config.token_budget):
        while active := [runs[i] for i in batch if runs[i].asks is not None]:
            for run, v in zip(active, _velocities(dit, active, config), strict=True):
                run.answer(v)
            done += len(active)
            if on_step is not None:
                on_step(done, total)
    return [run.latent for run in runs]


def n_tokens(request: Request, dit: DiT, config: SampleConfig) -> int:
    """Most tokens that a request has in one pass of the model: all passes of guidance, given spans included."""
    has_text = request.text is not None
    passes = weigh_at(config.guidance_interval[0], config, has_text=has_text, has_image=request.has_image)
    own, spans = _own_tokens(request, dit), sum(_span_tokens(span, dit) for span in request.spans)
    return sum(own + (0 if name == "none" else spans) for name in passes)


def calls_of(
    size: Size, dit: DiT, config: SampleConfig, flow: FlowConfig, strength: float | None = None
) -> int:
    """How often the model is called for a clip of latent `size`; `strength` of one that starts from another clip."""
    return n_calls(
        config.solver, len(_levels(math.prod(grid(size, dit.config.patch)), config, flow, strength)) - 1
    )


def _levels(n_tokens: int, config: SampleConfig, flow: FlowConfig, strength: float | None) -> Tensor:
    """The falling noise levels of the steps; from `strength` on, the steps that are left of the whole way."""
    levels = time_grid(config.steps, n_tokens, flow)
    if strength is None:
        return levels
    level = torch.tensor([strength])
    return torch.cat([level, levels[levels < level]])


def batches(needs: list[int], budget: int) -> list[list[int]]:
    """Numbers of requests in order, in groups whose `needs` add up to at most `budget`; a larger one goes alone."""
    found: list[list[int]] = []
    room = 0
    for number, need in enumerate(needs):
        if not found or need > room:
            found.append([])
            room = budget
        found[-1].append(number)
        room -= need
    return found


def _own_tokens(request: Request, dit: DiT) -> int:
    t, h, w = grid(request.size, dit.config.patch)
    return t * h * w


def _span_tokens(span: Span, dit: DiT) -> int:
    _, t, h, w = span.latent.shape
    nt, nh, nw = grid((t, h, w), dit.config.patch)
    return nt * nh * nw


class _Run:
    """One request on its way from noise to clip.

    The solver's clip holds the given frames too, noised like all others: it answers for them with the velocity
    that is known. What the model is shown is another matter (`shown`).

    Attributes:
        calls: how many velocities the solver will ask for.
        asks: (C, t, h, w) clip and noise level that the solver wants to know the velocity of; null at the end.
        latent: the result, once `asks` is null.
    """

    def __init__(self, request: Request, dit: DiT, config: SampleConfig, flow: FlowConfig) -> None:
        generator = torch.Generator().manual_seed(request.seed)
        self.request = request
        self.noise = torch.randn(dit.config.channels, *request.size, generator=generator)
        strength = None if request.start is None else request.strength
        levels = _levels(_own_tokens(request, dit), config, flow, strength)
        x = self.noise if request.start is None else mix(request.start, self.noise, levels[:1])
        self.calls = n_calls(config.solver, len(levels) - 1)
        self.solver: Solver = SOLVERS[config.solver](x, levels)
        self._go_on(None)

    def answer(self, v: Tensor) -> None:
        """Give the solver the velocity (C, t, h, w) it asked for."""
        r = self.request
        if r.known is not None and r.is_known is not None:
            v = torch.where(r.is_known[:, None, None], self.noise - r.known, v)
        self._go_on(v)

    def _go_on(self, v: Tensor | None) -> None:
        self.asks: tuple[Tensor, float] | None
        try:
            self.asks = next(self.solver) if v is None else self.solver.send(v)
        except StopIteration as end:
            self.asks, self.latent = None, self.request.restore(end.value)

    def shown(self, name: Pass) -> Clip:
        """What the model is shown in a pass.

        Without given pictures, the frames of the beginning are as noisy as all others, as the model has seen
        clips of which nothing is given.
        """
        assert self.asks is not None
        r, (x, t) = self.request, self.asks
        text = r.text if name == "full" else None
        if name == "none":
            return Clip(x, r.fps, text, t)
        return Clip(r.restore(x), r.fps, text, t, r.is_known, r.spans)


def _velocities(dit: DiT, runs: list[_Run], config: SampleConfig) -> list[Tensor]:
    """The guided velocity (C, t, h, w) of each clip; all passes of all clips share one pack."""
    weights = []
    for run in runs:
        assert run.asks is not None
        told = {"has_text": run.request.text is not None, "has_image": run.request.has_image}
        weights.append(weigh_at(run.asks[1], config, **told))
    wanted = [(run, name) for run, by_pass in zip(runs, weights, strict=True) for name in by_pass]
    pack = make_pack([run.shown(name) for run, name in wanted], dit.config).to(dit.null_text.device)
    with torch.autocast(dit.null_text.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        parts = iter(own_parts(dit(pack), pack))
    found = []
    for run, by_pass in zip(runs, weights, strict=True):
        r, shape = run.request, (dit.config.channels, *run.request.size)
        passes = {name: unpatchify(next(parts).float().cpu(), shape, dit.config.patch) for name in by_pass}
        v = guide(passes, by_pass)
        if config.rescale and len(passes) > 1 and "full" in passes:
            assert run.asks is not None
            free = torch.ones(r.size[0], dtype=torch.bool) if r.is_known is None else ~r.is_known
            v = rescaled(v, passes["full"], *run.asks, config.rescale, free)
        found.append(v)
    return found


def _check(request: Request, dit: DiT) -> None:
    """Raise BadInput unless all latents of a request have the channels and the size that it says."""
    shape = (dit.config.channels, *request.size)
    for name, latent in (("known", request.known), ("start", request.start)):
        if latent is not None and tuple(latent.shape) != shape:
            raise BadInput(f"a request's `{name}` is {tuple(latent.shape)}, must be {shape}.")
    if (request.known is None) != (request.is_known is None):
        raise BadInput("a request has one of `known` and `is_known`: give both or none.")
    if not 0 <= request.strength <= 1:
        raise BadInput(f"a request's strength is {request.strength}, must be from 0 to 1.")
    for span in request.spans:
        c, k, h, w = span.latent.shape
        if (c, h, w) != (shape[0], *shape[2:]) or k < 1 or span.at < 0 or span.at + k > request.size[0]:
            raise BadInput(
                f"a span of {tuple(span.latent.shape)} at latent frame {span.at} does not lie in a clip of {shape}."
            )
