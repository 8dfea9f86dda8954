"""Peak memory does not grow with the length of a source, nor does Ray's object store with their number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def bench(folder: Path, *words: str) -> dict:
    out = folder / "memory.json"
    subprocess.run(
        [sys.executable, "-m", "tests.bench.memory", "--json", str(out), *words],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return json.loads(out.read_text())


def test_an_hour_takes_the_memory_of_a_minute(tmp_path: Path) -> None:
    found = bench(tmp_path, "--minutes", "1", "60", "--fps", "2", "--sources", "0")["by_length"]
    for short, long in (found[:2], found[2:]):
        assert (short["minutes"], long["minutes"]) == (1, 60)
        assert (short["frames"], long["frames"]) == (120, 7200)
        assert long["clips"] >= 59
        assert long["peak_mb"] <= 1.15 * short["peak_mb"] + 20
    assert found[1]["clips"] >= 350


@pytest.mark.slow
def test_object_store_does_not_spill(tmp_path: Path) -> None:
    """More than the store holds goes through it."""
    found = bench(tmp_path, "--minutes", "--sources", "90", "--store-gib", "0.08")["ray"]
    assert found["passed_through_bytes"] > found["store_gib"] * (1 << 30)
    assert found["spilled_bytes"] == 0
