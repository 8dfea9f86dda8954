"""`reelmill card`: what it says is counted from the tables, the Hub can read it, and all text stays text."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import fsspec
import matplotlib.image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from huggingface_hub.utils import filter_repo_objects
from markdown_it import MarkdownIt
from small_dataset import HOSTILE, build, clip_id

from curate.dataset import Dataset
from curate.overrides import put
from curate.tables import CLIPS, TABLES
from pipelines.card import main
from pipelines.card_data import gather
from pipelines.card_flags import MEANINGS
from pipelines.card_markdown import escaped
from pipelines.compact import main as compact
from pipelines.decide import main as decide
from pipelines.query import connect, rows_of
from recaption.cleaning.clean import TRIM, UNWRAP
from recaption.cleaning.wrapping import drop_closing
from recaption.finish import FOUND_HERE
from recaption.reading import PART, SUFFIX

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "clips": 8, "captions": 16, "decisions": 8, "sources": 4, "shards": 5, "latents-tiny-0123": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    dataset = build(tmp_path_factory.mktemp("card"))
    for folder in ("shards/16x9-h72", "latents/tiny-0123"):
        dataset.write_bytes(b"a tar", folder, "000000.tar")
    assert main(["--dataset", dataset.uri]) == 0
    return dataset


@pytest.fixture(scope="module")
def text(dataset: Dataset) -> str:
    return dataset.read_bytes("README.md").decode()


def cells(text: str) -> list[list[str]]:
    """The rows of the card's tables, as the Hub would render their cells."""
    found: list[list[str]] = []
    in_row = False
    for token in MarkdownIt("commonmark").enable("table").parse(DatasetCard(text).text):
        if token.type in ("tr_open", "tr_close"):
            in_row = token.type == "tr_open"
            found += [[]] if in_row else []
        if token.type == "inline" and in_row:
            assert all(part.type in ("text", "code_inline") for part in token.children or [])
            found[-1].append("".join(part.content for part in token.children or []))
    return found


def test_the_header_is_what_the_hub_expects(text: str) -> None:
    data = DatasetCard(text).data
    assert data.license == "unknown"
    assert data.pretty_name == "dataset"
    assert data.language == ["en"]
    assert data.task_categories == ["text-to-video"]
    assert data.size_categories == ["n<1K"]
    assert [config["config_name"] for config in data.configs] == list(ROWS)
    assert [config.get("default", False) for config in data.configs] == [True] + [False] * 5


def test_its_globs_match_the_files_of_each_table_and_nothing_else(dataset: Dataset, text: str) -> None:
    everything = dataset.files("")
    for config in DatasetCard(text).data.configs:
        folder = config["config_name"].replace("latents-", "latents/")
        (told,) = config["data_files"]
        assert told["split"] == "train"
        matched = [name for name in everything if fnmatch(name, told["path"])]
        assert matched == [f"{folder}/{name}" for name in dataset.files(folder, ".parquet")] != []


def test_every_table_is_read_by_datasets(dataset: Dataset, tmp_path: Path) -> None:
    code = f"""
import datasets
for name in datasets.get_dataset_config_names({dataset.uri!r}):
    table = datasets.load_dataset({dataset.uri!r}, name, split="train")
    print(name, len(table), *sorted(table.column_names)[:2])
clips = datasets.load_dataset({dataset.uri!r}, split="train")
print(clips[0]["crop"], clips[0]["embedding"], clips[0]["end_s"], "score_errors" in clips.column_names)
"""
    settings = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | settings, cwd=tmp_path
    )
    *tables, first = done.stdout.splitlines()
    assert [line.split()[:2] for line in tables] == [[name, str(n)] for name, n in ROWS.items()], done.stderr
    assert first == "{'x': 0, 'y': 0, 'w': 128, 'h': 72} [1.0, 0.0] 2.0 True"


