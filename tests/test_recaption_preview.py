"""`reelmill recaption --preview`: a few clips on a page, an estimate for the rest, and nothing paid twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import small_dataset
from fault_server import FaultServer
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from pipelines.recaption import main
from pipelines.recaption_bill import estimate, tell
from pipelines.recaption_preview import spread
from recaption.plan import kept_clips


def row(kind: str, status: str = "ok", **figures: float | None) -> dict:
    return {
        "kind": kind,
        "status": status,
        "tokens_in": None,
        "tokens_out": None,
        "latency_ms": None,
        **figures,
    }


def test_the_estimate_is_the_mean_times_the_number() -> None:
    rows = [
        row("short", tokens_in=1000, tokens_out=10, latency_ms=2000.0),
        row("short", "refused", tokens_in=3000, tokens_out=30, latency_ms=4000.0),
        row("dense", tokens_in=1000, tokens_out=200, latency_ms=8000.0),
    ]
    total, missing = {"short": 2000, "dense": 500}, {"short": 1000}
    short, dense = estimate(rows, total, missing, at_once=16, prices=(1.0, 50.0))
    assert (short.seen, short.usable, short.tokens_in, short.tokens_out) == (2, 0.5, 2000, 20)
    assert (short.seconds, short.cost_usd) == (3.0 / 16, pytest.approx(0.003))
    assert (dense.total, dense.missing, dense.cost_usd) == (500, 0, pytest.approx(0.011))
    assert [line.split(": ", 1)[1].strip() for line in tell([short, dense])] == [
        "4,500,000 tokens in, 140,000 tokens out, about 10.4 min, US$ 11.50",
        "2,000,000 tokens in, 20,000 tokens out, about 3.1 min, US$ 3.00",
        "4,000,000 tokens in, 40,000 tokens out, about 6.2 min, US$ 6.00 (from 2 seen, 50% usable)",
        "2,000,000 tokens in, 20,000 tokens out, about 3.1 min, US$ 3.00",
        "500,000 tokens in, 100,000 tokens out, about 4.2 min, US$ 5.50 (from 1 seen, 100% usable)",
        "nothing",
    ]


def test_what_is_not_known_is_not_told() -> None:
    (one,) = estimate([row("short")], {"short": 9}, {"short": 9}, at_once=1, prices=(1.0, 1.0))
    assert (one.tokens_in, one.seconds, one.cost_usd) == (None, None, None)
    assert "the backend tells no figures" in tell([one])[0]
    (none,) = estimate([], {"dense": 9}, {}, at_once=1)
    assert none.usable is None
    assert "none seen yet" in tell([none])[2]
    paid = [row("short", tokens_in=10, tokens_out=10, latency_ms=None)]
    assert estimate(paid, {"short": 9}, {}, at_once=1)[0].cost_usd is None  # without prices
    # Neither an answer out of the cache nor a request that failed at once makes the backend quicker.
    rows = [
        row("short", latency_ms=None),
        row("short", latency_ms=500.0),
        row("short", "error", latency_ms=1.0),
    ]
    assert estimate(rows, {"short": 9}, {}, at_once=1)[0].seconds == 0.5


def test_the_clips_are_spread_over_the_list() -> None:
    assert spread(list(range(100)), 4) == [12, 37, 62, 87]  # type: ignore[arg-type, comparison-overlap]
    assert spread(list(range(3)), 20) == [0, 1, 2]  # type: ignore[arg-type, comparison-overlap]


def test_a_preview_makes_its_clips_shows_them_and_leaves_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    flags = ["--dataset", dataset.uri, "--engine=local", "--captioner.coca.model", str(tiny_folder())]
    assert main([*flags, "--preview=3"]) == 0
    told = capsys.readouterr().out
    assert "captions 6 made + 0 failed + 0 there already, 3 from sidecars, for 3 of 5 kept clips" in told
    assert re.search(r"whole dataset +10 captions: [\d,]+ tokens out, about", told)  # those in are not known
    assert re.search(r"left to make +4 captions: ", told)
    assert len(re.findall(r"(?:short|dense) +5 in all: .*\(from 3 seen, 100% usable\)", told)) == 2
    assert len(re.findall(r" 2 left: ", told)) == 2

    page = (Path(dataset.uri) / "report" / "captions.html").read_text()
    chosen = spread(kept_clips(Dataset(dataset.uri)), 3)
    assert page.count("<section>") == 3
    assert page.count("data:image/webp;base64,") == 3
    for clip in chosen:
        assert clip.span.clip_id in page
    # A sidecar of b0 holds markup: it must come through as text.
    assert any(clip.span.clip_id.startswith("b0") for clip in chosen)
    assert "<script" not in page
    assert "&lt;script&gt;document.title=" in page
    assert "onerror=alert(1)&gt;" in page

    assert main(flags) == 0
    told = capsys.readouterr().out
    assert "captions 4 made + 0 failed + 6 there already, 3 from sidecars, for 5 of 5 kept clips" in told


PROMPT = "Name what is on the screen."  # 6 words
LONG = "Tell at great length and in every detail that you can find what is on the screen."  # 17 words


def bill(told: str) -> dict[str, tuple[int, int, int, float]]:
    """whole dataset and left to make -> (captions, tokens in, tokens out, US$)."""
    found = re.findall(
        r"(whole dataset|left to make) +([\d,]+) captions: ([\d,]+) tokens in, ([\d,]+) tokens out.*US\$ ([\d.,]+)\n",
        told,
    )
    return {
        name: (*(int(count.replace(",", "")) for count in counts), float(usd)) for name, *counts, usd in found
    }  # type: ignore[misc]


def test_the_bill_of_a_server_is_tokens_times_prices_whatever_was_cached_or_made_before(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "short.v1.txt").write_text(LONG)
    with FaultServer(delay_s=0.05) as server:

        def preview(name: str, *more: str, usd_in: float = 10_000.0) -> str:
            folder = tmp_path / name
            if not folder.exists():
                small_dataset.build(folder, tables=("sources", "clips", "decisions"))
            flags = [
                "--dataset", str(folder / "dataset"), "--engine=local", "--kinds=[short]", f"--prompts={prompts}",
                "--captioner.backend=openai", f"--captioner.openai.base_url={server.url}",
                "--captioner.openai.model=tiny", "--captioner.openai.frames=2", "--captioner.openai.in_flight=1",
                f"--captioner.openai.cache={tmp_path / 'answers'}",
                f"--captioner.openai.budget.usd_per_million_in={usd_in}",
                "--captioner.openai.budget.usd_per_million_out=20000", *more,
            ]  # fmt: skip
            assert main(flags) == 0
            return capsys.readouterr().out

        preview("films", "--preview=2")  # an older prompt, three times as dear
        (prompts / "short.v2.txt").write_text(PROMPT)
        first = preview("films", "--preview=2")
        # The server counts words, and ten tokens per frame: 6 + 2 * 10 in; 6 + "frames" + two numbers out.
        one_usd = (26 * 10_000 + 9 * 20_000) / 1e6
        expected = {
            "whole dataset": (5, 5 * 26, 5 * 9, pytest.approx(5 * one_usd)),
            "left to make": (3, 3 * 26, 3 * 9, pytest.approx(3 * one_usd)),
        }
        assert bill(first) == expected
        assert "(from 2 seen, 100% usable)" in first

        asked = server.requests
        again = preview("copy", "--preview=2")  # the same answers, out of the cache
        assert server.requests == asked
        assert bill(again) == expected
        assert all(row["cost_usd"] == 0 for row in Dataset(tmp_path / "copy" / "dataset").read("captions").to_pylist()
                   if row["captioner"] == "openai")  # fmt: skip
        dearer = preview("films", "--preview=2", usd_in=20_000.0)  # nothing is made; the new price holds
        assert bill(dearer)["left to make"][3] == pytest.approx(3 * (26 * 20_000 + 9 * 20_000) / 1e6)

        preview("films")
        whole = preview("films", "--preview=1")
        assert re.search(r"left to make +0 captions: nothing\n", whole)
        assert bill(whole)["whole dataset"] == expected["whole dataset"]


def test_two_captioners_stand_side_by_side(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for kind in ("short", "dense"):
        (prompts / f"{kind}.v1.txt").write_text(f"A <b>{kind}</b> one.")
    flags = ["--dataset", dataset.uri, "--engine=local", "--preview=2"]
    with FaultServer() as server:
        assert main([*flags, "--captioner.coca.model", str(tiny_folder())]) == 0
        openai = ["--captioner.backend=openai", f"--captioner.openai.base_url={server.url}"]
        openai.append("--captioner.openai.frames=2")
        assert main([*flags, *openai, "--captioner.openai.model=tiny", f"--prompts={prompts}"]) == 0
    page = (Path(dataset.uri) / "report" / "captions.html").read_text()
    sections = page.split("<section>")[1:]
    assert len(sections) == 2
    coca = {
        (row["clip_id"], row["kind"]): row["text"]
        for row in dataset.read("captions").to_pylist()
        if row["captioner"] == "coca"
    }
    for section, clip in zip(sections, spread(kept_clips(dataset), 2), strict=True):
        table = section[section.index("<table>") : section.index("</table>")]
        head, *lines = table.split("<tr")[1:]
        assert re.findall(r"<th>(\w*)<br>", head) == ["coca", "openai"]
        ours = [line for line in lines if not line.startswith("><th>original")]
        assert [line[: line.index("</th>")] for line in ours] == ["><th>short", "><th>dense"]
        for line, kind in zip(ours, ("short", "dense"), strict=True):
            left, right = line.split("<td>")[1:]
            assert left.startswith(f"<p>{coca[clip.span.clip_id, kind]}<br>")
            assert right.startswith(f"<p>A &lt;b&gt;{kind}&lt;/b&gt; one. frames")
            assert line.count("chosen") == 1


def test_a_preview_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    assert main(["--dataset", dataset.uri, "--preview=0"]) == 2
    assert "--preview=0 must be at least 1" in capsys.readouterr().err
