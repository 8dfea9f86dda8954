"""What the rules say of one clip, and what other rules would change.

print(story(dataset_clips, decisions, "3f2a", rules))
print(changes(before, after))
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from curate.decide import DecideConfig, reason_name
from curate.errors import BadInput

_EXAMPLES = 5


def story(
    clips: pa.Table, decisions: pa.Table, prefix: str, uris: dict[str, str], rules: DecideConfig
) -> str:
    """One clip, by its id or a prefix that only it has: each filter's figure, limits and verdict.

    `uris`: source_id -> where the file was read. Raises BadInput if no clip, or several, begin so.
    """
    rows = pc.indices_nonzero(pc.starts_with(clips["clip_id"], prefix)).to_pylist()
    if len(rows) != 1:
        told = "no clip has" if not rows else f"{len(rows)} clips have"
        raise BadInput(
            f"{told} an id that begins with {prefix!r}. Give more of it, as `clip_id` in clips/ has it."
        )
    clip = clips.slice(rows[0], 1).to_pylist()[0]
    (decision,) = decisions.filter(pc.equal(decisions["clip_id"], clip["clip_id"])).to_pylist()
    clip["duration_s"] = clip["end_s"] - clip["start_s"]
    errors = dict(clip["score_errors"] or ())
    lines = [
        f"clip   {clip['clip_id']}",
        f"from   {uris.get(clip['source_id'], clip['source_id'])}, "
        f"{clip['start_s']:.3f} to {clip['end_s']:.3f} s, {clip['width']}x{clip['height']}",
    ]
    for name, limits in rules.ranges().items():
        value = clip[name]
        least = [] if limits.min is None else [f">= {limits.min:g}"]
        most = [] if limits.max is None else [f"<= {limits.max:g}"]
        bounds = least + most
        failed = any(reason_name(reason) == name for reason in decision["reasons"])
        rejects = "would reject" if decision["keep"] else "rejects"
        verdict = rejects if failed else "passes" if bounds else "no limit"
        if value is None and bounds:
            verdict = f"null -> {limits.if_null}"
        figure = f"{value:.4g}" if value is not None else f"null ({errors.get(name, 'no reason recorded')})"
        lines.append(f"{name:<14} {figure}  {' and '.join(bounds)}  {verdict}".rstrip())
    if decision["cluster"] is not None:
        lines.append(f"cluster {decision['cluster']}, weight {decision['weight']:.3f}")
    if decision["override"] is not None:
        lines.append(f"by hand        {decision['override']}")
    if decision["keep"]:
        lines += [f"in spite of    {reason}" for reason in decision["reasons"] if "copy of" in reason]
    lines.append("kept" if decision["keep"] else "rejected: " + "; ".join(decision["reasons"]))
    copies = decisions.filter(pc.equal(decisions["duplicate_of"], clip["clip_id"]))["clip_id"].to_pylist()
    if copies:
        lines.append("stands for its copies " + ", ".join(copies))
    return "\n".join(lines)


def changes(before: pa.Table, after: pa.Table) -> str:
    """How the funnel differs between two decisions tables over the same clips in the same order."""
    was, now = (pc.sum(table["keep"]).as_py() or 0 for table in (before, after))
    more = pc.sum(pc.and_not(after["keep"], before["keep"])).as_py() or 0
    lines = [
        f"kept   {was} -> {now} ({now - was:+d}) of {len(before)}, {more} more in, {was - now + more} more out"
    ]
    counts = [
        Counter(reason_name(r) for r in table["reason"].to_pylist() if r is not None)
        for table in (before, after)
    ]
    lines += [
        f"{name:<14} {counts[0][name]} -> {counts[1][name]}"
        for name in sorted(set(counts[0]) | set(counts[1]))
        if counts[0][name] != counts[1][name]
    ]
    moved = pc.indices_nonzero(pc.not_equal(before["keep"], after["keep"])).to_pylist()
    for row in moved[:_EXAMPLES]:
        why = after["reason"][row].as_py()
        told = f"rejected: {why}" if why else f"kept (was: {before['reason'][row].as_py()})"
        lines.append(f"e.g. {after['clip_id'][row].as_py()} {told}")
    return "\n".join(lines)