def test_tables_that_the_hub_cannot_read_are_told(tmp_path: Path, capsys) -> None:
    dataset = build(tmp_path)
    part = tmp_path / "dataset" / "clips" / "part-00000.parquet"
    old = dataset.read("clips").replace_schema_metadata({**CLIPS.metadata, b"reelmill.schema_version": b"2"})
    pq.write_table(old, part)  # score_errors as a map
    assert main(["--dataset", dataset.uri]) == 0
    assert "The Hub cannot read clips/ as an older Reelmill wrote it" in capsys.readouterr().out
    assert compact(["--dataset", dataset.uri, "--table", "clips"]) == 0
    capsys.readouterr()
    assert main(["--dataset", dataset.uri]) == 0
    assert "cannot read" not in capsys.readouterr().out


def test_figures_are_those_of_the_tables(text: str) -> None:
    assert "8 clips found in 4 files (footage: 16.0 seconds): 5 kept (10.0 seconds), 3 rejected. Made" in text
    assert "not decided" not in text
    assert "rejected since" not in text
    assert "Kept clips last 2.0 seconds in the median" in text
    assert "- Captions without a text: 1;" in text
    assert "- 2 of 5 kept clips were not compared with a caption of their source" in text
    rows = cells(text)
    for row in (
        ["files in", "4", "2 ok, 1 read in part, 1 failed"],
        ["shots found", "8", "5 kept, 1 black ratio, 1 motion, 1 duplicate"],
        ["coca", "embedded", "–", "–", "15"],
        ["16:9", "8", "5", "0.3", "0.2", "62.5", "72"],
        ["128×72", "5"],
        ["dense", "coca", "embedded", "10", "0", "6.3", "5", "5", "8"],
        ["b00000000000", "2.0", "pan", HOSTILE],
    ):
        assert row in rows


def test_the_rules_and_the_words_of_people_are_told(tmp_path: Path, text: str, capsys) -> None:
    assert (
        "The decisions do not tell the rules that made them.\n\nNobody decided on a clip by hand.\n" in text
    )
    dataset = build(tmp_path)
    put(dataset, clip_id("a0"), keep=True, author="Ann Author", note="the red is fine")
    put(dataset, clip_id("b1"), keep=True, author="Ann Author", note="black on purpose")
    put(dataset, clip_id("c0"), keep=False, author="Bo")
    rules = [
        "--rules.motion.min=2.5",
        "--rules.luma={min: null, max: 110}",
        "--rules.motion.if_null=reject",
    ]
    copies = ["--rules.copies.near=false", "--rules.semantic={min_similarity: null, balance: true}"]
    assert decide(["--dataset", dataset.uri, *rules, *copies]) == 0
    capsys.readouterr()
    assert main(["--dataset", dataset.uri]) == 0
    shown = capsys.readouterr().out
    told = dataset.read_bytes("README.md").decode().partition("## What was kept")[2].partition("\n## ")[0]
    assert cells(told) == [
        ["score", "kept are clips with", "clips without that score are"],
        ["duration_s", "at least 1 s", "rejected"],
        ["black_ratio", "at most 0.5", "kept"],
        ["luma", "at most 110", "kept"],
        ["static_ratio", "at most 0.9", "kept"],
        ["motion", "at least 2.5 %/s", "rejected"],
        ["sharpness", "at least 20", "kept"],
        ["text_area", "at most 0.1", "kept"],
        ["overlay_area", "at most 0.1", "kept"],
        ["nsfw", "at most 0.5", "kept"],
    ]
    assert "- Near copies: kept.\n- Clips that show the same: kept.\n- `weight` balances clusters" in told
    assert "By hand, 2 clips were kept (1 against the rules) and 1 rejected; `override` says so." in told
    assert "and decisions/ who overruled the rules, and why (override)" in shown


