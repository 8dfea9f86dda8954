"""Measures one case of training at a time: its row of figures, without the names of part and case.

A row has a `reason` where the memory ran out with all that was tried. BadInput and ImportError are raised where a case
cannot run here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from model.attention import chosen
from model.config import AttentionBackend, DiTConfig, Recompute
from model.dit import DiT
from model.pack import Clip
from tests.bench.train_batching import ways
from tests.bench.train_clips import Maker
from tests.bench.train_sizes import Scale
from tests.bench.train_steps import Clock, Row, Trained, free, packed_loss
from tests.bench.train_wan import wan_batch, wan_loss, wan_of
from train.batch import n_tokens
from train.config import PackingConfig
from train.flops import peak_flops, train_flops
from train.packing import pack_greedily

ALL: tuple[Recompute, ...] = ("none", "selective", "full")


class Cases:
    """See the module. The model that was trained last is kept: the next case may be of it too."""

    def __init__(self, scale: Scale, device: torch.device, clock: Clock) -> None:
        self.scale, self._device, self._clock = scale, device, clock
        self._peak, self._maker = peak_flops(device), Maker(scale, device)
        self._trained: tuple[tuple[str, bool], Trained] | None = None
        self._budgets: dict[str, int] = {}

    def usual_backend(self, model: str) -> AttentionBackend:
        """What `auto` means for this model here."""
        return chosen("auto", self._query(model))

    def equal(
        self,
        model: str,
        name: str,
        is_compiled: bool | None = None,
        backend: AttentionBackend = "auto",
        tries: Sequence[Recompute] = ALL,
    ) -> Row:
        """A pack of equal clips, the largest that fits the memory."""
        is_compiled = self.scale.compile if is_compiled is None else is_compiled
        chosen(backend, self._query(model))  # before a model is built for it
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
                if (found := trained.seconds(losses, self.scale.warm, self._clock)) is not None:
                    if kind == "none":
                        self._budgets[f"{model} {name}"] = budget
                    told = self._told(model, trained.dit, batch.pack.lengths, statistics.median(found[0]))
                    return told | {"ran_out": ran_out, "compile": is_compiled, "steps_s": found[0]} | found[1]
                ran_out.append(f"{kind}, {budget} tokens")
        return _out_of_memory(ran_out, is_compiled)

    def way(self, way: str) -> Row:
        """All clips of many lengths, put into batches in one of `ways`."""
        return self._batches(ways(self._tokens, self.scale.budget)[way], is_padded=way != "packed")

    def many_lengths(self, backend: AttentionBackend) -> Row:
        """One pack of clips of many lengths, again and again, by a backend of attention."""
        chosen(backend, self._query(self.scale.main))
        packing = PackingConfig(budget=self.scale.budget)
        first = pack_greedily(range(len(self._tokens)), self._tokens, packing)[0]
        return self._batches([first] * self.scale.timed, backend=backend)

    def beside_wan(self, is_compiled: bool) -> Row:
        """Steps of ours and of diffusers' on the same tokens, as many as both have memory for."""
        model = self.scale.wan
        shape = replace(self.scale.models[model], text_tokens=self.scale.wan_text)
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
                ours, theirs = sides["ours"], sides["theirs"]
                told = self._told(model, DiT, [n_tokens(size, shape)] * count, ours["step_s"])
                told |= {"theirs_by_ours": theirs["step_s"] / ours["step_s"]}
                told |= {"memory_gib": ours["memory_gib"], "ran_out": ran_out, "compile": is_compiled}
                return told | sides
        return _out_of_memory(ran_out, is_compiled)

    def drop(self) -> None:
        """Let go of the model that was trained last."""
        self._trained = None
        free(self._device)

    def _batches(
        self, batches: list[list[int]], *, is_padded: bool = False, backend: AttentionBackend = "auto"
    ) -> Row:
        """One step for each of `batches`, lists of clips of many lengths; figures are of all together."""
        model, shape, is_compiled = self.scale.main, self.scale.models[self.scale.main], self.scale.compile
        trained, ran_out = self._train(model, is_compiled), list[str]()
        trained.dit.backend = backend
        made = [
            self._maker.batch([self._many[c] for c in clips], shape, is_padded=is_padded) for clips in batches
        ]
        losses = [packed_loss(trained, batch) for batch in made]
        for kind in ALL:
            trained.dit.recompute = kind
            if (found := trained.seconds(losses, self.scale.warm, self._clock)) is not None:
                seconds, seen = found
                done = batches[: len(seconds)]
                lengths = [self._tokens[clip] for clips in done for clip in clips]
                computed = sum(len(batch.target) for batch in made[: len(done)])
                told = self._told(model, trained.dit, lengths, sum(seconds))
                told |= {"batches": len(done), "computed_tokens": computed}
                told |= {"padding_share": 1 - sum(lengths) / computed}
                told |= {"batches_left_out": len(batches) - len(done), "step_s": sum(seconds) / len(done)}
                return told | {"ran_out": ran_out, "compile": is_compiled, "steps_s": seconds} | seen
            ran_out.append(kind)
        return _out_of_memory(ran_out, is_compiled)

    @cached_property
    def _many(self) -> list[Clip]:
        """Clips of many lengths, with the same texts in all cases."""
        return self._maker.many_lengths(self.scale.models[self.scale.main])

    @cached_property
    def _tokens(self) -> list[int]:
        """Tokens of each of these."""
        shape = self.scale.models[self.scale.main]
        return [n_tokens((t, h, w), shape) for _, t, h, w in (clip.latent.shape for clip in self._many)]

    def _wan_side(self, side: str, shape: DiTConfig, clips: list[Clip], is_compiled: bool) -> Row | None:
        """Steps of one of the two on a batch of `clips`; null if the memory ran out."""
        self.drop()  # and so what the other side has left
        is_ours = side == "ours"
        build = partial(DiT, shape) if is_ours else partial(wan_of, shape)
        trained = Trained(build, self._device, is_compiled=is_compiled)
        loss: Callable[[], Tensor]
        if is_ours:
            loss = packed_loss(trained, self._maker.batch(clips, shape))
        else:
            loss = wan_loss(trained.model, wan_batch(clips, self.scale.wan_text, self._device))
        found = trained.seconds([loss] * self.scale.timed, self.scale.warm, self._clock)
        if found is None:
            return None
        weights = sum(weight.numel() for weight in trained.model.parameters())
        return {"step_s": statistics.median(found[0]), "steps_s": found[0], "weights": weights, **found[1]}

    def _train(self, model: str, is_compiled: bool) -> Trained:
        """The model to measure: the last one, if it is of the kind."""
        key = (model, is_compiled)
        if self._trained is None or self._trained[0] != key:
            self.drop()
            shape = self.scale.models[model]
            self._trained = key, Trained(lambda: DiT(shape), self._device, is_compiled=is_compiled)
        return self._trained[1]

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
            1, shape.heads, shape.head_width, dtype=torch.bfloat16, device=self._device, requires_grad=True
        )


def _out_of_memory(ran_out: list[str], is_compiled: bool) -> Row:
    return {"reason": f"out of memory: {'; '.join(ran_out)}", "ran_out": ran_out, "compile": is_compiled}
