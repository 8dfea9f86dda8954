"""A score in bins: bars to draw, and stops at which a slider knows the exact count.

The page holds no score of a clip, only these counts, so it is as small for a million clips as for a thousand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BINS = 36  # at most; fewer where a round width asks for it
_QUANTILES, _STEPS = 90, 50  # stops: as many clips apart as possible, and evenly over the range besides


def bars(values: np.ndarray, kept: np.ndarray, bounds: list[float], *, whole: bool = False) -> dict[str, Any]:
    """Bins of kept and of rejected clips; every bound is an edge, so no bar lies on both sides of it.

    `values` (n,) float64 with NaN for null, `kept` (n,) bool. When a few values lie far out, they fall into the last
    bin and `over` counts them. `whole`: the values are counts, so a bin is no narrower than one.
    """
    there = np.isfinite(values)
    present = values[there]
    facts: dict[str, Any] = {"n": len(present), "nulls": len(values) - len(present)}
    if not len(present):
        return facts | {"edges": [], "kept": [], "rejected": [], "over": 0}
    low, high, step = _range(present, bounds, whole)
    edges = _edges(low, high, step, bounds)
    shown = np.minimum(values, high)
    return facts | {
        "edges": [_tidy(edge) for edge in edges],
        "kept": np.histogram(shown[there & kept], edges)[0].tolist(),
        "rejected": np.histogram(shown[there & ~kept], edges)[0].tolist(),
        "over": int((present > high).sum()),
        "max": float(present.max()),
        "median": float(np.median(present)),
    }


def stops(values: np.ndarray, bounds: list[float]) -> list[float]:
    """Round figures at which clips differ, and the bounds: where a slider may stand. Empty without values."""
    present = values[np.isfinite(values)]
    if not len(present):
        return []
    low, high, width = _range(present, bounds)
    inside = present[present <= high]
    even = np.linspace(0, 1, _QUANTILES)
    wanted = [*np.quantile(inside, even, method="nearest"), *np.linspace(low, high, _STEPS)]
    rounded = {_rounded(value, width / 4) for value in wanted}
    return sorted({value for value in rounded if low < value < high} | {low, high, *bounds})


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


def _range(present: np.ndarray, bounds: list[float], whole: bool = False) -> tuple[float, float, float]:
    """Least and greatest edge, and the width of a bin, all round; values far out above stay outside."""
    low, high = float(present.min()), float(present.max())
    most = float(np.quantile(present, 0.99, method="higher"))
    if high - low > 1.5 * (most - low):
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
    return _tidy(low), _tidy(high), step


def _edges(low: float, high: float, step: float, bounds: list[float]) -> np.ndarray:
    """Even bins, but for the nearest inner edge of each bound, which moves onto it."""
    edges = np.array([_tidy(low + step * k) for k in range(round((high - low) / step) + 1)])
    taken: set[int] = set()
    for bound in bounds:
        inner = np.abs(edges[1:-1] - bound)
        place = 1 + int(inner.argmin()) if len(inner) else 0
        if bound in edges or place in taken or place == 0:
            edges = np.unique(np.append(edges, bound))
        else:
            edges[place] = bound
            taken.add(place)
    return edges


def _round_above(width: float) -> float:
    """The least of 1, 2, 2.5, 4, 5 times a power of ten that is not below `width`."""
    power = 10.0 ** math.floor(math.log10(width))
    return min(times * power for times in (1, 2, 2.5, 4, 5, 10) if times * power >= width * (1 - 1e-9))


def _rounded(value: float, step: float) -> float:
    """`value` to two digits, or to `step` where that is finer."""
    if value == 0:
        return 0.0
    step = min(step, 10.0 ** (math.floor(math.log10(abs(value))) - 1))
    return _tidy(round(value / step) * step)


def _tidy(value: float) -> float:
    return float(f"{value:.9g}")