def test_what_people_said_is_not_published(dataset: Dataset, tmp_path: Path, capsys) -> None:
    own = build(tmp_path)
    put(own, clip_id("a0"), keep=True, author="Ann Author", note="the red is fine")
    assert main(["--dataset", own.uri]) == 0
    shown = capsys.readouterr().out
    text = own.read_bytes("README.md").decode()
    assert [config["config_name"] for config in DatasetCard(text).data.configs] == list(ROWS)
    assert "Ann" not in text
    told = shown.partition("To upload it: ")[2].splitlines()[0]
    words = shlex.split(told)
    assert words[:7] == ["hf", "upload", "USER/NAME", own.uri, ".", "--repo-type", "dataset"]
    own.write_bytes(b"", "_state", "runs", "log")
    left_out = [word for at, word in enumerate(words) if words[at - 1] == "--exclude"]
    sent = {name.split("/")[0] for name in filter_repo_objects(own.files(""), ignore_patterns=left_out)}
    assert sent == {"README.md", "card", "captions", "clips", "decisions", "latents", "shards", "sources"}
    assert "sources/ tells the full path of every file (uri): look whether all may read that." in shown


def test_what_is_not_known_is_said_to_be_unknown(dataset: Dataset, tmp_path: Path, text: str, capsys) -> None:
    for line in (
        "Licence: unknown.",
        "Source of the footage: unknown",
        "Homepage: unknown",
        "Contact: unknown",
    ):
        assert f"- {line}" in text
    assert "Licence or origin of the footage is unknown" in text
    given = [
        "--license",
        "cc-by-4.0",
        "--source",
        "own films",
        "--homepage",
        "https://films.example",
        "--contact",
        "me",
    ]
    assert main(["--dataset", dataset.uri, "--out", str(tmp_path / "c.md"), "--tags=[films]", *given]) == 0
    assert "unknown" not in capsys.readouterr().out
    known = (tmp_path / "c.md").read_text()
    assert DatasetCard(known).data.license == "cc-by-4.0"
    assert DatasetCard(known).data.tags[-1] == "films"
    assert "- Licence: cc-by-4.0. The tables hold no licence of single files." in known
    assert "Licence or origin of the footage is unknown" not in known


@pytest.mark.parametrize(
    "hostile",
    [
        HOSTILE,
        "a | b || c\n---\n# heading\n- item",
        "![x](http://evil.example/x.png) [link](javascript:alert(1)) <https://evil.example>",
        "see https://evil.example/a_b and www.evil.example",
        r"\| back\\slash \` `code` **bold** __under__ ~~gone~~ $$x^2$$",
        "&lt;script&gt; &amp;",
        "1. one\n\n2. two\n\n    indented",
    ],
)
def test_text_stays_text(hostile: str) -> None:
    marked = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    shown = " ".join(hostile.split())
    for source in (f"| a |\n| --- |\n| {escaped(hostile)} |\n", f"- Name: {escaped(hostile)}\n"):
        inlines = [token for token in marked.parse(source) if token.type == "inline"]
        assert all(part.type == "text" for part in inlines[-1].children or [])
        content = "".join(part.content for part in inlines[-1].children or [])
        assert content.removeprefix("Name: ") == shown
        assert len(inlines) == 1 + source.startswith("|")
    assert not set("<>") & set(escaped(hostile))
    assert "://" not in escaped(hostile).replace("&#58;//", "")


def test_a_name_cannot_break_out_of_the_header(dataset: Dataset, tmp_path: Path) -> None:
    name = "films\n---\nlicense: mit # 'x' \"y\": {z}"
    assert main(["--dataset", dataset.uri, "--name", name, "--source", name, "--out", str(tmp_path)]) == 0
    card = DatasetCard((tmp_path / "README.md").read_text())
    assert card.data.pretty_name == " ".join(name.split())
    assert card.data.license == "unknown"
    assert card.text.lstrip().startswith("# films --- license: mit \\#")


