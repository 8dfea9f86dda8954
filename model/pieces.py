"""Tensors in safetensors files: whole, or each cut by rows among the processes that wrote them.

    ema.safetensors                                      # by one process
    ema-00001-of-00003.safetensors ...                   # by three: some rows of each tensor in each

    pieces = Pieces("run/checkpoints/step-00001000", "ema")      # or s3://...
    pieces.shapes["head.out.weight"]                     # (64, 192), of the whole tensor
    pieces.rows("head.out.weight", 0, 32)                # reads these rows only, from whichever files hold them
    pieces.whole()                                       # all tensors

A tensor's rows follow each other in a file, so that any number of processes can read what is theirs by byte ranges.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import fsspec
import torch
from torch import Tensor

from model.errors import BadInput

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: No header of ours comes near; a file that claims more is damaged.
_MOST_HEADER = 100_000_000


@dataclass(frozen=True)
class _Part:
    """Some rows of a tensor: the first one's number, how many, and where in which file they begin."""

    start: int
    rows: int
    file: str
    offset: int


def piece_name(name: str, number: int = 0, count: int = 1) -> str:
    """The file of piece `number` (from 0) of `count`."""
    return f"{name}.safetensors" if count == 1 else f"{name}-{number + 1:05d}-of-{count:05d}.safetensors"


def piece_metadata(starts: dict[str, tuple[int, int]]) -> dict[str, str]:
    """What a piece tells beside its tensors: of each cut one the number of its first row, and the rows in all."""
    return {"rows": json.dumps(starts)}


class Pieces:
    """The tensors called `name` of a folder. Raises BadInput where a file lacks or its header makes no sense.

    Attributes:
        shapes: the shape of each whole tensor.
        dtypes: its type.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(str(folder))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._parts: dict[str, list[_Part]] = {}
        for file in self._files(root, name):
            try:
                self._take_in(file)
            except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise BadInput(f"{file} is damaged ({type(error).__name__}: {error}).") from error
        for tensor, shape in self.shapes.items():
            parts = sorted(self._parts[tensor], key=lambda part: part.start)
            ends = [0, *(part.start + part.rows for part in parts)]
            if [part.start for part in parts] != ends[:-1] or ends[-1] != (shape[0] if shape else 1):
                raise BadInput(f"{folder}: the pieces of {name} do not hold all rows of {tensor}.")

    def _files(self, root: str, name: str) -> list[str]:
        pattern = re.compile(re.escape(name) + r"(-(\d{5})-of-(\d{5}))?\.safetensors")
        there = [path.rsplit("/", 1)[-1] for path in self._fs.ls(root, detail=False)]
        found = {path: match for path in there if (match := pattern.fullmatch(path))}
        counts = {int(match[3] or 1) for match in found.values()}
        if len(counts) != 1 or len(found) != (count := counts.pop()):
            raise BadInput(
                f"{root} should hold {name}.safetensors or all its pieces, and has {sorted(found)}."
            )
        return [f"{root}/{piece_name(name, number, count)}" for number in range(count)]

    def _take_in(self, file: str) -> None:
        size = int.from_bytes(self._fs.cat_file(file, start=0, end=8), "little")
        if not 2 <= size <= _MOST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(self._fs.cat_file(file, start=8, end=8 + size))
        cut: dict[str, Any] = json.loads((header.pop("__metadata__", None) or {}).get("rows", "{}"))
        length = self._fs.size(file) - 8 - size
        for name, told in header.items():
            shape, (begin, end) = tuple(told["shape"]), told["data_offsets"]
            dtype = _DTYPES[told["dtype"]]
            if not 0 <= begin <= end <= length or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} does not lie within the file")
            held = shape[0] if shape else 1
            start, rows = cut.get(name, (0, held))
            whole = (rows, *shape[1:]) if shape else ()
            if (self.shapes.setdefault(name, whole), self.dtypes.setdefault(name, dtype)) != (whole, dtype):
                raise ValueError(f"{name} is another tensor than in the pieces before")
            if held:
                self._parts.setdefault(name, []).append(_Part(start, held, file, 8 + size + begin))
            else:
                self._parts.setdefault(name, [])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor; a number has one row."""
        shape, dtype = self.shapes[name], self.dtypes[name]
        row = math.prod(shape[1:]) * dtype.itemsize
        found = bytearray()
        for part in sorted(self._parts[name], key=lambda part: part.start):
            first, last = max(start, part.start), min(stop, part.start + part.rows)
            if first < last:
                begin = part.offset + (first - part.start) * row
                found += self._fs.cat_file(part.file, start=begin, end=begin + (last - first) * row)
        if len(found) != (stop - start) * row:
            raise BadInput(f"rows {start} to {stop} of {name} are not all there: {len(found)} bytes.")
        if not found:
            return torch.empty((0, *shape[1:]), dtype=dtype)
        return torch.frombuffer(found, dtype=dtype).reshape((stop - start, *shape[1:]) if shape else ())

    def whole(self) -> dict[str, Tensor]:
        """All tensors."""
        return {name: self.rows(name, 0, shape[0] if shape else 1) for name, shape in self.shapes.items()}
