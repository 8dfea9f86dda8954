"""The benchmark of the tables at a size of no meaning: it runs, and both layouts answer alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("bench") / "out.json"
    words = ["--clips", "50", "--repeats", "1", "--json", str(out)]
    # It compares the answers of the layouts itself, and ends with an error where they differ.
    subprocess.run(
        [sys.executable, "-m", "tests.bench.tables", *words], check=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(out.read_text())


def test_rows_are_those_asked_for(found: dict) -> None:
    assert found["rows"] == {"captions": 200, "clips": 50, "embedding": 768}


def test_ratios_are_of_ours_to_plain(found: dict) -> None:
    for rows in (found["size_mb"], found["seconds"]):
        assert all(row["ratio"] == pytest.approx(row["ours"] / row["plain"]) for row in rows.values())
    assert all(
        row["ratio"] == pytest.approx(row["apart"] / row["together"]) for row in found["apart"].values()
    )
    assert set(found["size_mb"]) == {"captions", "clips"}
    assert len(found["seconds"]) == 13
    assert len(found["apart"]) == 5
    assert all(set(row["cpu_s"]) == {"ours", "plain"} for row in found["seconds"].values())
    assert found["load_average"] >= 0


def test_layouts_that_answer_differently_are_no_comparison() -> None:
    from tests.bench.tables import timed

    def name_of(folder: Path) -> str:
        return folder.name

    with pytest.raises(AssertionError, match="which: "):
        timed({"which": [(name_of, Path("a")), (name_of, Path("b"))]}, 1)
