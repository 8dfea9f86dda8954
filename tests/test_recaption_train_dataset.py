"""`reelmill train-captioner` on a dataset: numbered examples, the stages base, ssc and dsc, resume, bad input."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import captioned_films
import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_coca import COLOURS, dense, short

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import CAPTIONS
from pipelines import train_captioner as command
from pipelines.captioner_examples import CaptionedData, DataConfig, held_out, place_of
from pipelines.shard import main as shard
from pipelines.train_captioner import main
from recaption.caption_metrics import spoken
from recaption.coca import model as coca

BASE_SHARES = {"short": 0.45, "dense": 0.45, "original": 0.1}
SIZE = [
    "--training.size.image_size=32", "--training.size.width=32", "--training.size.head_width=16",
    "--training.size.vision_layers=1", "--training.size.text_layers=1", "--training.size.decoder_layers=1",
    "--training.size.context_length=16",
]  # fmt: skip
QUICK = [
    "--examples.held_out=0.2", "--training.batch=8", "--training.warmup=5", "--training.bf16=false",
    "--training.lr=3e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return captioned_films.build(tmp_path_factory.mktemp("captioned"))


@pytest.fixture(scope="module")
def base(films: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has hardly begun to learn."""
    out = tmp_path_factory.mktemp("base")
    assert main(["--data", films.uri, "--out", str(out), *SIZE, *QUICK, "--training.steps=8"]) == 0
    return out


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def data_of(
    dataset: Dataset, seed: int = 0, wanted: dict[str, float] = BASE_SHARES, **config
) -> CaptionedData:
    return CaptionedData(dataset.uri, DataConfig(**({"held_out": 0.2} | config)), wanted, seed=seed)


@pytest.mark.parametrize("read", ["shards", "tables"])
def test_examples_are_numbered_and_always_the_same(films: Dataset, read: str) -> None:
    data = data_of(films, read=read, cache_mib=0)
    first = list(islice(data(0), 130))
    for skip in (7, 48, 100):  # within an epoch, at its end, in the third
        for a, b in zip(first[skip:], islice(data_of(films, read=read)(skip), 20), strict=False):
            assert (a.name, a.captions) == (b.name, b.captions)
            np.testing.assert_array_equal(a.frames, b.frames)
    n = len(data.learnt)
    epochs = [[example.name for example in first[n * e : n * (e + 1)]] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(data.learnt)] * 2
    assert epochs[0] != epochs[1]
    other = [example.name for example in islice(data_of(films, read=read, seed=1)(0), n)]
    assert sorted(other) == sorted(epochs[0]) != other


@pytest.mark.parametrize("read", ["shards", "tables"])
def test_frames_and_captions_are_of_one_clip(films: Dataset, read: str) -> None:
    data = data_of(films, read=read)
    for example in [*islice(data(0), 48), *data.validation(99)]:
        assert example.frames.shape == (4, 36, 64, 3)
        middle = np.median(example.frames, axis=(0, 1, 2))
        colour = min(COLOURS, key=lambda name: float(np.abs(middle - COLOURS[name]).sum()))
        assert example.captions["short"] == short(colour)
        assert example.captions["dense"] == dense(colour)
        # Every fifth clip has an original caption, the others show their short one for it.
        wanted = f"my {colour} holidays" if int(example.name[2:4]) % 5 == 0 else short(colour)
        assert example.captions["original"] == wanted


def test_a_dataset_need_not_be_local(films: Dataset) -> None:
    remote = "memory://captioned"
    store = fsspec.filesystem("memory")
    store.put(f"{films.uri}/shards", f"{remote}/shards", recursive=True)
    there, here = data_of(Dataset(remote)), data_of(films)
    assert there.identity() == here.identity()
    for a, b in zip(islice(there(30), 30), islice(here(30), 30), strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.frames, b.frames)
    assert [example.name for example in there.validation(2)] == here.held_out[:2]
    store.rm("/captioned", recursive=True)


