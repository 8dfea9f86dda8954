"""The caption to train on, out of those that several captioners wrote of one clip.

    choice = choose(candidates)            # of one clip and kind
    choice.caption_id, choice.reason       # null and the reason if none can be trusted
    choices = choose_all(rows, current=ids, fit=fit, vectors=vectors)      # (clip_id, kind) -> choice

A candidate's value is its fit (`recaption.trust.scores`), plus how far the other candidates agree with it, less a
penalty for each flag. Captioners err in different places, so what two of three say is more often right than any one
of them: on 600 clips of the procedural world, three captioners with 0.88, 0.89 and 0.88 of the attributes right
become one with 0.966, or 0.974 where attributes can be read too; with a least agreement of 0.4 that is 0.970 on 96
% of the clips, or 0.985 on 92 % (2026-11-21). Where fit is not known, nothing is thrown away but captions that
repeat across clips, for nothing speaks for those: among candidates with equal flags the current run goes first, then
the newest.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from recaption.cleaning.repeats import FLAG as REPEATED
from recaption.reading import PART, USABLE
from recaption.trust.scores import SUSPECT

LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One caption that might be chosen.

    Attributes:
        caption_id: of the captions table.
        fit: standard score of the clip for this caption (`trust.Scores.fit`); null if not known.
        vector: (D,) text embedding of unit length, without its kind's mean (`trust.without_mean`); null if not known.
        attributes: what it says of each attribute, read by whoever can read it (a structured caption, the world's
            oracle); null values are not stated.
        flags: of the captions table, and `truncated` if that is its status.
        current: whether the present configuration asks for it.
        created_at: when it was made.
    """

    caption_id: str
    fit: float | None = None
    vector: np.ndarray | None = None
    attributes: Mapping[str, str | None] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    current: bool = True
    created_at: datetime.datetime = LONG_AGO


