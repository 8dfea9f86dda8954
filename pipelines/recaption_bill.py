"""What captions take in tokens, time and money: of a whole dataset and of what is missing, from those made so far.

    estimates = estimate(rows, total={"short": 1000}, missing={"short": 980}, at_once=16, prices=(0.5, 1.5))
    print("\\n".join(tell(estimates)))

Money is tokens times the prices of the configuration. What the rows themselves say they cost is not asked: an answer
out of the cache cost nothing the second time, and rows of earlier days were paid at other prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recaption.reading import USABLE

#: US dollars per million prompt tokens, and per million generated ones.
Prices = tuple[float, float]


@dataclass(frozen=True)
class KindEstimate:
    """What the captions of one kind take, by the mean of those that were made.

    Attributes:
        kind: of the captions.
        total: captions of the whole dataset.
        missing: those of them that are still to make.
        seen: captions that the means rest on.
        usable: share of these that have a text, 0 to 1; null where none was seen.
        tokens_in: prompt tokens of one caption; null if the backend does not tell.
        tokens_out: generated tokens of one, likewise.
        seconds: time of the backend for one, at the given number of requests at once; null if all that was seen came
            out of the cache.
        cost_usd: US dollars for one; null without prices or without tokens.
    """

    kind: str
    total: int
    missing: int
    seen: int
    usable: float | None
    tokens_in: float | None
    tokens_out: float | None
    seconds: float | None
    cost_usd: float | None


def estimate(
    rows: list[dict[str, Any]],
    total: Mapping[str, int],
    missing: Mapping[str, int],
    at_once: int,
    prices: Prices | None = None,
) -> list[KindEstimate]:
    """One estimate per kind of `total` (kind -> captions), from rows of the captions table made by the same plans."""
    found = []
    for kind, count in total.items():
        seen = [row for row in rows if row["kind"] == kind]
        usable = [row for row in seen if row["status"] in USABLE]
        tokens_in, tokens_out = _mean(seen, "tokens_in"), _mean(seen, "tokens_out")
        # A request that failed at once, or was never sent, says nothing about how long an answer takes.
        latency_ms = _mean([row for row in seen if row["status"] != "error"], "latency_ms")
        cost_usd = None
        if prices is not None and tokens_in is not None and tokens_out is not None:
            cost_usd = (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
        found.append(
            KindEstimate(
                kind,
                count,
                missing.get(kind, 0),
                len(seen),
                len(usable) / len(seen) if seen else None,
                tokens_in,
                tokens_out,
                None if latency_ms is None else latency_ms / 1000 / at_once,
                cost_usd,
            )
        )
    return found


def tell(estimates: list[KindEstimate]) -> list[str]:
    """The estimates as lines of text: the whole dataset, what is left, and each kind; what is not known is left out."""
    lines = []
    for name, count in (("whole dataset", _total), ("left to make", _missing)):
        lines.append(f"{name:14}{sum(map(count, estimates)):>10,} captions: {_figures(estimates, count)}")
    for one in estimates:
        of = f"from {one.seen} seen, {one.usable:.0%} usable" if one.usable is not None else "none seen yet"
        lines.append(f"  {one.kind:12}{one.total:>10,} in all:   {_figures([one], _total)} ({of})")
        lines.append(f"  {'':12}{one.missing:>10,} left:     {_figures([one], _missing)}")
    return lines


def _total(one: KindEstimate) -> int:
    return one.total


def _missing(one: KindEstimate) -> int:
    return one.missing


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    """Of those that tell it."""
    known = [row[name] for row in rows if row[name] is not None]
    return fmean(known) if known else None


def _figures(estimates: list[KindEstimate], count: Callable[[KindEstimate], int]) -> str:
    counted = [one for one in estimates if count(one)]
    told = []
    for name, shown in (
        ("tokens_in", "{:,.0f} tokens in"),
        ("tokens_out", "{:,.0f} tokens out"),
        ("seconds", ""),
        ("cost_usd", "US$ {:,.2f}"),
    ):
        each = [getattr(one, name) for one in counted]
        if each and all(value is not None for value in each):
            total = sum(count(one) * value for one, value in zip(counted, each, strict=True))
            told.append(_duration(total) if name == "seconds" else shown.format(total))
    return ", ".join(told) or ("the backend tells no figures" if counted else "nothing")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} s"