def test_plots_lie_beside_it(dataset: Dataset, text: str) -> None:
    assert dataset.files("card") == ["durations.png", "words.png"]
    for name in dataset.files("card"):
        assert f"](card/{name})" in text
        picture = matplotlib.image.imread(io.BytesIO(dataset.read_bytes("card", name)))
        assert picture.shape[:2] == (384, 840)
        assert picture[..., :3].std() > 0.05


def test_before_anything_was_decided(tmp_path: Path, capsys) -> None:
    dataset = build(tmp_path, tables=("sources", "clips"))
    assert main(["--dataset", dataset.uri]) == 0
    text = dataset.read_bytes("README.md").decode()
    assert [config["config_name"] for config in DatasetCard(text).data.configs] == ["clips", "sources"]
    assert "8 clips (16.0 seconds) found in 4 files (footage: 16.0 seconds), not decided yet" in text
    assert "- 8 of 8 clips are not decided yet: neither kept nor rejected." in text
    assert "Clips last 2.0 seconds in the median" in text
    assert "kept clips" not in text.lower()
    assert ["128×72", "8"] in cells(text)
    assert "- 8 of 8 clips were not rated for unsafe content" in text
    assert "- 3 of 8 clips were not compared with a caption" in text
    assert dataset.files("card") == ["durations.png"]
    assert "language" not in DatasetCard(text).data.to_dict()
    assert main(["--dataset", str(tmp_path / "none")]) == 2
    assert "has no sources table. Run `reelmill curate" in capsys.readouterr().err


