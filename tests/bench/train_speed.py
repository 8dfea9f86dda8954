"""How fast the transformer trains on one GPU, on synthetic latents: MFU, and useful tokens per second.

    python -m tests.bench.train_speed --json out.json                  # under 8 minutes on an H200; tiny sizes on a CPU
    python -m tests.bench.train_speed --only mfu,lengths --minutes 4

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
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.attention import chosen
from model.config import PRESETS, AttentionBackend, DiTConfig, Recompute
from model.dit import DiT
from model.errors import BadInput
from model.pack import Clip, Pack, make_pack
from model.patches import Size
from tests.bench.packing import library
from tests.bench.record import machine, print_table
from train.batch import Batch, n_tokens, token_errors
from train.config import PackingConfig, TrainConfig
from train.ema import Ema
from train.flops import peak_flops, train_flops
from train.optim import build_optimizer
from train.packing import pack_greedily
from train.parallel import clip_gradients, share_out
from train.ranks import Ranks

Row = dict[str, Any]

PARTS = ("mfu", "lengths", "wan", "attention", "recompute", "compile")
FIELDS = (
    "part", "model", "case", "compile", "recompute", "attention", "tokens", "step_s", "tokens_per_s", "mfu",
    "memory_gib",
)  # fmt: skip
SEED = 20261122


@dataclass(frozen=True)
class Scale:
    """Sizes of a run.

    Attributes:
        models: transformers by name; all parts but mfu and wan measure the first, wan the last.
        clips: latents (t, h, w) by name, of one size per pack.
        usual: the one of these that is measured where only one is.
        budget: most tokens in a pack.
        texts: fewest and most tokens of a clip's text; evenly drawn.
        wan_text: tokens that Wan's texts are filled up to.
        library: clips of many lengths.
        shrink: their rows and columns are divided by it.
        compile: whether blocks are compiled, where that is not what is compared.
        warm: steps before the clock runs.
        timed: steps that count.
    """

    models: dict[str, DiTConfig]
    clips: dict[str, Size]
    usual: str
    budget: int
    texts: tuple[int, int]
    wan_text: int
    library: int
    shrink: int
    compile: bool
    warm: int
    timed: int


GPU = Scale(
    models={name: PRESETS[name] for name in ("XL", "1.3B")},
    clips={"8k": (8, 64, 64), "2k": (8, 32, 32), "32k": (32, 64, 64)},
    usual="8k",
    budget=32_768,
    texts=(64, 256),
    wan_text=512,
    library=64,
    shrink=1,
    compile=True,
    warm=2,
    timed=5,
)
CPU = Scale(
    models={
        "tiny": PRESETS["tiny"],
        "tiny Wan": replace(PRESETS["tiny"], ffn=384, text_width=64, places=False),
    },
    clips={"128": (8, 8, 8), "64": (4, 8, 8), "512": (8, 16, 16)},
    usual="128",
    budget=512,
    texts=(4, 16),
    wan_text=32,
    library=96,
    shrink=8,
    compile=False,
    warm=1,
    timed=5,
)


class Clock:
    """How much of the time is left."""

    def __init__(self, minutes: float) -> None:
        self.began = self._mark = time.perf_counter()
        self._end, self._last_s = self.began + 60 * minutes, 0.0

    def has_room(self) -> bool:
        """Whether there is time for one more case like the last one."""
        self._mark = time.perf_counter()
        return self._mark + self._last_s < self._end

    def case_is_over(self) -> None:
        self._last_s = time.perf_counter() - self._mark

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self._end


class Trained:
    """A model, and all else that a step of the trainer changes."""

    def __init__(self, build: Callable[[], nn.Module], device: torch.device, *, is_compiled: bool) -> None:
        torch.compiler.reset()  # what was compiled for the model before is of no use, and counts against a limit
        torch.manual_seed(SEED)
        with device:
            self.model = build()
            with torch.no_grad():
                for weight in self.model.parameters():
                    weight.add_(torch.randn_like(weight), alpha=0.02)
        # Both models have `blocks`, the trainer's whole interest in them but for the weights.
        self.dit, self._device = cast(DiT, self.model), device
        self.config = TrainConfig(dataset="", out="", precision="bf16", compile=is_compiled)
        ranks = Ranks(0, 1, device)
        share_out(self.dit, self.config, ranks)
        self._optimizer = build_optimizer(self.dit, self.config.optim, ranks)
        self._ema = Ema(self.model, self.config.optim.ema)

    def step(self, loss: Callable[[], Tensor]) -> None:
        """As train/loop.py does it, which also looks at loss and norm before it lets the optimizer go on."""
        self._optimizer.zero_grad()
        value = loss()
        value.backward()
        norm = clip_gradients(self.dit, self.config.optim.clip)
        if not np.isfinite([value.item(), norm.item()]).all():
            raise RuntimeError(f"the loss is {value.item()}, the norm of the gradient {norm.item()}")
        self._optimizer.step()
        self._ema.update(self.model)

    def seconds(
        self, losses: Sequence[Callable[[], Tensor]], warm: int, clock: Clock
    ) -> tuple[list[float], Row]:
        """Seconds of one step for each of `losses`, after `warm` of the first; and what else was seen meanwhile."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for loss in losses[:warm]:
            self.step(loss)
        found: list[float] = []
        graphs = compiled_graphs()
        for loss in losses:
            if found and clock.is_over:
                break
            synchronize(self._device)
            began = time.perf_counter()
            self.step(loss)
            synchronize(self._device)
            found.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self._device.type == "cuda" else None
        return found, {"memory_gib": peak, "compiled_while_timed": compiled_graphs() - graphs}

    def clear(self) -> None:
        """Let go of what a step that ran out of memory has left."""
        self._optimizer.zero_grad()
        free(self._device)


