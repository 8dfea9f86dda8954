"""The benchmark of the VAE at sizes of no meaning: it runs, compares like with like, and adds up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("bench") / "out.json"
    words = ["--trained-only", "--sizes", "32x48", "--frames", "5", "--lengths", "9", "--tiles", "16"]
    words += ["--clips", "2", "--repeats", "1", "--threads", "1", "--json", str(out)]
    subprocess.run(
        [sys.executable, "-m", "tests.bench.vae", *words], check=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(out.read_text())


def test_wan_is_of_our_width_and_does_more_for_it(found: dict) -> None:
    ours, wan = found["networks"]["tiny"], found["networks"]["Wan of tiny's width"]
    assert ours["widths"] == wan["widths"] == [48, 96, 128]
    assert ours["parameters"] < wan["parameters"]
    for direction in ("encode", "decode"):
        assert 0 < ours[f"{direction}_gflop_per_frame"] < wan[f"{direction}_gflop_per_frame"]


def test_quality_of_the_trained_one(found: dict) -> None:
    for kind in ("footage", "encode"):
        row = found["quality"]["tiny"][kind]
        assert row["clips"] == 2
        assert row["psnr_db"] > 25
        assert 0.8 < row["ssim"] < 1


def test_both_are_timed_and_ratios_are_of_their_rates(found: dict) -> None:
    (table,) = found["speed"]
    assert (table["width"], table["height"], table["frames"]) == (32, 48, 5)
    ours, wan = table["rows"]["tiny"], table["rows"]["Wan of tiny's width"]
    for direction in ("encode", "decode"):
        assert ours[direction]["reason"] is None
        assert wan[direction]["reason"] is None
        assert ours[direction]["frames_per_s"] == pytest.approx(5 / ours[direction]["seconds"][0])
        rates = ours[direction]["frames_per_s"] / wan[direction]["frames_per_s"]
        assert table["ours_by_wan"][f"{direction}_frames_per_s"] == pytest.approx(rates)
        assert 0 < ours[direction]["peak_mb"] < wan[direction]["peak_mb"]


def test_pieces_tell_how_far_they_are_from_the_whole(found: dict) -> None:
    (table,) = found["pieces"]
    assert table["frames"] == 9
    whole, chunks, tiles = table["rows"].values()
    for direction in ("encode", "decode"):
        assert "difference" not in whole[direction]
        assert chunks[direction]["difference"]["largest"] < 1e-4
        # Tiles of 16 pixels lack most of what a value depends on.
        assert tiles[direction]["difference"]["largest"] > 1e-2
