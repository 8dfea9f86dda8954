"""Markdown of a dataset card: text that stays text, code, tables, and numbers with their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def escaped(text: Any) -> str:
    """`text` as Markdown that shows it as it is, on one line, in a table or out of one."""
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_\[\]|~$!#])", r"\\\1", plain)
    # A colon of an address as an entity, so that no address in a caption becomes a link.
    return re.sub(r"(?i)(https?|ftp|mailto|www)([:.])", lambda m: f"{m[1]}&#{ord(m[2])};", plain)


class Code(str):
    """Markdown that shows its text as code; what could end it, or a table's cell, is left out."""

    def __new__(cls, text: Any) -> Code:
        return super().__new__(cls, "`" + re.sub(r"[`|\s]+", " ", str(text)) + "`")


def counted(count: int, thing: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def were(count: int) -> str:
    return "was" if count == 1 else "were"


def are(count: int) -> str:
    return "is" if count == 1 else "are"


def cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; cells that are no Code are escaped, null is a dash."""
    cells = [list(header), ["---"] * len(header), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Code):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else escaped(value)
