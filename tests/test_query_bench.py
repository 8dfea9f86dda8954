"""The benchmark of `reelmill query` at a size of no meaning: it runs, and its rows are what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from curate.dataset import Dataset
from pipelines.query_examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "tests.bench.query", "--captions=602", "--repeats=2",
        f"--dataset={tmp_path / 'dataset'}", f"--json={tmp_path / 'out.json'}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "out.json").read_text())
    kept = 151  # four captions of each; the last has two
    assert found["rows"] == {"sources": 12, "clips": 240, "decisions": 240, "captions": 602, "shards": kept}
    assert found["repeats"] == 2
    assert [row["title"] for row in found["queries"]] == [example.title for example in EXAMPLES]
    for row in found["queries"]:
        assert row["rows"] > 0 or row["title"] == "Failed files and their errors"
        assert 0 < row["median_s"] <= row["slowest_s"]
    assert "602 captions of 240 clips" in done.stdout
    dataset = Dataset(tmp_path / "dataset")
    decisions, captions = dataset.read("decisions"), dataset.read("captions")
    assert sum(decisions["keep"].to_pylist()) == kept
    assert len(set(captions["clip_id"].to_pylist())) == kept
    texts = [len(text.split(" ")) for text in captions["text_raw"].to_pylist()]
    assert 30 < sum(texts) / len(texts) < 43  # 36.75 in the mean of the four kinds
