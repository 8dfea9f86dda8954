"""How far `curate` is, from the names of its committed units: none is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from curate.units import UnitName

_RANK = {"ok": 0, "partial": 1, "failed": 2, "retry": 3}


def by_status(dataset: Dataset, stamps: Mapping[str, str], but: Set[str] = frozenset()) -> Counter[str]:
    """Files by their status of those that have a result of their stamp, leaving out the units in `but`."""
    from curate.units import FOLDER, UnitName

    if len(but) == len(stamps):
        return Counter()
    names = map(UnitName.parse, dataset.files(FOLDER, ".parquet"))
    return statuses(name for name in names if name.unit not in but and stamps.get(name.unit) == name.stamp)


def since(units: Mapping[str, datetime], began_at: datetime | None) -> Counter[str]:
    """Files by their status of the units that were written since a job began; null counts all."""
    from curate.units import UnitName

    names = (name for name, written in units.items() if began_at is None or written >= began_at)
    return statuses(map(UnitName.parse, names))


def statuses(names: Iterable[UnitName]) -> Counter[str]:
    """Files by the best of their results: ok, partial or failed."""
    best: dict[str, str] = {}
    for name in names:
        if name.unit not in best or _RANK[name.status] < _RANK[best[name.unit]]:
            best[name.unit] = name.status
    return Counter("failed" if status == "retry" else status for status in best.values())
