"""What runs in the process that holds one network: time and peak memory of one pass at a time.

    child = Isolated()
    child.call("tests.bench.vae_worker:prepare", setup, clip, deadline_s=600)
    child.call("tests.bench.vae_worker:measure", "encode", deadline_s=600)      # {"seconds": ..., "peak_mb": ...}

A process for each: memory that one network has used and given back is then not there for the next. Peak memory
is what a pass needs beyond what there was before the first one, weights and the clip itself: resident memory as
Linux counts it (VmHWM, set back before each pass), on CUDA what torch has allocated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.bench.vae_networks import DIRECTIONS, Direction, Ours, Setup, Wan, build


@dataclass(frozen=True)
class Clip:
    """Frames, height and width in pixels of what is encoded and decoded: 4k+1, multiples of 8."""

    frames: int
    height: int
    width: int


class Bench:
    """One network, a clip, latents of that size, and the memory that all of them take."""

    def __init__(self, setup: Setup, clip: Clip) -> None:
        self.setup = setup
        self.coder: Ours | Wan = build(setup)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(1, 3, clip.frames, clip.height, clip.width, generator=generator) * 2 - 1
        shape = (1, setup.config.channels, (clip.frames - 1) // 4 + 1, clip.height // 8, clip.width // 8)
        z = torch.randn(*shape, generator=generator)
        self.inputs = {"encode": x.to(setup.device), "decode": z.to(setup.device)}
        self.is_cuda = setup.device.startswith("cuda")
        self.before_mb = torch.cuda.memory_allocated() / 2**20 if self.is_cuda else _status_mb("VmRSS")

    def run(self, direction: Direction, coder: Ours | Wan | None = None) -> Tensor:
        return getattr(coder or self.coder, direction)(self.inputs[direction])

    @torch.inference_mode()
    def measure(self, direction: Direction) -> dict[str, Any]:
        """Seconds and peak memory in MB (null where the system does not tell it) of one pass.

        Both are null where it cannot be done on this machine, and `reason` says why.
        """
        try:
            can_reset = self._reset_peak()
            self._wait()
            began = time.perf_counter()
            made = self.run(direction)
            self._wait()
            seconds = time.perf_counter() - began
            del made
        # Torch has no class of its own for what a device refuses to do.
        except RuntimeError as error:
            self._clear()
            return {"seconds": None, "peak_mb": None, "reason": _said(error)}
        if self.is_cuda:
            peak: float | None = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = _status_mb("VmHWM") if can_reset else None
        self._clear()
        left = None if peak is None or self.before_mb is None else peak - self.before_mb
        return {"seconds": seconds, "peak_mb": left, "reason": None}

    @torch.inference_mode()
    def differences(self) -> dict[str, Any]:
        """Largest difference of any value from what the network makes of the whole, by direction."""
        assert isinstance(self.coder, Ours)
        whole = Ours(replace(self.setup, chunk=None, tile=None), self.coder.network)
        found: dict[str, Any] = {}
        for direction in DIRECTIONS:
            try:
                pieces, all_at_once = self.run(direction), self.run(direction, whole)
            except RuntimeError as error:
                found[direction] = {"largest": None, "scale": None, "reason": _said(error)}
                self._clear()
                continue
            found[direction] = {
                "largest": (pieces - all_at_once).abs().max().item(),
                "scale": all_at_once.float().std().item(),
                "reason": None,
            }
        return found

    def _reset_peak(self) -> bool:
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            return True
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            return False
        return True

    def _wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def _clear(self) -> None:
        """Give back what this process keeps in reserve: its neighbours share the device."""
        if self.is_cuda:
            torch.cuda.empty_cache()


def _status_mb(name: str) -> float | None:
    """A line of /proc/self/status in MB; null where there is none."""
    try:
        with open("/proc/self/status") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith(name)), None)
    except OSError:
        return None


def _said(error: RuntimeError) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


_bench: list[Bench] = []


def prepare(setup: Setup, clip: Clip) -> None:
    """Build the network of this process, unless it is there already. Raises RuntimeError where it does not fit."""
    if not _bench:
        _bench.append(Bench(setup, clip))


def measure(direction: Direction) -> dict[str, Any]:
    """One pass; see Bench.measure."""
    return _bench[0].measure(direction)


def differences() -> dict[str, Any]:
    """See Bench.differences."""
    return _bench[0].differences()
