"""What was measured of the speed of training, as one reads it: all rows, then the main figures beside their goals."""

from __future__ import annotations

from tests.bench.record import print_table
from tests.bench.train_sizes import Scale
from tests.bench.train_steps import Row

FIELDS = (
    "part", "model", "case", "compile", "recompute", "attention", "tokens", "step_s", "tokens_per_s", "mfu",
    "memory_gib",
)  # fmt: skip

#: Ratios of useful tokens per second: what they are called, part, case, the case it is divided by, goal.
RATIOS = (
    ("useful tokens/s, {} / {}", "lengths", "packed", "padded", ">= 1.8"),
    ("useful tokens/s, {} / {}", "lengths", "packed", "bucketed", None),
    ("tokens/s, compile {} / {}", "compile", "on", "off", None),
    ("tokens/s, recompute {} / {}", "recompute", "selective", "none", None),
    ("tokens/s, recompute {} / {}", "recompute", "full", "none", None),
)


def print_figures(rows: list[Row], scale: Scale, seconds: float) -> None:
    """Both tables; `seconds` is how long the run took."""
    print_table("All cases", FIELDS, [[row.get(name) for name in FIELDS] for row in rows])
    print_table(f"The main figures, {seconds:.0f} s", ["figure", "found", "goal"], summary(rows, scale))


def summary(rows: list[Row], scale: Scale) -> list[list[object]]:
    """The main figures (what, found, goal), and what is not among them, and why."""
    measured = [row for row in rows if not row["reason"]]

    def of(part: str) -> dict[str, Row]:
        return {row["case"]: row for row in measured if row["part"] == part}

    told: list[list[object]] = []
    for row in measured:
        if row["part"] == "mfu":
            name = f"{row['model']}, {row['case']} tokens a clip, {row['attention']}"
            goal = ">= 0.50" if row["attention"] == "fa3" else ">= 0.45"
            if row["mfu"] is None:
                told.append([f"tokens/s, {name}", row["tokens_per_s"], None])
            else:
                told.append([f"MFU, {name}", row["mfu"], goal if row["case"] == "8k" else None])
    for text, part, one, other, aim in RATIOS:
        found = of(part)
        if one in found and other in found:
            over = found[one]["tokens_per_s"] / found[other]["tokens_per_s"]
            told.append([text.format(one, other), over, aim])
    for case, row in of("wan").items():
        told.append([f"step time, diffusers' Wan / ours, {case}", row["theirs_by_ours"], None])
    for case in (scale.usual, "many lengths"):
        rates = {
            row["attention"]: row["tokens_per_s"]
            for name, row in of("attention").items()
            if name.endswith(f", {case}")
        }
        if rates:
            told.append([f"fastest attention, {case}", max(rates, key=lambda name: rates[name]), None])
    return told + caveats(rows)


def caveats(rows: list[Row]) -> list[list[object]]:
    """What spoils a figure, and which cases have none, one line for each reason."""
    told: list[list[object]] = []
    late = [row["case"] for row in rows if row.get("compiled_while_timed")]
    if late:
        told.append(["compiled while the clock ran, so slower than it is", ", ".join(late), None])
    short = [row["case"] for row in rows if row["part"] == "lengths" and row.get("batches_left_out")]
    if short:
        told.append(["ended by the time, so of fewer clips than the others", ", ".join(short), None])
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(f"{row['part']} {row['model']} {row['case']}")
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        told.append([f"not measured: {names[0]}{more}", reason[:60], None])
    return told