@pytest.mark.parametrize("read", ["shards", "tables"])
def test_held_out_are_whole_sources_and_never_learnt_from(films: Dataset, read: str) -> None:
    data = data_of(films, read=read)
    lacking = captioned_films.clip_id(*captioned_films.LACKING)
    source = {row["clip_id"]: row["source_id"] for row in films.read("clips").to_pylist()}
    assert data.n_lacking == 1
    assert data.learnt | set(data.held_out) == source.keys() - {lacking}
    assert data.learnt
    assert data.held_out
    assert not {source[c] for c in data.learnt} & {source[c] for c in data.held_out}
    assert {example.name for example in islice(data(0), 200)} == data.learnt
    # A stage that needs no dense caption takes the clip without one, and holds out the same others.
    ssc = data_of(films, read=read, wanted={"short": 1.0})
    assert ssc.n_lacking == 0
    assert set(ssc.held_out) - {lacking} == set(data.held_out)
    assert [example.name for example in data.validation(3)] == data.held_out[:3]


def test_sources_are_held_out_by_their_id() -> None:
    many = {f"{i:04x}-{shot}": f"{i:032x}" for i in range(1000) for shot in range(3)}
    some = held_out(many, 0.1)
    assert 0.08 < len(some) / len(many) < 0.12
    assert some == {clip for clip in many if f"{clip[:4]}-0" in some}  # all shots of a source, or none
    fewer = {clip: source for clip, source in many.items() if int(clip[:4], 16) < 500}
    assert held_out(fewer, 0.1) == some & fewer.keys()  # new sources do not move old ones
    two = {"a": "1", "b": "1", "c": "2"}
    assert held_out(two, 0.01) in ({"a", "b"}, {"c"})
    one = {f"{i:x}": "1" for i in range(1000)}
    assert 0.08 < len(held_out(one, 0.1)) / 1000 < 0.12
    assert held_out(many, 0.0) == set()


def test_the_place_of_a_name_is_what_it_always_was() -> None:
    assert place_of("00") == pytest.approx(0.41652, abs=1e-5)


def test_captions_that_were_not_chosen_or_tell_of_a_window_are_not_learnt(tmp_path: Path) -> None:
    dataset = captioned_films.build(tmp_path)
    key = captioned_films.clip_id(1, 1)
    rows = dataset.read("captions").to_pylist()
    for row in rows:
        if row["clip_id"] == key:
            row["chosen"] = False
    new = {"clip_id": key, "kind": "short", "status": "ok", "captioner": "z"}
    rows.append(new | {"caption_id": "w", "text": "a pink picture", "flags": ["part"], "chosen": None})
    dataset.write("captions", pa.Table.from_pylist(rows, schema=CAPTIONS))
    assert shard(["--dataset", dataset.uri, "--engine=local"]) == 0
    for read in ("shards", "tables"):
        data = data_of(dataset, read=read, wanted={"short": 1.0})
        assert data.n_lacking == 1
        assert key not in data.captions


def test_vocabulary_is_of_learnt_captions_and_capped(films: Dataset) -> None:
    data = data_of(films)
    known = set(data.vocabulary())
    assert known == {"a", "red", "green", "blue", "picture", "all", "of", "it", "my", "holidays", ",", "."}
    assert data.vocabulary()[:2] == ["a", "picture"]
    assert data_of(films, most_words=3).vocabulary() == data.vocabulary()[:3]
    rare = data_of(films, least_count=30).vocabulary()
    assert "holidays" not in rare
    assert "picture" in rare
    assert data.cut_share(16) == 0.0
    assert 0 < data.cut_share(9) < 1  # dense captions have nine tokens, and three go to the frame around them


