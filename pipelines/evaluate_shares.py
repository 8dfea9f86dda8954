"""How many of the attributes that prompts name are seen in the videos, with standard errors.

    found = figures(measured)                    # of one model; what is in a row of results.json
    found["captioner"]["colour"]                 # {"asked": 500, "right": 471, "none": 3, "accuracy": 0.942, ...}

An error tells what other prompts would change, not what another training would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.demo.prompts import VALUES, Prompt, counted
from pipelines.demo.scene import ATTRIBUTES
from pipelines.evaluate_judge import Seen

if TYPE_CHECKING:
    from pipelines.evaluate_world import Measured

ALL = "all"  # every attribute of every prompt


def figures(measured: Measured) -> dict[str, Any]:
    """Counts and shares by judge and attribute, mean flicker, and distance."""
    asked, seen = [prompt.asked for prompt in measured.prompts], measured.seen
    flickers = [one.flicker for one in seen if one.flicker is not None]
    return {
        "captioner": shares(asked, [one.captioner for one in seen]),
        "pixels": shares(asked, [one.pixels for one in seen]),
        "flow": {"direction": shares(asked, [by_flow(one) for one in seen])["direction"]},
        "flicker": sum(flickers) / len(flickers) if flickers else None,
        "coca_frechet": measured.distance,
    }


def by_flow(seen: Seen) -> dict[str, str | None]:
    """The one attribute that optical flow can tell, and null for the others."""
    return {**dict.fromkeys(ATTRIBUTES), "direction": seen.flow}


def shares(
    asked: Sequence[Mapping[str, str]], seen: Sequence[Mapping[str, str | None]]
) -> dict[str, dict[str, Any]]:
    """For each attribute and for `all` of them the counts of `counted`, the accuracy and its standard error.

    The accuracy is null if no prompt names the attribute.
    """
    counts = counted(asked, seen)
    total = {key: sum(count[key] for count in counts.values()) for key in ("asked", "right", "none")}
    found: dict[str, dict[str, Any]] = {}
    for name, count in (counts | {ALL: total}).items():
        videos = [
            (sum(there[key] == wanted[key] for key in names), len(names))
            for wanted, there in zip(asked, seen, strict=True)
            if (names := [key for key in wanted if name in (key, ALL)])
        ]
        accuracy = count["right"] / count["asked"] if count["asked"] else None
        found[name] = count | {"accuracy": accuracy, "error": standard_error(videos)}
    return found


def standard_error(videos: Sequence[tuple[int, int]]) -> float | None:
    """Of the share p of right ones among those asked for, from (right, asked) of each video; null for fewer than two.

    sqrt(sum (right - p asked)²) / sum asked, the error of a ratio (Cochran, Sampling Techniques, 1977, 6.3). Of one
    attribute it is sqrt(p (1 - p) / n). The attributes of one video are right or wrong together, so that five of them
    tell less than those of five videos would. Where all or none are right it is 0 and tells nothing: then the true
    share may be as much as 3 / n away (the rule of three).
    """
    total = sum(asked for _, asked in videos)
    if len(videos) < 2:
        return None
    share = sum(right for right, _ in videos) / total
    return float(sum((right - share * asked) ** 2 for right, asked in videos) ** 0.5 / total)


def blind_guess(prompts: Sequence[Prompt]) -> dict[str, float | None]:
    """Accuracy of drawing every attribute that the prompts name at random."""
    asked = [name for prompt in prompts for name in prompt.asked]
    by_all = sum(1 / len(VALUES[name]) for name in asked) / len(asked) if asked else None
    return {**{name: 1 / len(values) for name, values in VALUES.items()}, ALL: by_all}
