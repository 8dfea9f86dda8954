"""LPIPS: how far apart two pictures look, as the features of VGG16 see it (Zhang et al. 2018, arXiv:1801.03924).

    distance = load_lpips("weights/lpips").to(device)
    loss = distance(y, x).mean()          # y and x: (B, 3, T, H, W) or (N, 3, H, W) in [-1, 1]

The folder holds two files, which are found by their keys: the weights of VGG16 as torchvision publishes them, and
the linear heads as the package lpips publishes them (version 0.1). Nothing is downloaded.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError  # the name of an error of torch.load; nothing is unpickled here

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.errors import BadInput

#: Channels of VGG16's convolutions; after each row the features are compared and then halved in size.
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Where the rows begin and end among torchvision's `features`.
_CUTS = (0, 4, 9, 16, 23, 30)
#: Four halvings leave one position of this many pixels.
SMALLEST = 16

_SUFFIXES = (".pth", ".pt", ".safetensors")
_REMEDY = (
    "Put two files there: vgg16-397923af.pth, the ImageNet weights of VGG16 that torchvision publishes "
    "(safetensors with the same keys will do), and vgg.pth from weights/v0.1 of the Python package lpips."
)
# What torch.load and safetensors raise of files that were cut short, are damaged or are something else.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    UnpicklingError,
    SafetensorError,
)


class LPIPS(nn.Module):
    """The distance of version 0.1 with VGG16, frozen. It has no dropout: train() and eval() are the same.

    Convolutions follow autocast; normalisation and differences are always in float32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        """Weights by the keys and in the shapes of `backbone_shapes()` and `head_shapes()`."""
        super().__init__()
        features = _vgg16()
        features.load_state_dict(
            {key.removeprefix("features."): backbone[key].float() for key in backbone_shapes()}, assign=True
        )
        self.stages = nn.ModuleList(features[start:stop] for start, stop in pairwise(_CUTS))
        self.heads = nn.ParameterList(nn.Parameter(heads[key].float()) for key in head_shapes())
        # From [-1, 1] to what VGG16 was trained on: ImageNet's mean and deviation, rounded as published.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Distance of each clip, (B,) float32, 0 or more: the mean over its frames.

        `y` and `x` are videos (B, 3, T, H, W) or pictures (N, 3, H, W) in [-1, 1], of 16×16 pixels or more.
        Differentiable in both. Raises BadInput for other shapes.
        """
        if y.shape != x.shape or y.ndim not in (4, 5) or y.shape[1] != 3 or 0 in y.shape:
            raise BadInput(
                "LPIPS: expected two videos (B, 3, T, H, W) or two sets of pictures (N, 3, H, W) of one shape, "
                f"got {tuple(y.shape)} and {tuple(x.shape)}."
            )
        if min(y.shape[-2:]) < SMALLEST:
            raise BadInput(
                f"LPIPS: pictures of {y.shape[-2]}×{y.shape[-1]} pixels are too small, as the features are halved "
                f"four times. Give {SMALLEST}×{SMALLEST} or more, or train without LPIPS."
            )
        clips = len(y)
        y, x = self._frames(y), self._frames(x)
        total = torch.zeros(len(y), device=y.device)
        for stage, head in zip(self.stages, self.heads, strict=True):
            y, x = stage(y), stage(x)  # (N, C, h, w)
            total = total + _difference(y.float(), x.float(), head)
        return total.view(clips, -1).mean(dim=1)

    def _frames(self, x: Tensor) -> Tensor:
        """All frames as pictures, (N, 3, H, W), scaled for VGG16."""
        if x.ndim == 5:
            x = x.transpose(1, 2).flatten(0, 1)
        return (x.float() - self.shift) / self.scale


def _difference(y: Tensor, x: Tensor, head: Tensor) -> Tensor:
    """Weighted squared difference of unit features (N, C, h, w), averaged over positions: (N,)."""
    error = _unit(y) - _unit(x)
    # A product and a sum, as autocast would round a 1×1 convolution.
    return (error.square() * head).sum(dim=1).mean(dim=(1, 2))


def _unit(feature: Tensor) -> Tensor:
    # Where responses are so faint that their squares vanish, the gradient of this norm is 0; that of a square
    # root of a sum would be NaN.
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + 1e-10)


def _vgg16() -> nn.Sequential:
    """VGG16 up to its last features, indexed as in torchvision, without memory or draws for its weights."""
    layers: list[nn.Module] = []
    inputs = 3
    with torch.device("meta"):
        for widths in WIDTHS:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
    return nn.Sequential(*layers)


def backbone_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of VGG16's weights: `features.0.weight` (64, 3, 3, 3) and on."""
    return {f"features.{key}": tuple(weight.shape) for key, weight in _vgg16().state_dict().items()}


def head_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the five heads: `lin0.model.1.weight` (1, 64, 1, 1) and on."""
    return {f"lin{i}.model.1.weight": (1, widths[-1], 1, 1) for i, widths in enumerate(WIDTHS)}


def load_lpips(place: str | Path) -> LPIPS:
    """LPIPS from the folder `place`, on the CPU. Raises BadInput if a part is missing, doubled or unusable.

    Files other than .pth, .pt and .safetensors are passed over, and so are keys that are not needed.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise BadInput(f"LPIPS: {folder} is no folder. {_REMEDY}")
    tables = {
        path: _read(path)
        for path in sorted(folder.iterdir())
        if path.suffix in _SUFFIXES and not path.name.startswith(".")
    }
    backbone = _part(folder, tables, "the weights of VGG16", backbone_shapes())
    heads = _part(folder, tables, "the linear heads for VGG16", head_shapes())
    if negative := [key for key in head_shapes() if heads[key].min() < 0]:
        raise BadInput(f"LPIPS: {negative[0]} in {folder} is negative somewhere: no distance. {_REMEDY}")
    return LPIPS(backbone, heads)


def _read(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file. Raises BadInput if it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # Not what torch says: it advises to load the file unsafely.
        raise BadInput(
            f"LPIPS: {path} cannot be read ({type(error).__name__}). Copy it again if it is one of the two files "
            f"that are needed, remove it otherwise. {_REMEDY}"
        ) from error
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _part(
    folder: Path, tables: dict[Path, dict[str, Tensor]], what: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The one table that has `shapes`. Raises BadInput if there is none or more than one."""
    amiss = {path: _amiss(table, shapes) for path, table in tables.items() if shapes.keys() & table.keys()}
    fitting = [path for path, cause in amiss.items() if cause is None]
    if len(fitting) == 1:
        return tables[fitting[0]]
    if fitting:
        names = " and ".join(path.name for path in fitting)
        raise BadInput(f"LPIPS: {names} in {folder} all hold {what}. Leave the one there that is meant.")
    causes = "; ".join(f"in {path.name} {cause}" for path, cause in amiss.items())
    cause = causes or f"none has a key like {next(iter(shapes))}"
    raise BadInput(f"LPIPS: no file in {folder} holds {what}: {cause}. {_REMEDY}")


def _amiss(table: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Why a table does not serve; null if it does."""
    for key, shape in shapes.items():
        if key not in table:
            return f"{key} is missing"
        if tuple(table[key].shape) != shape:
            return f"{key} has the shape {tuple(table[key].shape)}, not {shape}"
        if not (table[key].is_floating_point() and table[key].isfinite().all()):
            return f"{key} holds values that are no finite decimals"
    return None
