"""Ranges that settings of local models must keep, told by the end of the flag's name.

at_least_one("vllm", frames=8, max_tokens=0)         # BadInput: vllm.max_tokens=0 must be at least 1.
"""

from __future__ import annotations

import math

from curate.errors import BadInput


def at_least_one(backend: str, **values: int) -> None:
    """Raise BadInput for a count below 1."""
    for name, value in values.items():
        if value < 1:
            raise BadInput(f"{backend}.{name}={value} must be at least 1.")


def not_negative(backend: str, **values: float) -> None:
    """Raise BadInput for a number that is negative, infinite or none."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise BadInput(f"{backend}.{name}={value} must be a number from 0 on.")
