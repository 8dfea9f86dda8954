"""How the ranks of a run share the work: packs, weights, and the tokens of a pack.

    shares = share_out(model, config, ranks)             # once, before the optimizer
    shares.rank, shares.ranks                            # which packs are this rank's
    shares.own(batch)                                    # of a batch the tokens that it computes

Data parallel: each rank has packs of its own, and gradients are summed. With `parallel.shard` each also keeps but its
rows of the weights, gradients, moments and averages (FSDP2, torch's fully_shard, block by block). With
`parallel.ulysses` so many neighbouring ranks take the same packs and share their tokens (model/sequence.py). All three
go together: what is summed is always each rank's part of one loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from model.dit import DiT
from model.errors import BadInput
from model.sequence import Sequence
from train.batch import Batch
from train.config import TrainConfig
from train.ranks import Ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shares:
    """What is this rank's.

    Attributes:
        rank: which of the `ranks` stretches of packs.
        ranks: how many there are.
        sequence: the ranks that share its tokens; null if it computes them alone.
    """

    rank: int
    ranks: int
    sequence: Sequence | None = None

    @property
    def is_first(self) -> bool:
        """Of the ranks that share tokens this is the one that speaks of the clips."""
        return self.sequence is None or self.sequence.rank == 0

    def own(self, batch: Batch) -> Batch:
        """What stands beside the pack, of this rank's tokens alone."""
        if self.sequence is None:
            return batch
        span = self.sequence.span(len(batch.target))
        return replace(
            batch,
            target=batch.target[span],
            is_generated=batch.is_generated[span],
            mode=batch.mode[span],
            level=batch.level[span],
            captions=batch.captions if self.is_first else (),
        )

    def agreed(self, batches: Listed[Batch]) -> list[Batch]:
        """The packs that all ranks that share tokens compute, where not all of them could read all clips.

        Each pack is that of the rank that read most of its clips. Called by all of these ranks, on the CPU.
        """
        if self.sequence is None:
            return list(batches)
        there = self.sequence.gather(batches)
        chosen = [min(same, key=lambda batch: len(batch.damaged)) for same in zip(*there, strict=True)]
        for mine, taken in zip(batches, chosen, strict=True):
            for clip_id, error in sorted(set(mine.damaged) - set(taken.damaged)):
                logger.warning("clip %s was read by another rank alone: %s", clip_id, error)
        return chosen


def share_out(model: DiT, config: TrainConfig, ranks: Ranks) -> Shares:
    """Prepare `model`, which is the same on every rank, for what the configuration says. Raises BadInput."""
    model.backend, model.recompute = config.attention, config.recompute
    shares, parallel = Shares(ranks.rank, ranks.size), config.parallel
    if parallel.ulysses > 1:
        if ranks.size % parallel.ulysses:
            raise BadInput(
                f"--parallel.ulysses={parallel.ulysses} does not divide the {ranks.size} ranks of this run: start "
                "torchrun with a multiple of it."
            )
        group, _ = dist.new_subgroups(parallel.ulysses, timeout=timedelta(seconds=config.guard.wait_s))
        assert group is not None
        model.sequence = Sequence(group)
        model.sequence.check(model.config.heads)
        shares = Shares(ranks.rank // parallel.ulysses, ranks.size // parallel.ulysses, model.sequence)
    if config.compile:
        for block in model.blocks:
            block.compile(dynamic=True)
    if parallel.shard and ranks.size > 1:
        mesh = init_device_mesh(ranks.device.type, (ranks.size,))
        # Left to autocast, weights would travel in full precision, and its halves of them stay until the backward pass.
        half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            if config.precision == "bf16":
                fully_shard(block, mesh=mesh, mp_policy=half)
            else:
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)  # the network of the noise level stays in full precision
        for part in model.modules():
            if isinstance(part, FSDPModule):
                # The loss is divided by the tokens of all ranks already: gradients are summed.
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)
    return shares


def sum_gradients(model: DiT, ranks: Ranks) -> None:
    """Sum gradients over the ranks; FSDP2 has done so in the backward pass."""
    if not isinstance(model, FSDPModule):
        ranks.sum_gradients(model)


def last_of_step(model: DiT, is_last: bool) -> None:
    """Say before a backward pass whether it is the step's last: gradients are exchanged but once."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)


def clip_gradients(model: DiT, most: float) -> torch.Tensor:
    """Scale gradients down to a norm of `most` over all weights and ranks; returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), most)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
