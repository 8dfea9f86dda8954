"""A clip's tensors as the bytes of a member of a latent shard: the same ones each time."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor


def to_member(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file: floats as bfloat16, whole numbers as they are; `save` orders metadata anew each time."""
    stored = {
        name: (x.to(torch.bfloat16) if x.is_floating_point() else x).contiguous()
        for name, x in sorted(tensors.items())
    }
    data = save(stored, metadata=metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
