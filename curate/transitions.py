"""From probabilities to transitions: which frames belong to a cut, a dissolve or a fade, and which are a flash.

Everything here speaks in indices of the pictures that the network saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curate.proposals import difference

SURE = 0.5  # probability of a transition's middle from which there is one
_INSIDE = 0.15  # probability of lying in a transition from which a picture belongs to it
_GAP = 2  # pictures between two parts of one transition
_DARK, _BRIGHT = 16.0, 240.0  # mean of RGB at which a fade is at its end
_FADE_RISE = 20.0  # how much brighter (darker) both sides of a fade must be
_JUMP = 0.5  # share of the whole change that one step makes up in a hard cut
_CUT_LENGTH = 6
_SAME = 0.3  # share of a flash's difference that may remain between the pictures around it
_SAME_MOST = 30.0


@dataclass(frozen=True)
class Transition:
    """Between two shots.

    Attributes:
        last: index of the last picture of the shot before.
        next: index of the first picture of the shot after; last + 1 at a cut.
        kind: cut, dissolve or fade.
    """

    last: int
    next: int
    kind: str


def runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    yield from zip((int(i) for i in edges[::2]), (int(i) - 1 for i in edges[1::2]), strict=True)


def closed(mask: np.ndarray, gap: int) -> np.ndarray:
    """`mask` with gaps of at most `gap` false values between true ones filled."""
    filled = mask.copy()
    ends = list(runs(mask))
    for (_, last), (first, _) in pairwise(ends):
        if first - last - 1 <= gap:
            filled[last:first] = True
    return filled


def spans(inside: np.ndarray, light: np.ndarray, most_dark: int) -> list[tuple[int, int]]:
    """First and last index of what may be one transition each.

    `inside`: (T,) probabilities; `light`: (T,) mean of RGB. Parts with next to nothing between them, or with at
    most `most_dark` black (or white) pictures between them, are one.
    """
    joined: list[tuple[int, int]] = []
    for first, last in runs(inside > _INSIDE):
        if joined:
            gap = light[joined[-1][1] + 1 : first]
            blank = bool((gap < _DARK).all() or (gap > _BRIGHT).all()) and len(gap) <= most_dark
            if len(gap) <= _GAP or blank:
                joined[-1] = (joined[-1][0], last)
                continue
        joined.append((first, last))
    return joined


def judge(
    first: int,
    last: int,
    pictures: np.ndarray,
    steps: np.ndarray,
    middle: np.ndarray,
    light: np.ndarray,
    margin: int,
) -> Transition | None:
    """What the span [first, last] is, or None if nothing.

    `pictures` (T, 27, 48, 3), `steps` (T,) difference to the picture before, `middle` (T,), `light` (T,).
    `margin`: pictures that a gradual transition may reach further than the network says.
    """
    before, after = max(0, first - 1), min(len(pictures) - 1, last + 2)
    part = light[first : last + 1]
    sides = light[max(0, first - 2)], light[min(len(light) - 1, last + 2)]
    dark = part.min() < _DARK and min(sides) > part.min() + _FADE_RISE
    white = part.max() > _BRIGHT and max(sides) < part.max() - _FADE_RISE
    if middle[first : last + 1].max() < SURE and not dark and not white:
        return None
    jump = first + int(np.argmax(steps[first : last + 2]))
    whole = difference(pictures[before], pictures[after])
    if last - first < _CUT_LENGTH and steps[jump] >= _JUMP * whole and jump > 0:
        return Transition(jump - 1, jump, "cut")
    kind = "fade" if dark or white else "dissolve"
    return Transition(max(0, first - 1 - margin), min(len(pictures) - 1, last + 1 + margin), kind)


def is_flash(one: Transition, other: Transition, pictures: np.ndarray) -> bool:
    """Whether what lies from `one` to `other` (they may be the same) only interrupts an unchanged picture."""
    before, after = pictures[one.last], pictures[other.next]
    between = pictures[one.last + 1 : other.next]
    if not len(between):
        return False
    strongest = max(min(difference(p, before), difference(p, after)) for p in between)
    return difference(before, after) < min(_SAME * strongest, _SAME_MOST)


def without_flashes(found: list[Transition], pictures: np.ndarray, flash: int) -> list[Transition]:
    """Transitions less those after which the picture before them comes back within `flash` pictures."""
    kept: list[Transition] = []
    for transition in found:
        if transition.next - transition.last <= flash + 1 and is_flash(transition, transition, pictures):
            continue
        if transition.kind == "cut" and _edge_of_flash(transition, pictures, flash):
            continue
        if kept and transition.next - kept[-1].last <= flash + 1 and is_flash(kept[-1], transition, pictures):
            kept.pop()
            continue
        kept.append(transition)
    return kept


def _edge_of_flash(cut: Transition, pictures: np.ndarray, flash: int) -> bool:
    """Whether the picture before the cut comes back soon after it, or the one after it was there shortly before.

    The network often answers only one of a flash's two edges.
    """
    for away in range(1, flash + 1):
        begun, back = cut.last - away, cut.next + away
        if begun >= 0 and is_flash(Transition(begun, cut.next, "cut"), cut, pictures):
            return True
        if back < len(pictures) and is_flash(cut, Transition(cut.last, back, "cut"), pictures):
            return True
    return False
