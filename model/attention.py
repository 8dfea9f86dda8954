"""Attention over clips packed one after another: one function, computed in several ways that all agree.

    layout = Layout(lengths, lengths)                    # clips of these lengths, see model/layout.py
    y = attention(q, k, v, layout)                       # (S, H, d), S = sum of lengths
    y = attention(q, k, v, Layout(lengths, lengths, backend="flex"))
    dit.backend = "flex"                                 # for all layers of a model

| backend | how | where |
|---|---|---|
| varlen | torch.nn.attention.varlen: one fused kernel over segments of any lengths | CUDA, half precision |
| fa3 | FlashAttention 3 (the package flash_attn_interface), likewise | Hopper GPUs, half precision |
| flex | torch's flex_attention with a mask over blocks; compiled on CUDA | CUDA; CPU without gradients, slow |
| grouped | one call of scaled_dot_product_attention for all segments of one length | everywhere |
| loop | one call for each segment: the reference | everywhere |
| auto | fa3, varlen or grouped: the first that runs | |

The fused kernels, varlen and fa3, take heads of a multiple of 8 up to 256 features, and are made for 64 and 128. Under
flex a value that is not finite reaches all clips of a pack: what the mask excludes is multiplied by 0. The others keep
it to its own clip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import AttentionBackend, DiTConfig
from model.errors import BadInput
from model.layout import Group, Layout


# Where blocks are compiled, what is between two attentions becomes one graph for packs of all sizes; the layout, whose
# lengths differ from pack to pack, would make a new one of each.
@torch.compiler.disable
def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """softmax(q·kᵀ / √d)·v within each segment: q (S, H, d), k and v (L, H, d) -> (S, H, d).

    Raises BadInput if the layout asks for a backend that cannot run here.
    """
    compute = BACKENDS[chosen(layout.backend, q)]
    if layout.order is None:
        return compute(q, k, v, layout)
    q, k, v = (x[layout.order] for x in (q, k, v))
    return compute(q, k, v, layout)[layout.back]


def chosen(backend: AttentionBackend, q: Tensor) -> AttentionBackend:
    """The backend that `backend` means for queries such as q. Raises BadInput if it cannot run."""
    if backend == "auto":
        fused: tuple[AttentionBackend, ...] = ("fa3", "varlen")
        return next((name for name in fused if _obstacle(name, q) is None), "grouped")
    if backend not in BACKENDS:
        raise BadInput(
            f"there is no attention backend {backend!r}: choose auto or one of {', '.join(BACKENDS)}."
        )
    if obstacle := _obstacle(backend, q):
        raise BadInput(f"attention backend {backend!r} cannot run here: {obstacle}. Choose auto.")
    return backend


def _obstacle(backend: AttentionBackend, q: Tensor) -> str | None:
    """Why a backend cannot compute queries such as q; None if it can."""
    if backend in ("varlen", "fa3"):
        if not (q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)):
            kind = str(q.dtype).removeprefix("torch.")
            return f"it needs half precision on CUDA, and this is {kind} on {q.device.type}"
        if q.shape[-1] % 8 or q.shape[-1] > 256:
            return f"it needs heads of a multiple of 8 up to 256 features, and these have {q.shape[-1]}"
        if backend == "varlen" and _varlen() is None:
            return f"torch {torch.__version__} has no torch.nn.attention.varlen (2.11 has)"
        if backend == "fa3" and _fa3() is None:
            return "FlashAttention 3 (flash_attn_interface) is not installed"
        if backend == "fa3" and torch.cuda.get_device_capability(q.device)[0] != 9:
            return f"it needs a Hopper GPU, and this is a {torch.cuda.get_device_name(q.device)}"
    if backend == "flex" and not q.is_cuda and q.requires_grad and torch.is_grad_enabled():
        return f"on {q.device.type} it has no gradients"
    return None


def head_warning(shape: DiTConfig) -> str | None:
    """What to say of a model whose heads are not of a size that fused kernels are made for; None of others."""
    if shape.head_width in (64, 128):
        return None
    return (
        f"heads of {shape.head_width} features (width {shape.width}, {shape.heads} heads): attention kernels on CUDA "
        "are made for 64 or 128, and others run slower or not at all. Choose --model.heads so that width / heads is "
        "one of these."
    )


@lru_cache
def _varlen() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Callable[..., Any], varlen_attn)


@lru_cache
def _fa3() -> Callable[..., Any] | None:
    try:
        from flash_attn_interface import flash_attn_varlen_func
    except ImportError:
        return None
    return cast(Callable[..., Any], flash_attn_varlen_func)


def _with_varlen(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return _fused(_varlen(), q, k, v, layout)


def _with_fa3(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return _fused(_fa3(), q, k, v, layout)


def _fused(kernel: Callable[..., Any] | None, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    assert kernel is not None, "_obstacle has looked"
    longest = max(layout.query_lengths), max(layout.key_lengths)
    y = kernel(q, k, v, *layout.offsets, *longest)
    # Some releases of FlashAttention 3 return the sums of exponentials too.
    return cast(Tensor, y[0] if isinstance(y, tuple) else y)


@lru_cache
def _flex(is_compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return cast(Callable[..., Any], torch.compile(flex_attention) if is_compiled else flex_attention)


def _with_flex(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # (1, H, S, d)
    y = cast(Tensor, _flex(q.is_cuda)(q, k, v, block_mask=layout.block_mask))
    return y[0].transpose(0, 1)


def _with_groups(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Keys of different lengths are padded behind a mask, which is exact."""
    groups, order = layout.groups
    done = [_attend(q[g.queries], k[g.keys], v[g.keys], g) for g in groups]
    y = done[0] if len(done) == 1 else torch.cat(done)
    return y if order is None else y[order]


def _attend(q: Tensor, k: Tensor, v: Tensor, group: Group) -> Tensor:
    """The segments of a group as one batch: q (segments · length, H, d), k and v (segments · keys, H, d)."""
    n = group.segments
    q, k, v = (x.unflatten(0, (n, -1)).transpose(1, 2) for x in (q, k, v))  # (segments, H, length, d)
    # The fused kernel of CPUs takes most of a training step in half precision.
    is_plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled()
    y = (_plain if is_plain else F.scaled_dot_product_attention)(q, k, v, attn_mask=group.mask)
    return y.transpose(1, 2).flatten(0, 1)


def _plain(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
    """The formula: two products of matrices, all scores in memory."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def _with_loop(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    segments = zip(
        q.split(layout.query_lengths), k.split(layout.key_lengths), v.split(layout.key_lengths), strict=True
    )
    done = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in segment))[0].transpose(0, 1)
        for segment in segments
    ]
    return torch.cat(done)


BACKENDS: dict[AttentionBackend, Callable[[Tensor, Tensor, Tensor, Layout], Tensor]] = {
    "varlen": _with_varlen,
    "fa3": _with_fa3,
    "flex": _with_flex,
    "grouped": _with_groups,
    "loop": _with_loop,
}
