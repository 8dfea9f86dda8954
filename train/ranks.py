"""The processes of a run: one, or those that torchrun started. Gradients are summed over them.

with joined("auto") as ranks:
    ranks.sum_(count)                    # in place, over all ranks
    ranks.sum_gradients(model)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this one computes.
        store: where ranks leave each other notes; null where there is but one.
    """

    rank: int
    size: int
    device: torch.device
    store: dist.Store | None = None

    def sum_(self, x: Tensor) -> Tensor:
        """Replace x by its sum over all ranks."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over all ranks, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        together = self.sum_(torch.cat([g.flatten() for g in gradients]))
        parts = together.split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def all_of(self, here: bool) -> bool:
        """Whether it is so on every rank."""
        return int(self.sum_(torch.tensor(int(here), device=self.device))) == self.size

    def same_as_first(self, model: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def gather(self, one: T) -> list[T]:
        """What each rank gives, in their order; small plain data."""
        if self.size == 1:
            return [one]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, one)
        return cast(list[T], found)

    def post(self, name: str, text: str) -> None:
        """Leave a note for the others; in no step with them."""
        if self.store is not None:
            self.store.set(name, text)

    def posted(self, name: str) -> str | None:
        """The last note of this name; null if there is none."""
        if self.store is None or not self.store.check([name]):
            return None
        return str(self.store.get(name).decode())

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str, wait_s: float = 1800.0) -> Iterator[Ranks]:
    """The ranks of this run; `device` is cpu, cuda or auto. Raises BadInput if there is no such device.

    A rank waits `wait_s` seconds for the others before it gives up.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("there is no CUDA device here: use --device=cpu, or run where one is.")
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = (
        torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    )
    if kind == "cuda":
        torch.cuda.set_device(local)
    # Ray has joined its workers already. The store is made here, since torch does not hand out its own.
    is_ours = size > 1 and not dist.is_initialized()
    store: dist.Store | None = None
    if is_ours:
        store, _, _ = next(dist.rendezvous("env://", rank, size))
        store.set_timeout(timedelta(minutes=30))
        # Gloo too, since small plain data is exchanged on CPUs.
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=wait_s),
        )
    try:
        # A client of its own: one that waits for the others holds its lock.
        yield Ranks(rank, size, local, store.clone() if store is not None else None)
    finally:
        if is_ours:
            dist.destroy_process_group()
