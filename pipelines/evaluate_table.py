"""The tables of `reelmill evaluate`, in Markdown.

text = tables(rows, guess)                   # rows of results.json, what a blind guess gets
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.demo.scene import ATTRIBUTES
from pipelines.evaluate_models import Setting
from pipelines.evaluate_shares import ALL

Row = Mapping[str, Any]
GUESS, ANCHOR = "a blind guess", "anchor: "
OTHERS = ("flicker", "coca_frechet")


def tables(rows: Sequence[Row], guess: Mapping[str, float | None]) -> str:
    """What the captioner and the flow found, and what the pixels show; and with what it was made."""
    names, n = (*ATTRIBUTES, ALL), rows[0]["prompts"]
    head = ["model", "parameters", "tokens", *names, "direction by flow", "flicker", "CoCa Fréchet"]
    body = [
        [
            *_who(row, rows),
            *(share_told(row["captioner"][name]) for name in names),
            share_told(row["flow"]["direction"]),
            *("–" if row[name] is None else f"{row[name]:.3g}" for name in OTHERS),
        ]
        for row in rows
    ]
    blind = [ANCHOR + GUESS, "", ""]
    guessed = [share_told({"accuracy": guess[name], "error": None}) for name in (*names, "direction")]
    pixels = [[*_who(row, rows), *(share_told(row["pixels"][name]) for name in names)] for row in rows]
    return "\n".join(
        [
            f"{n} prompts for held-out combinations. Share of the attributes that the captioner finds again, ± one",
            f"standard error (0 where all or none are right: then the truth may be {min(1, 3 / n):.2g} away),",
            "direction by optical flow, flicker in levels of 255, Fréchet distance of CoCa's features from the true",
            "clips:",
            "",
            *markdown(head, [*body, [*blind, *guessed, "–", "–"]]),
            "",
            "The same attributes, read from the pixels without any model:",
            "",
            *markdown(["model", "parameters", "tokens", *names], [*pixels, [*blind, *guessed[:-1]]]),
            "",
            *dict.fromkeys(made(row) for row in rows if row["checkpoint"] is not None),
            "",
        ]
    )


def made(row: Row) -> str:
    """When, how and on what the videos of a model were drawn, in a line."""
    sampler, machine = row["sampler"], row["machine"]
    how = f"{sampler['solver']}, {sampler['steps']} steps, guidance {sampler['guidance']:g}"
    return f"Drawn {row['date']} with {how}, on {machine['name']}, {machine['cores']} cores."


def share_told(share: Row) -> str:
    """`0.942 ± 0.010`; without the error where there is none, a dash where nothing was asked."""
    if share["accuracy"] is None:
        return "–"
    error = "" if share["error"] is None else f" ± {share['error']:.3f}"
    return f"{share['accuracy']:.3f}{error}"


def label(row: Row, rows: Sequence[Row]) -> str:
    """The name of a row, with size, length, frame rate and VAE if `rows` differ in them."""
    if len({str(one["setting"]) for one in rows}) == 1:
        return str(row["name"])
    return f"{row['name']} ({Setting(**row['setting'])})"


def markdown(head: list[str], body: list[list[str]]) -> list[str]:
    """The lines of a table."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return [f"| {' | '.join(row)} |" for row in rows]


def _who(row: Row, rows: Sequence[Row]) -> list[str]:
    name = label(row, rows) if row["checkpoint"] is not None else ANCHOR + label(row, rows)
    return [name, *("" if row[key] is None else f"{row[key]:,}" for key in ("parameters", "tokens"))]