@dataclass(frozen=True)
class ChoicePolicy:
    """What counts for how much. A right caption reaches a fit of about 3; full agreement is 1.

    Attributes:
        fit_weight: of the fit.
        agreement_weight: of the agreement of the other candidates, -1 to 1.
        penalties: subtracted per flag, by its name or by what stands before its colon.
        least_fit: none is chosen if the best one's fit less its penalties is below it, and a caption that repeats
            across clips only if its fit is known and reaches it; null chooses always.
        least_agreement: none is chosen if the others agree less with the best one; null chooses always. Where not
            every fit is known neither is applied to captions that do not repeat, nor ever the second to one
            candidate alone.
    """

    fit_weight: float = 1.0
    agreement_weight: float = 3.0
    penalties: Mapping[str, float] = field(
        default_factory=lambda: {"fact": 1.0, SUSPECT: 2.0, REPEATED: 1.0, "truncated": 0.5}
    )
    least_fit: float | None = 1.5
    least_agreement: float | None = 0.0


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        caption_id: the caption to train on; null if none can be trusted.
        reason: why none is chosen, with the figures of the best; null otherwise.
        values: value of each candidate, in their order; -inf of those that are out of the question.
    """

    caption_id: str | None
    reason: str | None
    values: tuple[float, ...]


def choose(candidates: Sequence[Candidate], policy: ChoicePolicy | None = None) -> Choice:
    """The best of the usable captions of one clip and kind; the order they come in decides nothing."""
    policy = policy or ChoicePolicy()
    if not candidates:
        return Choice(None, "no usable caption", ())
    # Candidates are compared by what is known of all of them.
    known = all(candidate.fit is not None for candidate in candidates)
    free = [i for i, candidate in enumerate(candidates) if known or not _merely_repeats(candidate, policy)]
    if not free:
        return Choice(
            None, "it repeats across clips, and no known fit speaks for it", (-math.inf,) * len(candidates)
        )
    if len(free) < len(candidates):  # the others have no say in the choice either
        choice = choose([candidates[i] for i in free], policy)
        value = dict(zip(free, choice.values, strict=True))
        return replace(choice, values=tuple(value.get(i, -math.inf) for i in range(len(candidates))))
    fits = [float(candidate.fit or 0.0) if known else 0.0 for candidate in candidates]
    agreed = agreement(candidates)
    # Rounded, so that candidates that are equal but for the order of a sum stay equal.
    values = tuple(
        round(
            policy.fit_weight * fit + policy.agreement_weight * agrees - penalty(candidate.flags, policy), 4
        )
        for fit, agrees, candidate in zip(fits, agreed, candidates, strict=True)
    )
    best = max(range(len(candidates)), key=lambda i: (values[i], *_preference(candidates[i])))
    why = _distrust(candidates, best, fits[best], agreed[best], policy) if known else None
    if why is not None:
        return Choice(None, why, values)
    return Choice(candidates[best].caption_id, None, values)


def choose_all(
    rows: Iterable[Mapping[str, Any]],
    *,
    current: Set[str] = frozenset(),
    fit: Mapping[str, float] | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
    attributes: Mapping[str, Mapping[str, str | None]] | None = None,
    policy: ChoicePolicy | None = None,
) -> dict[tuple[str, str], Choice]:
    """(clip_id, kind) -> choice among rows of the captions table.

    Args:
        rows: with caption_id, clip_id, kind, status, flags and created_at; those without a usable text and those
            of single windows, which are parts of a merged caption, are passed over.
        current: caption_ids that the present configuration asks for.
        fit, vectors, attributes: what is known, by caption_id (see Candidate); NaN is not known.
    """
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for row in rows:
        flags = tuple(row["flags"] or ())
        if row["status"] not in USABLE or PART in flags:
            continue
        name = row["caption_id"]
        found = (fit or {}).get(name, math.nan)
        vector = (vectors or {}).get(name)
        candidate = Candidate(
            name,
            fit=found if math.isfinite(found) else None,
            vector=vector if vector is not None and np.isfinite(vector).all() else None,
            attributes=(attributes or {}).get(name, {}),
            flags=(*flags, "truncated") if row["status"] == "truncated" else flags,
            current=name in current,
            created_at=row["created_at"],
        )
        groups.setdefault((row["clip_id"], row["kind"]), []).append(candidate)
    return {group: choose(candidates, policy) for group, candidates in groups.items()}


def _merely_repeats(candidate: Candidate, policy: ChoicePolicy) -> bool:
    """Whether it is one text on many clips, and not known to fit this one."""
    if REPEATED not in candidate.flags or policy.least_fit is None:
        return False
    return candidate.fit is None or candidate.fit - penalty(candidate.flags, policy) < policy.least_fit


def _distrust(
    candidates: Sequence[Candidate], best: int, fit: float, agrees: float, policy: ChoicePolicy
) -> str | None:
    """Why even the best candidate cannot be trusted, if so."""
    flags = sorted(flag for flag in set(candidates[best].flags) if penalty((flag,), policy))
    trusted = fit - penalty(flags, policy)
    if policy.least_fit is not None and trusted < policy.least_fit:
        told = f" less its penalties ({', '.join(flags)})" if flags else ""
        return f"fit{told} {trusted:.2f} < {policy.least_fit:g}"
    if len(candidates) > 1 and policy.least_agreement is not None and agrees < policy.least_agreement:
        return f"agreement of {len(candidates)} captions {agrees:.2f} < {policy.least_agreement:g}"
    return None


def agreement(candidates: Sequence[Candidate]) -> list[float]:
    """Per candidate, how far the others agree with it, -1 to 1; 0 for all where nothing can be compared.

    The mean over the others of the cosine of the two vectors and of the share of equal attributes (as 1 for all and
    -1 for none), whichever of the two can be had of all candidates.
    """
    n = len(candidates)
    ways: list[np.ndarray] = []
    if n > 1 and all(candidate.vector is not None for candidate in candidates):
        vectors = np.stack([np.asarray(candidate.vector, np.float64) for candidate in candidates])
        ways.append(vectors @ vectors.T)
    shares = np.full((n, n), np.nan)
    for i, j in combinations(range(n), 2):
        shares[i, j] = shares[j, i] = _alike(candidates[i].attributes, candidates[j].attributes)
    if n > 1 and not np.isnan(shares[~np.eye(n, dtype=bool)]).any():
        ways.append(2 * shares - 1)
    if not ways:
        return [0.0] * n
    pairs = np.mean(ways, axis=0)
    np.fill_diagonal(pairs, 0)
    return [float(value) for value in pairs.sum(1) / (n - 1)]


def penalty(flags: Sequence[str], policy: ChoicePolicy) -> float:
    """The sum over the flags; `fact:camera` counts as itself if that is listed, else as `fact`."""
    return sum(
        policy.penalties.get(flag, policy.penalties.get(flag.split(":")[0], 0.0)) for flag in set(flags)
    )


def _alike(one: Mapping[str, str | None], two: Mapping[str, str | None]) -> float:
    """Share of equal values among the attributes that both state; NaN if there is none."""
    both = [name for name, value in one.items() if value is not None and two.get(name) is not None]
    return sum(one[name] == two[name] for name in both) / len(both) if both else float("nan")


def _preference(candidate: Candidate) -> tuple[bool, datetime.datetime, str]:
    """Among equals: what is asked for now, then the newest."""
    return candidate.current, candidate.created_at, candidate.caption_id
