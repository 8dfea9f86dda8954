"""`reelmill decide` on a dataset: the rules are kept, a clip is explained, other rules are tried without writing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.decide import DecideConfig
from curate.errors import BadInput
from curate.overrides import put
from curate.tables import CLIPS, SOURCES
from pipelines.decide import main, rules_in_force, stored_rules


@pytest.fixture
def folder(tmp_path: Path) -> str:
    dataset = Dataset(str(tmp_path))
    source = {"source_id": "s", "uri": "film.mp4", "status": "ok", "size_bytes": 10, "duration_s": 6.0}
    dataset.write("sources", pa.Table.from_pylist([source], schema=SOURCES))
    spans = [("aa1", 0.0, 3.0, 0.35), ("ab2", 3.0, 6.0, None)]
    clips = [
        {"clip_id": c, "source_id": "s", "start_s": a, "end_s": b, "width": 8, "height": 6, "motion": m}
        | ({"score_errors": [("motion", "too dark")]} if m is None else {})
        for c, a, b, m in spans
    ]
    dataset.write("clips", pa.Table.from_pylist(clips, schema=CLIPS))
    return str(tmp_path)


def test_what_if_prints_the_change_and_writes_nothing(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", folder]) == 0
    before = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["--dataset", folder, "--what-if", "motion.min=0.4", "--what-if=motion.if_null=reject"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "kept   2 -> 0 (-2) of 2, 0 more in, 2 more out",
        "motion         0 -> 2",
        "e.g. aa1 rejected: motion 0.35 < 0.4",
        "e.g. ab2 rejected: motion is null",
    ]
    assert {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()} == before


def test_other_rules_are_tried_with_the_word_of_people(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", folder]) == 0
    put(Dataset(folder), "aa1", keep=True, author="ann", note="wanted")
    capsys.readouterr()
    assert main(["--dataset", folder, "--what-if=motion.min=0.4", "--what-if=motion.if_null=reject"]) == 0
    assert capsys.readouterr().out.startswith("kept   2 -> 1 (-1) of 2")
    assert main(["--dataset", folder, "--rules.motion.min=0.5", "--explain", "aa1"]) == 0
    told = capsys.readouterr().out
    assert "motion         0.35  >= 0.5  would reject" in told
    assert told.endswith("by hand        keep by ann: wanted\nkept\n")


def test_explain_tells_figures_limits_and_why_a_score_is_null(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", folder, "--rules.motion.min=0.5"]) == 0
    assert rules_in_force(Dataset(folder)).motion.min == 0.5
    capsys.readouterr()
    assert main(["--dataset", folder, "--explain", "aa"]) == 0
    told = capsys.readouterr().out
    assert "from   film.mp4, 0.000 to 3.000 s, 8x6" in told
    assert "motion         0.35  >= 0.5  rejects" in told
    assert told.endswith("rejected: motion 0.35 < 0.5\n")
    assert main(["--dataset", folder, "--explain", "ab2"]) == 0
    assert "motion         null (too dark)  >= 0.5  null -> keep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--explain", "a"], "2 clips have"), (["--what-if", "motoin.min=1"], "motion.min")],
)
def test_mistakes_are_one_line(
    folder: str, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--dataset", folder])
    assert main(["--dataset", folder, *flags]) == 2
    assert told in capsys.readouterr().err


def test_rules_and_decisions_are_one_file(folder: str) -> None:
    main(["--dataset", folder, "--rules.motion.min=0.5"])
    stored = stored_rules(Dataset(folder))
    assert stored is not None
    assert stored["motion"] == {"min": 0.5, "max": None, "if_null": "keep"}
    main(["--dataset", folder, "--rules.motion.min=0.1"])
    assert rules_in_force(Dataset(folder)).motion.min == 0.1


def test_a_dataset_whose_decisions_tell_no_rules(folder: str) -> None:
    assert stored_rules(Dataset(folder)) is None
    assert rules_in_force(Dataset(folder)) == DecideConfig()
    dataset = Dataset(folder)
    main(["--dataset", folder])
    dataset.write("decisions", dataset.read("decisions"))  # as another program would
    with pytest.raises(BadInput, match="does not tell its rules"):
        rules_in_force(dataset)


def test_given_rules_are_explained_in_place_of_the_stored(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--dataset", folder, "--rules.motion.min=0.5"])
    capsys.readouterr()
    assert main(["--dataset", folder, "--rules.motion.min=0.1", "--explain", "aa1"]) == 0
    told = capsys.readouterr().out
    assert "motion         0.35  >= 0.1  passes" in told
    assert told.endswith("kept\n")
    assert main(["--dataset", folder, "--rules.motion.min=0.1", "--what-if", "motion.min=0.4"]) == 0
    assert capsys.readouterr().out.startswith("kept   2 -> 1 (-1) of 2, 0 more in, 1 more out")