def compiled_graphs() -> int:
    """Graphs that torch.compile has made so far: more of them while the clock runs spoil a figure."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def packed_loss(trained: Trained, batch: Batch) -> Callable[[], Tensor]:
    """The trainer's loss of a pack."""

    def loss() -> Tensor:
        with torch.autocast(batch.target.device.type, torch.bfloat16):
            v = trained.model(batch.pack)  # (S, token_width)
        return token_errors(v, batch).sum() / sum(batch.generated)

    return loss


def wan_of(shape: DiTConfig) -> nn.Module:
    """diffusers' transformer of the same geometry. Raises ImportError where diffusers is not installed."""
    from diffusers import WanTransformer3DModel

    return cast(
        nn.Module,
        WanTransformer3DModel(
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_width,
            in_channels=shape.channels,
            out_channels=shape.channels,
            text_dim=shape.text_width,
            ffn_dim=shape.ffn,
            num_layers=shape.depth,
        ),
    )


def wan_loss(trained: Trained, parts: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """The same of diffusers' model, for a batch of equal clips."""
    latent, level, text, target = parts

    def loss() -> Tensor:
        with torch.autocast(latent.device.type, torch.bfloat16):
            (v,) = trained.model(latent, 1000 * level, text, return_dict=False)  # (B, C, t, h, w)
        return (v.float() - target).square().mean()

    return loss


class Maker:
    """Makes clips and batches; everything is drawn from one seed."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self._scale, self._device = scale, device
        self._numbers = np.random.default_rng(SEED)
        self._generator = torch.Generator().manual_seed(SEED)

    def clips(self, sizes: Sequence[Size], shape: DiTConfig) -> list[Clip]:
        """Noise of these sizes, each with a text and at a level of its own."""
        few, most = self._scale.texts
        return [
            Clip(
                latent=self._normal(shape.channels, *size),
                fps=16.0 if size[0] > 1 else None,
                text=self._normal(int(self._numbers.integers(few, most, endpoint=True)), shape.text_width),
                t=float(self._numbers.random()),
            )
            for size in sizes
        ]

    def batch(self, clips: list[Clip], shape: DiTConfig, *, is_padded: bool = False) -> Batch:
        """A batch as the trainer's, on the device."""
        pack = make_pack(clips, shape)
        is_real = torch.ones(len(pack.tokens), dtype=torch.bool)
        if is_padded:
            pack, is_real = padded(pack)
        batch = Batch(
            pack=pack,
            target=self._normal(len(pack.tokens), shape.token_width),
            is_generated=is_real,
            mode=torch.zeros(len(is_real), dtype=torch.long),
            level=pack.levels[pack.level_index],
            generated=(int(is_real.sum()),),
            captions=(),
            conditions=(),
            clip_ids=(),
            damaged=(),
        )
        return batch.to(self._device)

    def equal(self, size: Size, tokens: int, shape: DiTConfig) -> Batch:
        """As many clips of `size` as fit `tokens`, one at least."""
        return self.batch(self.clips([size] * max(1, tokens // n_tokens(size, shape)), shape), shape)

    def library(self) -> list[Size]:
        """Clips of many lengths."""
        shrink = self._scale.shrink
        found = library(self._scale.library, self._scale.budget * shrink**2)
        return [
            (t, 2 * max(1, h // 2 // shrink), 2 * max(1, w // 2 // shrink))
            for t, h, w in (c.size for c in found)
        ]

    def wan(self, clips: list[Clip], width: int) -> tuple[Tensor, ...]:
        """Latents (B, C, t, h, w), levels (B,), texts (B, L, D) filled up with zeros, and targets like the latents."""
        texts = torch.zeros(len(clips), self._scale.wan_text, width)
        for row, clip in zip(texts, clips, strict=True):
            assert clip.text is not None
            row[: len(clip.text)] = clip.text
        latents = torch.stack([clip.latent for clip in clips])
        levels = torch.tensor([clip.t for clip in clips])
        return tuple(x.to(self._device) for x in (latents, levels, texts, torch.randn_like(latents)))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def padded(pack: Pack) -> tuple[Pack, Tensor]:
    """The clips of `pack` all as long as the longest, by repeating their last token; and which tokens are real."""
    longest = max(pack.lengths)
    lengths = torch.tensor(pack.lengths)[:, None]
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(longest)[None]  # (1, longest)
    rows = (starts + torch.minimum(place, lengths - 1)).flatten()
    names = ("tokens", "positions", "places", "cells", "level_index")
    same = (longest,) * len(pack.lengths)
    longer = replace(
        pack, lengths=same, own_lengths=same, **{name: getattr(pack, name)[rows] for name in names}
    )
    return longer, (place < lengths).flatten()


def filled(order: Sequence[int], tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of clips in `order`, as many as stay within `budget` when all are as long as the longest."""
    found: list[list[int]] = []
    longest = budget + 1
    for clip in order:
        longest = max(longest, tokens[clip])
        if not found or (len(found[-1]) + 1) * longest > budget:
            found.append([])
            longest = tokens[clip]
        found[-1].append(clip)
    return found


class Run:
    """The rows found so far, and the model that was trained last."""

    def __init__(self, scale: Scale, device: torch.device, clock: Clock) -> None:
        self.scale, self.device, self.clock, self.rows = scale, device, clock, list[Row]()
        self.main, self.wan = next(iter(scale.models)), list(scale.models)[-1]
        self._peak, self._maker = peak_flops(device), Maker(scale, device)
        self._trained: tuple[tuple[str, bool], Trained] | None = None
        self._sizes = self._maker.library()
        self._budgets: dict[str, int] = {}

    # The parts

    def mfu(self, model: str) -> None:
        usual: AttentionBackend = chosen("auto", self._query(model))
        for name in self.scale.clips:
            for backend in ("auto", "varlen") if usual == "fa3" else ("auto",):
                self._add("mfu", model, name, partial(self._equal, model, name, backend=backend))

    def lengths(self) -> None:
        shape = self.scale.models[self.main]
        tokens = [n_tokens(size, shape) for size in self._sizes]
        order = np.random.default_rng(SEED).permutation(len(tokens)).tolist()
        budget = self.scale.budget
        ways = {
            "packed": pack_greedily(order, tokens, PackingConfig(budget=budget)),
            "padded": filled(order, tokens, budget),
            "bucketed": filled(sorted(order, key=lambda clip: tokens[clip]), tokens, budget),
        }
        tries = list[Recompute](["none", "selective", "full"])
        for way, batches in ways.items():
            measure = partial(self._all, way == "packed", batches, tokens, tries)
            self._add("lengths", self.main, way, measure)

    def against_wan(self) -> None:
        for is_compiled in (True, False) if self.scale.compile else (False,):
            case = f"{self.scale.usual}, {'compiled' if is_compiled else 'eager'}"
            self._add("wan", self.wan, case, partial(self._wan, is_compiled))

    def attention(self) -> None:
        backends: tuple[AttentionBackend, ...] = ("varlen", "fa3", "flex", "grouped", "loop")
        for backend in backends:
            for case in (self.scale.usual, "many lengths"):
                name = f"{backend}, {case}"
                self._add("attention", self.main, name, partial(self._one, case, backend))

    def recompute(self) -> None:
        for kind in ("none", "selective", "full"):
            self._add(
                "recompute", self.main, kind, partial(self._equal, self.main, self.scale.usual, tries=(kind,))
            )

    def compile(self) -> None:
        for is_compiled in (True, False):
            case = "on" if is_compiled else "off"
            self._add(
                "compile", self.main, case, partial(self._equal, self.main, self.scale.usual, is_compiled)
            )

    # What they measure

    def _equal(
        self,
        model: str,
        name: str,
        is_compiled: bool | None = None,
        backend: AttentionBackend = "auto",
        tries: Sequence[Recompute] = ("none", "selective", "full"),
    ) -> Row:
        """A pack of equal clips, the largest that fits the memory."""
        is_compiled = self.scale.compile if is_compiled is None else is_compiled
        shape, size = self.scale.models[model], self.scale.clips[name]
        trained, ran_out = self._train(model, is_compiled), list[str]()
        trained.dit.backend = backend
        # What did not fit once needs no second try.
        most = self._budgets.get(f"{model} {name}", self.scale.budget)
        budgets = sorted({max(most // part, n_tokens(size, shape)) for part in (1, 2, 4)}, reverse=True)
        for kind in tries:
            for budget in budgets:
                batch = self._maker.equal(size, budget, shape)
                trained.dit.recompute = kind
                losses = [packed_loss(trained, batch)] * self.scale.timed
                if (found := self._seconds(trained, losses)) is not None:
                    if kind == "none":
                        self._budgets[f"{model} {name}"] = budget
                    told = self._told(model, trained.dit, batch.pack.lengths, statistics.median(found[0]))
                    return told | {"ran_out": ran_out, "compile": is_compiled, "steps_s": found[0]} | found[1]
                ran_out.append(f"{kind}, {budget} tokens")
        return {"reason": f"out of memory: {'; '.join(ran_out)}", "ran_out": ran_out, "compile": is_compiled}

    def _one(self, case: str, backend: AttentionBackend) -> Row:
        """A pack of equal clips or of many lengths, by a backend of attention. Raises BadInput if it cannot run."""
        chosen(backend, self._query(self.main))
        if case != "many lengths":
            return self._equal(self.main, case, backend=backend)
        shape = self.scale.models[self.main]
        tokens = [n_tokens(size, shape) for size in self._sizes]
        first = pack_greedily(range(len(tokens)), tokens, PackingConfig(budget=self.scale.budget))[0]
        return self._all(True, [first] * self.scale.timed, tokens, ("none", "selective", "full"), backend)

    def _all(
        self,
        is_packed: bool,
        batches: list[list[int]],
        tokens: list[int],
        tries: Sequence[Recompute],
        backend: AttentionBackend = "auto",
    ) -> Row:
        """One step for each of `batches`, lists of clips; figures are of all together."""
        shape = self.scale.models[self.main]
        trained, ran_out = self._train(self.main, self.scale.compile), list[str]()
        trained.dit.backend = backend
        made = [
            self._maker.batch(
                self._maker.clips([self._sizes[c] for c in clips], shape), shape, is_padded=not is_packed
            )
            for clips in batches
        ]
        losses = [packed_loss(trained, batch) for batch in made]
        for kind in tries:
            trained.dit.recompute = kind
            if (found := self._seconds(trained, losses)) is not None:
                seconds, seen = found
                done = batches[: len(seconds)]
                lengths = [tokens[clip] for clips in done for clip in clips]
                told = self._told(self.main, trained.dit, lengths, sum(seconds))
                computed = sum(len(batch.target) for batch in made[: len(done)])
                told |= {
                    "batches": len(done),
                    "computed_tokens": computed,
                    "padding_share": 1 - sum(lengths) / computed,
                }
                told |= {"batches_left_out": len(batches) - len(done), "step_s": sum(seconds) / len(done)}
                return told | {"ran_out": ran_out, "compile": self.scale.compile, "steps_s": seconds} | seen
            ran_out.append(kind)
        return {"reason": f"out of memory: {'; '.join(ran_out)}", "ran_out": ran_out}

    def _wan(self, is_compiled: bool) -> Row:
        """Steps of ours and of diffusers' on the same tokens, as many as both have memory for."""
        shape = replace(self.scale.models[self.wan], text_tokens=self.scale.wan_text)
        size, ran_out = self.scale.clips[self.scale.usual], list[str]()
        for part in (1, 2, 4):
            count = max(1, self.scale.budget // part // n_tokens(size, shape))
            clips = self._maker.clips([size] * count, shape)
            sides: Row = {}
            for side in ("theirs", "ours"):
                if (told := self._wan_side(side, shape, clips, is_compiled)) is None:
                    ran_out.append(f"{side}, {count} clips")
                    break
                sides[side] = told
            if len(sides) == 2:
                lengths = [n_tokens(size, shape)] * count
                told = self._told(self.wan, DiT, lengths, sides["ours"]["step_s"])
                told |= {"theirs_by_ours": sides["theirs"]["step_s"] / sides["ours"]["step_s"]}
                told |= {
                    "memory_gib": sides["ours"]["memory_gib"],
                    "ran_out": ran_out,
                    "compile": is_compiled,
                }
                return told | sides
        return {"reason": f"out of memory: {'; '.join(ran_out)}", "ran_out": ran_out, "compile": is_compiled}

    def _wan_side(self, side: str, shape: DiTConfig, clips: list[Clip], is_compiled: bool) -> Row | None:
        """Steps of one of the two on a batch of `clips`; null if the memory ran out."""
        self._drop()  # and so what the other side has left
        build = partial(DiT, shape) if side == "ours" else partial(wan_of, shape)
        trained = Trained(build, self.device, is_compiled=is_compiled)
        if side == "ours":
            loss = packed_loss(trained, self._maker.batch(clips, shape))
        else:
            loss = wan_loss(trained, self._maker.wan(clips, shape.text_width))
        if (found := self._seconds(trained, [loss] * self.scale.timed)) is None:
            return None
        weights = sum(weight.numel() for weight in trained.model.parameters())
        return {"step_s": statistics.median(found[0]), "steps_s": found[0], "weights": weights, **found[1]}

    # What these share

    def _add(self, part: str, model: str, case: str, measure: Callable[[], Row]) -> None:
        row: Row = {"part": part, "model": model, "case": case, "reason": None}
        if self.clock.has_room():
            try:
                row |= measure()
            # A case that cannot run is told as such and ends no others.
            except BadInput as error:
                row["reason"] = str(error)
            except (ImportError, RuntimeError) as error:  # torch's errors are RuntimeErrors
                row["reason"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self._drop()
            self.clock.case_is_over()
        else:
            row["reason"] = "left out: no time"
        self.rows.append(row)
        told = row["reason"] or f"{row['step_s']:.3f} s a step"
        print(
            f"{time.perf_counter() - self.clock.began:5.0f} s  {part}, {model}, {case}: {told}",
            file=sys.stderr,
        )

    def _train(self, model: str, is_compiled: bool) -> Trained:
        """The model to measure: the last one, if it is of the kind."""
        key = (model, is_compiled)
        if self._trained is None or self._trained[0] != key:
            self._drop()
            shape = self.scale.models[model]
            self._trained = key, Trained(lambda: DiT(shape), self.device, is_compiled=is_compiled)
        return self._trained[1]

    def _drop(self) -> None:
        self._trained = None
        free(self.device)

    def _seconds(
        self, trained: Trained, losses: list[Callable[[], Tensor]]
    ) -> tuple[list[float], Row] | None:
        """Trained.seconds; null if the memory ran out."""
        try:
            return trained.seconds(losses, self.scale.warm, self.clock)
        except torch.OutOfMemoryError:
            pass
        trained.clear()  # not above, where the error still holds the tensors
        return None

    def _told(self, model: str, dit: DiT | type[DiT], lengths: Sequence[int], seconds: float) -> Row:
        """What is told of all cases; `dit` says how it was run, the class how it is by default."""
        flops = float(train_flops(np.array(lengths, np.int64), self.scale.models[model]).sum())
        return {
            "attention": chosen(dit.backend, self._query(model)),
            "recompute": dit.recompute,
            "clips": len(lengths),
            "tokens": sum(lengths),
            "seconds": seconds,
            "step_s": seconds,
            "tokens_per_s": sum(lengths) / seconds,
            "mfu": flops / seconds / self._peak if self._peak else None,
        }

    def _query(self, model: str) -> Tensor:
        """Like a query of the model, to ask which backend serves it."""
        shape = self.scale.models[model]
        return torch.empty(
            1, shape.heads, shape.head_width, dtype=torch.bfloat16, device=self.device, requires_grad=True
        )


def summary(rows: list[Row], scale: Scale) -> list[list[object]]:
    """The main figures (what, found, goal), and what is not among them, and why."""
    measured = [row for row in rows if not row["reason"]]

    def of(part: str) -> dict[str, Row]:
        return {row["case"]: row for row in measured if row["part"] == part}

    told: list[list[object]] = []
    for row in measured:
        if row["part"] == "mfu":
            name = f"{row['model']}, {row['case']} tokens a clip, {row['attention']}"
            goal = ">= 0.50" if row["attention"] == "fa3" else ">= 0.45"
            if row["mfu"] is None:
                told.append([f"tokens/s, {name}", row["tokens_per_s"], None])
            else:
                told.append([f"MFU, {name}", row["mfu"], goal if row["case"] == "8k" else None])
    pairs = [
        ("useful tokens/s, {} / {}", "lengths", "packed", "padded", ">= 1.8"),
        ("useful tokens/s, {} / {}", "lengths", "packed", "bucketed", None),
        ("tokens/s, compile {} / {}", "compile", "on", "off", None),
        ("tokens/s, recompute {} / {}", "recompute", "selective", "none", None),
        ("tokens/s, recompute {} / {}", "recompute", "full", "none", None),
    ]
    for text, part, one, other, aim in pairs:
        found = of(part)
        if one in found and other in found:
            over = found[one]["tokens_per_s"] / found[other]["tokens_per_s"]
            told.append([text.format(one, other), over, aim])
    for case, row in of("wan").items():
        told.append([f"step time, diffusers' Wan / ours, {case}", row["theirs_by_ours"], None])
    for case in (scale.usual, "many lengths"):
        rates = {
            row["attention"]: row["tokens_per_s"]
            for name, row in of("attention").items()
            if name.endswith(f", {case}")
        }
        if rates:
            told.append([f"fastest attention, {case}", max(rates, key=lambda name: rates[name]), None])
    late = [row["case"] for row in measured if row.get("compiled_while_timed")]
    if late:
        told.append(["compiled while the clock ran, so slower than it is", ", ".join(late), None])
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(f"{row['part']} {row['model']} {row['case']}")
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        told.append([f"not measured: {names[0]}{more}", reason[:60], None])
    return told


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
    run = Run(scale, device, Clock(options.minutes))
    # In the order of their worth, but so that models are built and compiled few times.
    jobs: list[tuple[str, Callable[[], None]]] = [
        ("mfu", lambda: run.mfu(run.main)),
        ("lengths", run.lengths),
        ("mfu", lambda: run.mfu(run.wan)),
        ("wan", run.against_wan),
        ("attention", run.attention),
        ("recompute", run.recompute),
        ("compile", run.compile),
    ]
    about = {"machine": machine(), "device": str(device), "scale": asdict(scale), "parts": parts}
    for part, job in jobs:
        if part in parts:
            job()
            if options.json:
                seconds = time.perf_counter() - run.clock.began
                found = {**about, "seconds": seconds, "rows": run.rows, "summary": summary(run.rows, scale)}
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    cells = [[row.get(name) for name in FIELDS] for row in run.rows]
    print_table("All cases", FIELDS, cells)
    print_table(
        f"The main figures, {time.perf_counter() - run.clock.began:.0f} s",
        ["figure", "found", "goal"],
        summary(run.rows, scale),
    )


if __name__ == "__main__":
    main()
