"""The rows of a tensor that this process holds: all of them, or, under FSDP2, a stretch of its own.

local, start, rows = own_rows(weight)                    # its rows here, the first one's number, and rows in all
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard


def own_rows(x: Tensor) -> tuple[Tensor, int, int]:
    """Local rows of x, the number of the first, and how many x has over all processes; a number has one row.

    FSDP2 cuts by rows as torch.chunk does: equal stretches, the last ones shorter or empty.
    """
    rows = x.shape[0] if x.ndim else 1
    if not isinstance(x, DTensor):
        return x.detach(), 0, rows
    assert x.placements == (Shard(0),), x.placements
    each = -(-rows // x.device_mesh.size())
    return x.to_local().detach(), min(rows, each * x.device_mesh.get_local_rank()), rows


def forget_gathered(model: nn.Module) -> None:
    """Give up gathered weights, which FSDP2 keeps behind a forward pass without a backward one.

    Until then the model shows them instead of its rows, and would use them again though the rows have changed.
    """
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole(x: Tensor) -> Tensor:
    """x with all its rows, on every process; a collective operation."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def is_cut(x: Tensor) -> bool:
    """Other processes hold other rows of x."""
    return isinstance(x, DTensor) and x.device_mesh.size() > 1
