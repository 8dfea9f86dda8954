"""A score in bins: bars to draw, and stops at which a slider knows the exact count.

The page holds no score of a clip, only these counts, so it is as small for a million clips as for a thousand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BINS = 36  # at most; fewer where a round width asks for it
_QUANTILES = 80  # of the stops; besides there are round figures
_SHOWN, _LONGER = 0.97, 1.2  # a range this much longer than that of so many values is cut to theirs,
_BEYOND = 4  # but not before it is this much longer than the way to a bound out there


def bars(
    values: np.ndarray,
    kept: np.ndarray,
    bounds: list[float],
    *,
    undecided: np.ndarray | None = None,
    whole: bool = False,
    within: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Bins of kept, rejected and waiting clips; every bound is an edge, so no bar lies on both sides of it.

    `values` (n,) float64 with NaN for null, `kept` (n,) bool, and so `undecided`, which is none if not given. When a
    few values lie far out, they fall into the last bin and `over` counts them. `whole`: the values are counts, so a
    bin is no narrower than one. `within`: least and greatest possible value; the edges do not go beyond.
    """
    waiting = np.zeros(len(values), bool) if undecided is None else undecided
    there = np.isfinite(values)
    present = values[there]
    facts: dict[str, Any] = {"n": len(present), "nulls": len(values) - len(present)}
    if not len(present):
        return facts | {"edges": [], "kept": [], "rejected": [], "waiting": [], "over": 0}
    low, high, step = _range(present, bounds, whole, within)
    edges = _edges(low, high, step, bounds)
    shown = np.clip(values, edges[0], edges[-1])
    return facts | {
        "edges": [_tidy(edge) for edge in edges],
        "kept": np.histogram(shown[there & kept], edges)[0].tolist(),
        "rejected": np.histogram(shown[there & ~kept & ~waiting], edges)[0].tolist(),
        "waiting": np.histogram(shown[there & waiting], edges)[0].tolist(),
        "over": int((present > high).sum()),
        "max": float(present.max()),
        "median": float(np.median(present)),
    }


def stops(values: np.ndarray, bounds: list[float], within: tuple[float, float] | None = None) -> list[float]:
    """Round figures, those at which clips differ, and the bounds: where a slider may stand. Empty without values.

    The first and the last are those of the edges that `bars` finds for the same arguments.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return []
    low, high, width = _range(present, bounds, within=within)
    inside = present[present <= high]
    apart = np.quantile(inside, np.linspace(0, 1, _QUANTILES), method="nearest")
    found = {_rounded(value, width / 2) for value in apart} | _plain_figures(high, bounds)
    found |= {_tidy(low + width * k) for k in range(BINS)}
    return sorted({value for value in found if low < value < high} | {low, high, *bounds})


def _plain_figures(high: float, bounds: list[float]) -> set[float]:
    """What people ask for: 1, 2, 5 in each of three decades up to `high`, and even figures around each bound."""
    if high <= 0:
        return set()
    top = math.floor(math.log10(high))
    figures = {_tidy(times * 10.0 ** (top - k)) for times in (1, 2, 5) for k in range(3)}
    for bound in bounds:
        if bound:
            half = 10.0 ** math.floor(math.log10(abs(bound))) / 2
            steps = [
                *range(1, 21),
                *range(30, 201, 10),
            ]  # of 0.05 to 1 and of 0.5 to 10 around a bound of 0.3
            figures |= {_tidy(math.copysign(half * k, bound)) for k in steps}
    return figures


def passing(values: np.ndarray, at: list[float], exact: type = np.float64) -> dict[str, Any]:
    """Clips `below` and `above` each stop (an equal one is neither), all with a value `n`, and the `nulls`.

    `exact` is the type that the column is stored in: a bound is compared as the column can hold it.
    """
    present = np.sort(values[~np.isnan(values)])
    held = np.array([float(exact(stop)) for stop in at])
    return {
        "n": len(present),
        "nulls": len(values) - len(present),
        "below": np.searchsorted(present, held, "left").tolist(),
        "above": (len(present) - np.searchsorted(present, held, "right")).tolist(),
    }


def _range(
    present: np.ndarray, bounds: list[float], whole: bool = False, within: tuple[float, float] | None = None
) -> tuple[float, float, float]:
    """Least and greatest edge, and the width of a bin, all round; values far out above stay outside."""
    low, high = float(present.min()), float(present.max())
    most = float(np.quantile(present, _SHOWN, method="higher"))
    if high - low > max(
        _LONGER * (most - low), *(_BEYOND * (bound - low) for bound in bounds if bound >= most), 0
    ):
        high = most
    low, high = min([low, *bounds]), max([high, *bounds])
    if whole:
        high += 1.0  # a bin ends before its upper edge
    elif high <= low:
        high = low + max(abs(low), 1.0) * 0.1
    step = _round_above((high - low) / BINS)
    if whole:
        step = max(step, 1.0)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if within:
        low, high = min([max(low, within[0]), *bounds]), max([min(high, within[1]), *bounds])
    if high in bounds and high < float(present.max()):
        high += step  # what lies further out is drawn beyond the bound, not in the bin before it
    return _tidy(low), _tidy(high), step


def _edges(low: float, high: float, step: float, bounds: list[float]) -> np.ndarray:
    """Even bins, and each bound: an edge that is less than a quarter of a bin away gives way to it."""
    even = [_tidy(low + step * k) for k in range(math.ceil((high - low) / step - 1e-9) + 1)]
    inner = [
        edge for edge in even[1:] if edge < high and all(abs(edge - bound) >= step / 4 for bound in bounds)
    ]
    return np.array(sorted({low, *inner, *bounds, high}))


def _round_above(width: float) -> float:
    """The least of 1, 2, 2.5, 4, 5 times a power of ten that is not below `width`."""
    power = 10.0 ** math.floor(math.log10(width))
    return min(times * power for times in (1, 2, 2.5, 4, 5, 10) if times * power >= width * (1 - 1e-9))


def _rounded(value: float, step: float) -> float:
    """`value` to two digits, but not finer than a hundredth of `step` nor coarser than it, as powers of ten."""
    if value == 0:
        return 0.0
    coarse = math.floor(math.log10(step))
    step = 10.0 ** min(coarse, max(coarse - 2, math.floor(math.log10(abs(value))) - 1))
    return _tidy(round(value / step) * step)


def _tidy(value: float) -> float:
    return float(f"{value:.9g}")
