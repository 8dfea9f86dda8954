"""Steps of the trainer on batches that lie on the device already: what one takes, and how much memory.

trained = Trained(lambda: DiT(shape), device, is_compiled=True)
found = trained.seconds([packed_loss(trained, batch)] * 5, warm=2, clock=Clock(minutes=8))
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.dit import DiT
from tests.bench.train_sizes import SEED
from train.batch import Batch, token_errors
from train.config import TrainConfig
from train.ema import Ema
from train.optim import build_optimizer
from train.parallel import clip_gradients, share_out
from train.ranks import Ranks

Row = dict[str, Any]


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

    def case_is_left_out(self) -> None:
        """The next one may be cheaper."""
        self._last_s /= 2

    def check(self) -> None:
        """Raise TimeoutError when the time is over."""
        if self.is_over:
            raise TimeoutError("the time was over before the first step that counts")

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self._end

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.began


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
    ) -> tuple[list[float], Row] | None:
        """Seconds of one step for each of `losses`, after `warm` of the first, and what else was seen meanwhile.

        Fewer steps where the time is over, and TimeoutError where not even one can be; null where the memory ran out.
        """
        try:
            return self._seconds(losses, warm, clock)
        except torch.OutOfMemoryError:
            pass
        # What the step has left is let go of here, since the error still holds the tensors above.
        self._optimizer.zero_grad()
        free(self._device)
        return None

    def _seconds(
        self, losses: Sequence[Callable[[], Tensor]], warm: int, clock: Clock
    ) -> tuple[list[float], Row]:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for loss in losses[:warm]:
            clock.check()
            self.step(loss)
        clock.check()
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


def packed_loss(trained: Trained, batch: Batch) -> Callable[[], Tensor]:
    """The trainer's loss of a pack."""

    def loss() -> Tensor:
        with torch.autocast(batch.target.device.type, torch.bfloat16):
            v = trained.model(batch.pack)  # (S, token_width)
        return token_errors(v, batch).sum() / sum(batch.generated)

    return loss


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
