"""The rules behind decisions/ as the report draws them: bounds per score, and the command that would change one."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from curate.decide import DecideConfig
from pipelines.query import rows_of

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset

_LIMIT = re.compile(r"(\w+) \S+ ([<>]) (\S+)")


def rules_of(dataset: Dataset) -> DecideConfig | None:
    """The rules that made decisions/; None where there are no decisions, or they do not tell."""
    from pipelines.decide import rules_in_force, stored_rules

    return None if stored_rules(dataset) is None else rules_in_force(dataset)


def limits(rules: DecideConfig) -> dict[str, dict[str, Any]]:
    """Score -> `{limits: [{op, bound}], if_null}`: what is rejected, as `< bound` or `> bound`."""
    found = {}
    for name, kept in rules.ranges().items():
        bounds = [("<", kept.min), (">", kept.max)]
        told = [{"op": op, "bound": bound} for op, bound in bounds if bound is not None]
        found[name] = {"limits": told, "if_null": kept.if_null}
    return found


def limits_by_reasons(tables: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """The same for decisions that do not tell their rules: the bounds that rejected at least one clip."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows_of(tables, "SELECT DISTINCT unnest(reasons) AS reason FROM decisions"):
        reason = row["reason"] or ""
        name = reason.partition(" ")[0]
        score = found.setdefault(name, {"limits": [], "if_null": "keep"})
        if reason == f"{name} is null":
            score["if_null"] = "reject"
        elif match := _LIMIT.fullmatch(reason):
            limit = {"op": match[2], "bound": float(match[3])}
            if limit not in score["limits"]:
                score["limits"].append(limit)
    for score in found.values():
        score["limits"].sort(key=lambda limit: (limit["op"], limit["bound"]))
    return found


def command(uri: str, rules: DecideConfig, score: str) -> str:
    """`reelmill decide` with every rule that is not the default, but for the bounds of `score` that are set.

    One flag a line, for a shell. Those bounds are left to the page, which adds them as the sliders stand.
    """
    own = [f"--rules.{score}.min=", f"--rules.{score}.max="]
    flags = [
        flag
        for flag in _changed(asdict(rules), asdict(DecideConfig()), "--rules")
        if not flag.startswith(tuple(own)) or flag.endswith("=null")
    ]
    return " \\\n  ".join(["reelmill decide", f"--dataset {shlex.quote(uri)}", *map(shlex.quote, flags)])


def _changed(values: dict[str, Any], defaults: dict[str, Any], name: str) -> list[str]:
    flags: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flags += _changed(value, defaults[key], f"{name}.{key}")
        elif value != defaults[key]:
            text = "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
            flags.append(f"{name}.{key}={text}")
    return flags