def test_both_fine_tunes_of_a_base_get_better_at_their_own_kind(
    films: Dataset, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows_of(base)[-1]
    for stage, kind in (("ssc", "short"), ("dsc", "dense")):
        out = tmp_path / stage
        start = f"--training.start_from={base / 'model'}"
        flags = ["--stage", stage, start, "--training.steps=60", *QUICK]
        assert main(["--data", films.uri, "--out", str(out), *flags]) == 0
        printed = capsys.readouterr().out
        rows = rows_of(out)
        assert {row["kind"] for row in rows} == {kind}
        after = rows[-1]
        for figure in ("recall", "exact_match", "cider"):
            name = f"{kind}_{figure}"
            assert after[name] > before[name] + 0.2, (name, before, after)
            assert f"{name} " in printed
        assert after[f"{kind}_recall"] >= 0.9
        assert after[f"{kind}_precision"] >= 0.9
        assert not [name for name in after if name.startswith("dense" if kind == "short" else "short")]
        config = json.loads((out / "model" / "open_clip_config.json").read_text())
        assert config["reelmill"] == {"stage": stage, "kinds": [kind]}
        # The size and the words are those of the base, without being told again.
        model, tokenizer = coca.load(out / "model")
        assert model.visual.image_size == (32, 32)
        assert tokenizer.get_vocab() == coca.load(base / "model")[1].get_vocab()
    config = json.loads((base / "model" / "open_clip_config.json").read_text())
    assert config["reelmill"] == {"stage": "base", "kinds": ["short", "dense"]}


def test_the_figures_are_those_of_the_captions_written(films: Dataset, base: Path) -> None:
    """Worked out once more from the model's own captions of the clips held out."""
    from recaption.captioner import CaptionRequest
    from recaption.coca.captioner import CocaCaptioner

    found = rows_of(base)[-1]
    held = data_of(films).validation(99)
    requests = [CaptionRequest(example.name, "short", example.frames, ()) for example in held]
    written = {
        result.clip_id: result.text_raw or "" for result in CocaCaptioner(base / "model").caption(requests)
    }
    content = {"red", "green", "blue", "picture", "my", "holidays"} - {"my"}
    hits = n_found = n_wanted = exact = 0
    for example in held:
        said, wanted = (
            set(spoken(text)) & content for text in (written[example.name], example.captions["short"])
        )
        hits, n_found, n_wanted = hits + len(said & wanted), n_found + len(said), n_wanted + len(wanted)
        exact += spoken(written[example.name]) == spoken(example.captions["short"])
    # The folder keeps weights in half precision, so that a near tie may fall the other way.
    assert found["short_recall"] == pytest.approx(hits / n_wanted, abs=0.1)
    assert found["short_precision"] == pytest.approx(hits / max(1, n_found), abs=0.1)
    assert found["short_exact_match"] == pytest.approx(exact / len(held), abs=0.1)


def test_killed_and_resumed_ends_with_the_same_weights(
    films: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second epoch, after a checkpoint; the clips after it come in the same order."""
    steps = ["--training.steps=16", "--training.checkpoint_every=5", "--training.evaluate_every=8"]

    def go(run: str) -> dict[str, torch.Tensor]:
        assert main(["--data", films.uri, "--out", str(tmp_path / run), *SIZE, *QUICK, *steps]) == 0
        return coca.load(tmp_path / run / "model")[0].state_dict()

    whole = go("whole")
    real = command.dataset

    def dying(*args):  # the reader of examples is where the kill comes
        source = real(*args)

        def examples(skip: int):
            yield from islice(source.examples(skip), 8 * 12)
            raise KeyboardInterrupt

        return command.replace(source, examples=examples)

    monkeypatch.setattr(command, "dataset", dying)
    assert main(["--data", films.uri, "--out", str(tmp_path / "killed"), *SIZE, *QUICK, *steps]) == 130
    assert [row["step"] for row in rows_of(tmp_path / "killed")] == list(range(1, 13))
    monkeypatch.setattr(command, "dataset", real)
    torch.testing.assert_close(go("killed"), whole, rtol=0, atol=0)

    def told(run: str) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "elapsed_s"} for row in rows_of(tmp_path / run)]

    assert told("killed") == told("whole")


def test_a_run_is_not_continued_with_other_captions_or_another_stage(
    films: Dataset, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--data", films.uri, "--out", str(base), *SIZE, *QUICK, "--training.steps=8"]
    assert main(again) == 0  # finished already
    for other in ("--examples.held_out=0.3", "--examples.read=tables", "--training.kind_shares={short: 1}"):
        capsys.readouterr()
        assert main([*again, other]) == 2
        assert "other settings or data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stage=ssc"], "--stage=ssc fine-tunes a base captioner"),
        (["--stage=dsc", "--training.start_from=nowhere"], "nowhere is not a CoCa folder"),
        (
            ["--stage=ssc", "--training.start_from=BASE", "--training.kind_shares={dense: 1}"],
            "short captions only",
        ),
        (["--training.kind_shares={original: 1}"], "cannot be learnt"),
        (["--training.kind_shares={shrot: 1}"], "cannot be learnt"),
        (["--stage=scc"], "the nearest is ssc"),
        (["--examples.held_out=1"], "0 are to be learnt from"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    films: Dataset,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    flags = [flag.replace("BASE", str(base / "model")) for flag in flags]
    assert main(["--data", films.uri, "--out", str(tmp_path / "run"), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_dataset_without_what_is_asked_for_is_told(
    films: Dataset, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*flags: str) -> str:
        capsys.readouterr()
        assert main(["--data", str(tmp_path / "copy"), "--out", str(tmp_path / "run"), *flags]) == 2
        return capsys.readouterr().err

    shutil.copytree(films.uri, tmp_path / "copy")
    copy = Dataset(tmp_path / "copy")
    captions = copy.read("captions")
    kinds = np.array(captions["kind"].to_pylist())
    copy.write("captions", captions.filter(kinds != "dense"))
    start = f"--training.start_from={base / 'model'}"
    missing = error("--stage=dsc", "--examples.read=tables", start)
    assert "has no dense captions to learn from" in missing
    assert "60 short" in missing
    assert "reelmill recaption" in missing
    assert "no dense captions, which --training.kind_shares asks for" in error(
        "--examples.read=tables", "--training.kind_shares={short: 1, dense: 1}"
    )
    shutil.rmtree(tmp_path / "copy" / "captions")
    assert "Run `reelmill recaption" in error("--examples.read=tables")
    tar = next((tmp_path / "copy" / "shards").rglob("*.tar"))
    tar.unlink()
    assert "Run `reelmill shard` again" in error()
    (tmp_path / "copy" / "shards" / "index.parquet").unlink()
    assert "Run `reelmill shard" in error()
    assert not (tmp_path / "run" / "model").exists()


def test_a_base_of_short_captions_alone_learns_these(
    films: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(films.uri, tmp_path / "copy")
    copy = Dataset(tmp_path / "copy")
    captions = copy.read("captions")
    copy.write("captions", captions.filter(np.array(captions["kind"].to_pylist()) == "short"))
    data = data_of(copy, read="tables")
    assert data.kind_shares == {"short": 0.45}
    assert data.n_lacking == 0
    assert next(data(0)).captions.keys() == {"short"}


def test_a_clip_that_cannot_be_decoded_is_named(films: Dataset, tmp_path: Path) -> None:
    shutil.copytree(films.uri, tmp_path / "copy")
    row = Dataset(films.uri).read("shards").to_pylist()[0]
    with (tmp_path / "copy" / "shards" / row["shard"]).open("r+b") as file:
        file.seek(row["mp4_offset"])
        file.write(b"\0" * row["mp4_size"])
    with pytest.raises(BadInput, match=rf"clip {row['clip_id']} in .*Run `reelmill shard` again"):
        list(islice(data_of(Dataset(tmp_path / "copy"), held_out=0.0)(0), 60))
