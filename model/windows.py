"""Self-attention within windows of a clip, as in W.A.L.T (arXiv:2312.06662): cheaper for long clips than the whole.

    layouts = window_layouts(pack, (5, 8, 8), depth, device)     # one Layout per block
    config = DiTConfig(..., windows=(5, 8, 8))                   # a model that does so

Blocks take turns: within one latent frame, whatever its size; then within windows of (time, rows, columns) tokens,
which begin at the clip's first token and are cut off at its ends. Every other time these are moved by half a window
(Swin, arXiv:2103.14030) along each axis that holds more than one, so that clips of any length are reached as a whole.
The tokens of a span are in the windows of the place that it is given for. No window crosses clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import AttentionBackend
from model.layout import Layout
from model.pack import Pack

Window = tuple[int, int, int]


def window_layouts(
    pack: Pack, windows: Window, depth: int, device: torch.device | str, backend: AttentionBackend = "auto"
) -> list[Layout]:
    """The self-attention of each of `depth` blocks; blocks of one kind share a layout."""
    frame, straight, moved = (
        _layout(numbers, device, backend)
        for numbers in (
            frame_windows(pack),
            spacetime_windows(pack, windows, is_moved=False),
            spacetime_windows(pack, windows, is_moved=True),
        )
    )
    turns = (frame, straight, frame, moved)
    return [turns[block % len(turns)] for block in range(depth)]


def frame_windows(pack: Pack) -> Tensor:
    """(S,) int64: the window of each token if every latent frame is one; only their equality has a meaning."""
    return _numbered(pack, pack.cells * torch.tensor([1, 0, 0]))


def spacetime_windows(pack: Pack, windows: Window, *, is_moved: bool) -> Tensor:
    """(S,) int64: the window of each token among windows of (time, rows, columns) tokens."""
    size = torch.tensor(windows)
    move = torch.zeros_like(size)
    if is_moved:
        extent = torch.stack([own.amax(dim=0) + 1 for own in pack.cells.split(pack.lengths)])  # (K, 3)
        lengths = torch.tensor(pack.lengths)
        move = torch.where(extent > size, size // 2, 0).repeat_interleave(lengths, dim=0)  # (S, 3)
    return _numbered(pack, (pack.cells + move) // size)


def _numbered(pack: Pack, window: Tensor) -> Tensor:
    """One number for each window (S, 3) of each clip."""
    clip = torch.arange(len(pack.lengths)).repeat_interleave(torch.tensor(pack.lengths))
    _, rows, columns = (window.amax(dim=0) + 1).tolist()
    time = int(window[:, 0].amax()) + 1
    return ((clip * time + window[:, 0]) * rows + window[:, 1]) * columns + window[:, 2]


def _layout(numbers: Tensor, device: torch.device | str, backend: AttentionBackend) -> Layout:
    _, sizes = torch.unique(numbers, return_counts=True)
    lengths = tuple(sizes.tolist())
    return Layout(lengths, lengths, device, backend, order=torch.argsort(numbers, stable=True))