def changed(dataset: Dataset, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Write `table` anew after `change` of its rows."""
    rows = dataset.read(table).to_pylist()
    change(rows)
    dataset.write(table, pa.Table.from_pylist(rows, schema=TABLES[table]))


def test_a_clip_that_is_not_decided_is_neither_kept_nor_rejected(tmp_path: Path) -> None:
    """Shots that `curate` found after `decide` ran: a0 and b2 here."""
    dataset = build(tmp_path)
    later = {clip_id("a0"), clip_id("b2")}

    def earlier(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["clip_id"] not in later]

    changed(dataset, "decisions", earlier)
    with connect(dataset) as tables:
        found = gather(dataset, tables)
    assert {k: found.counts[k] for k in ("clips", "kept", "rejected", "undecided")} == {
        "clips": 8, "kept": 4, "rejected": 2, "undecided": 2
    }  # fmt: skip
    assert found.counts["hours_kept"] == pytest.approx(8 / 3600)
    assert found.bins["seconds"] == [(2, 4, 2, 2)]
    assert found.sizes == [{"size": "128×72", "clips": 4}]
    assert clip_id("a0") not in {row["clip_id"] for row in found.samples}
    assert len(found.samples) == 4
    assert found.unscored == {"nsfw": 4, "clip_text_sim": 2}
    assert main(["--dataset", dataset.uri]) == 0
    text = dataset.read_bytes("README.md").decode()
    assert "16.0 seconds): 4 kept (8.0 seconds), 2 rejected, 2 not decided yet. Made" in text
    assert "- 2 of 8 clips are not decided yet: neither kept nor rejected." in text
    assert "- 4 of 4 kept clips were not rated for unsafe content" in text


def test_what_is_rejected_since_is_told_where_it_lies(tmp_path: Path, capsys) -> None:
    dataset = build(tmp_path)
    capsys.readouterr()
    put(dataset, clip_id("a0"), keep=False, author="Ann Author")
    assert decide(["--dataset", dataset.uri, "--rules.copies.near=false"]) == 0
    with connect(dataset) as tables:
        rejected = {row["clip_id"] for row in rows_of(tables, "SELECT clip_id FROM decisions WHERE NOT keep")}
    assert rejected & {clip_id(short) for short in ("a0", "a1", "b0", "c0", "c1")} == {clip_id("a0")}
    capsys.readouterr()
    assert main(["--dataset", dataset.uri]) == 0
    shown = capsys.readouterr().out
    assert (
        "Clips that are rejected since still lie in the dataset (1 in shards, 1 in latents-tiny-0123); "
        "`reelmill shard`, then `reelmill encode`, leaves them out.\n" in shown
    )
    text = dataset.read_bytes("README.md").decode()
    rows = {row[0]: row[-1] for row in cells(text)}
    assert rows["shards"] == (
        "where each clip lies that was cut and packed into the tars; 1 clip of these is rejected since"
    )
    assert rows["latents-tiny-0123"].endswith("that was encoded; 1 clip of these is rejected since")
    assert "rejected since still lie there: 1 in `shards` and 1 in `latents-tiny-0123`." in text
    assert "By hand, 0 clips were kept and 1 rejected;" in text


def test_flags_have_counts_and_meanings(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    assert main(["--dataset", dataset.uri]) == 0
    assert "Flags of captions" not in dataset.read_bytes("README.md").decode()

    def flag(rows: list[dict[str, Any]]) -> None:
        for row in rows[:3]:
            row["flags"] = ["length:under", "length:under", "mine|<b>"]
        rows[0]["flags"] = ["fact:camera", "length:under"]
        failed = next(row for row in rows if row["text"] is None)
        failed["flags"] = ["length:under"]

    changed(dataset, "captions", flag)
    assert main(["--dataset", dataset.uri]) == 0
    text = dataset.read_bytes("README.md").decode()
    assert cells(text.partition("Flags of captions:")[2]) == [
        ["flag", "captions", "what it means"],
        ["length:under", "3", "has fewer than the 80 words that were asked for"],
        ["mine <b>", "2", "–"],
        ["fact:camera", "1", "contradicts the measured camera motion"],
    ]
    assert "The captioner remarks" not in text


def test_every_flag_that_is_set_has_a_meaning() -> None:
    """Literals as they stand in the code that sets them; rules of cleaning are flags by their names."""
    rules = {rule.__name__ for rule in (*UNWRAP, *TRIM, drop_closing)}
    code = " ".join(path.read_text() for path in (ROOT / "recaption").rglob("*.py"))
    literal = set(
        re.findall(r'"(fact:\w+|length:\w+|drop_\w+|world_captioner|repaired|second_try|part)"', code)
    )
    assert literal >= {"length:under", "length:over", "drop_field", "drop_copies", "repaired", "second_try"}
    facts = {"fact:camera", "fact:motion", "fact:text"}
    assert {*rules, *literal, *facts, *FOUND_HERE, SUFFIX, PART} - {"fact"} <= set(MEANINGS)


def test_on_an_object_store(tmp_path: Path, capsys) -> None:
    build(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "dataset"), "/bucket/films", recursive=True)
    try:
        assert main(["--dataset", "memory://bucket/films"]) == 0
        assert "card: memory://bucket/films/README.md, with 2 plots" in capsys.readouterr().out
        assert DatasetCard(memory.cat("/bucket/films/README.md").decode()).data.pretty_name == "films"
        assert memory.exists("/bucket/films/card/words.png")
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_readme_of_your_own_is_not_replaced(tmp_path: Path, capsys) -> None:
    dataset = build(tmp_path, tables=("sources", "clips"))
    for _ in range(2):  # its own, it does
        assert main(["--dataset", dataset.uri]) == 0
    dataset.write_bytes(b"# mine", "README.md")
    assert main(["--dataset", dataset.uri]) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert dataset.read_bytes("README.md") == b"# mine"


def test_where_it_is_written(dataset: Dataset, tmp_path: Path, capsys) -> None:
    assert main(["--dataset", dataset.uri, "--out", str(tmp_path / "draft")]) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "draft/README.md", "draft/card/durations.png", "draft/card/words.png"
    ]  # fmt: skip
    (tmp_path / "file").write_text("")
    for out, told in (("file", "it is a file"), ("no/such/folder", "there is no folder")):
        assert main(["--dataset", dataset.uri, "--out", str(tmp_path / out)]) == 2
        assert told in capsys.readouterr().err
