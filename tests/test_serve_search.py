"""The searches of the live view over real HTTP: words, clips like a clip, clips like a text."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled
from serve_small import Served, served, until, with_embeddings
from small_dataset import build, clip_id
from world_stills import stills

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import TABLES
from pipelines.demo.weights import embedded, embedded_name
from pipelines.demo.world_captions import describe
from pipelines.query import connect
from pipelines.serve_clip_text import TextSearch, without_hub
from pipelines.serve_search import Captions, terms_of
from pipelines.serve_sql import Busy, TooLong
from pipelines.serve_vectors import Vectors
from pipelines.serve_view import captions_in_tables


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    dataset = build(tmp_path_factory.mktemp("clips"))
    with_embeddings(dataset)
    return dataset


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


# Words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("dense a1", ["a1"]),
        ("DENSE, of A1!", ["a1"]),
        ('"of a1"', ["a1"]),
        ('"a1 of"', []),
        ('"one colour, dense"', ["a0", "a1", "c0", "c1"]),
        ('"one colour, dense', ["a0", "a1", "c0", "c1"]),  # a quote that nobody closed
        ("scr* c0", ["c0"]),
        ("scre", []),
        ("newer", ["a0", "a1", "b0", "c0", "c1"]),
        ("green red", ["a0", "a1"]),  # the caption that came with the file
        ("owned", ["b0", "b1", "b2"]),
        ("a1 NOT dense", []),  # NOT is a word
        ("a1 OR c0", []),
        ("text:dense", []),
        ("NEAR(dense a1)", []),
        ("(((", None),
        ("dense -a1 ^", ["a1"]),
        ("a1*", ["a1"]),
        ("'; DROP TABLE captions; --", []),
        ("\x00dense\x00 a1", ["a1"]),
        ("écran", []),
    ],
)
def test_words_find_their_clips(server: Served, words: str, found: list[str] | None) -> None:
    if found is None:
        assert server.refused(f"/api/clips?{urlencode({'q': words})}")[0] == 400
        return
    assert sorted(server.ids(q=words)) == found


def test_a_clip_is_found_by_its_id(server: Served) -> None:
    whole = server.json("/api/clips", q=f" {clip_id('b1')} ")
    assert [clip["clip_id"] for clip in whole["clips"]] == [clip_id("b1")]
    assert whole["remarks"] == "The clip of this id."
    assert "cosine" not in whole["clips"][0]
    assert server.ids(q=clip_id("b1")[:8]) == ["b1"]
    assert server.ids(q=clip_id("b1")[:8], state="kept") == []  # filters hold
    assert server.ids(q=clip_id("b1")[:7]) == []  # a word, which no caption holds
    assert server.ids(q=clip_id("b1") + "0") == []


def test_nothing_waits_for_the_overview(server: Served) -> None:
    view = server.live.now
    begun, end = threading.Event(), threading.Event()
    slow = threading.Thread(target=lambda: view.once("slow", lambda _: (begun.set(), end.wait(30))))
    slow.start()
    begun.wait(30)
    view.known_rows.clear()
    try:
        assert server.ids(q="a1*") == ["a1"]
        assert server.ids(like=clip_id("b0"), state="kept") == ["a1", "a0"]
        assert server.json(f"/api/clips/{clip_id('b0')}")["captions"]
        assert server.json(f"/api/clips/{clip_id('b0')}/story")["story"]
        with view.turns:  # as while the captions are being copied
            assert view.ask(captions_in_tables, [clip_id("b0")])
        assert slow.is_alive()
    finally:
        end.set()
        slow.join()


def test_what_was_found_is_marked_and_ranked(server: Served) -> None:
    best = server.json("/api/clips", q="a1")["clips"][0]
    assert best["snippet"] == "a screen, \x02a1\x03"  # the shorter caption ranks above the longer one
    assert best["marks"] == ["\x02", "\x03"]
    hostile = server.json("/api/clips", q="script", state="kept")["clips"]
    assert [clip["clip_id"][:2] for clip in hostile] == ["b0"]
    assert server.ids(q="owned", state="rejected") == ["b1", "b2"]


def test_shorter_captions_rank_above_longer_ones(server: Served) -> None:
    """bm25 over captions that hold the word once each: by their length, and not as they lie in the table."""
    captions = server.live.now.captions.value
    found = captions.search("screen")
    with sqlite3.connect(f"file:{captions._file}?mode=ro", uri=True) as file:
        text = dict(file.execute("SELECT id, text FROM captions"))
    words = [len(text[number].split()) for number in found.captions]
    assert words == sorted(words)
    assert len(set(words)) == 3
    assert list(found.captions) != sorted(found.captions)


def test_too_many_captions_are_not_ranked_and_it_says_so(server: Served, monkeypatch) -> None:
    for module in ("serve_search", "serve_answers"):
        monkeypatch.setattr(f"pipelines.{module}.MOST_RANKED", 3)
    found = server.json("/api/clips", q="newer one")
    assert found["remarks"] == "5 captions match, more than the 3 that are ranked: in order of clips."
    assert [clip["clip_id"][:2] for clip in found["clips"]] == ["a0", "a1", "b0", "c0", "c1"]
    assert server.json("/api/clips", q="dense a1 of")["remarks"] == ""


def test_terms_are_words_and_nothing_else() -> None:
    assert terms_of('red "small  disc" roll* a"b') == [
        ("red", False),
        ("small disc", False),
        ("roll", True),
        ("a b", False),
    ]
    assert terms_of("red red red* RED") == [("red", False), ("red", True), ("RED", False)]
    with pytest.raises(BadInput, match="no word"):
        terms_of('"" * -- ()')
    with pytest.raises(BadInput, match=r"at most 16 words; this has 17\."):
        terms_of(" ".join(f"w{number}" for number in range(17)))
    for words in ("a*", "red a*", "x-y*", "-a*"):
        with pytest.raises(BadInput, match="begins too many words; give 2 letters or more"):
            terms_of(words)


def test_a_search_has_a_deadline(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_search.DEADLINE_S", -1.0)
    captions = server.live.now.captions.value
    long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000) SELECT max(i) FROM n"
    with pytest.raises(TooLong, match="search for fewer or longer words"), captions._open() as file:
        file.execute(long).fetchone()


def test_searches_take_turns(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_search.WAIT_S", 0.05)
    turns = server.live.now.captions.value._turns
    with turns, turns:
        told = (503, "2 searches are being answered already; ask again when one is done.")
        assert server.refused("/api/clips?q=owned+by") == told
    assert server.ids(q="owned by") == server.ids(q="by owned")


def test_without_an_index_texts_are_searched_one_by_one(dataset: Dataset, tmp_path: Path) -> None:
    with connect(dataset) as tables:
        plain = Captions(tables, tmp_path, fts5=False)
        (tmp_path / "other").mkdir()
        indexed = Captions(tables, tmp_path / "other")
    assert not plain.has_index
    for words in ("dense a1", '"of a1"', "newer", "green red", "100%_"):
        ids = [
            sorted({str(found.clip_ids[int(i)]) for i in found.search(words).captions})
            for found in (plain, indexed)
        ]
        assert ids[0] == ids[1], words
    assert plain.snippets(plain.search("a1"), [0]) == {}


def test_captions_are_the_same_before_they_are_copied(server: Served, dataset: Dataset) -> None:
    ids = [clip_id(short) for short in ("a0", "b0", "b1", "c0")]
    with connect(dataset) as tables:
        early = captions_in_tables(tables, ids)
    late = server.live.now.captions.value.of(ids)
    for rows in (*early.values(), *late.values()):
        for row in rows:
            row["text_raw"] = row["text_raw"] if row["text"] is None else None
    assert early == late
    assert [row["error"] for row in late[clip_id("c0")] if row["error"]] == ["HTTP 500: out of tokens"]


# Looks -------------------------------------------------------------------------------------------------------


def test_clips_like_a_clip(server: Served) -> None:
    found = server.json("/api/clips", like=clip_id("a0"))
    told = [(clip["clip_id"][:2], round(clip["cosine"], 4)) for clip in found["clips"]]
    assert told == [("b2", 0.866), ("a1", 0.5), ("b0", 0.0), ("b1", -1.0)]
    assert (
        found["remarks"]
        == "By cosine of CLIP embeddings (hand/made). 1 clips have embeddings by another model."
    )
    assert server.ids(like=clip_id("b0"), state="kept") == ["a1", "a0"]
    assert server.ids(like=clip_id("c0")) == []  # alone of its model


def test_embeddings_that_cannot_be_compared_are_left_out(dataset: Dataset, tmp_path: Path) -> None:
    with connect(dataset) as tables:
        vectors = Vectors(tables, tmp_path)
    assert len(vectors) == 6
    assert vectors.models == ["hand/made", "other/model"]
    with pytest.raises(BadInput, match="gives 3 numbers and the clips have 2"):
        vectors.near(np.array([1.0, 0.0, 0.0], np.float32), "hand/made")


def test_clips_that_look_like_a_text(tmp_path: Path) -> None:
    """The embedded CLIP over pictures of its own world, against open_clip itself."""
    dataset = build(tmp_path, tables=("sources", "clips"))
    scenes, embeddings = stills(8)
    rows = dataset.read("clips").to_pylist()
    for row, unit in zip(rows, embeddings, strict=True):
        row |= {"embedding": unit.tolist(), "embedding_model": embedded_name("coca")}
    dataset.write("clips", pa.Table.from_pylist(rows, schema=TABLES["clips"]))
    folder = f"local-dir:{embedded('coca')}"
    net, tokenizer = open_clip.create_model(folder).eval(), open_clip.get_tokenizer(folder)
    with served(dataset) as server:
        best = 0
        for row, scene in zip(rows, scenes, strict=True):
            text = describe(scene, "short", np.random.default_rng(0))
            with torch.inference_mode():
                unit = net.encode_text(tokenizer([text]), normalize=True)[0].numpy()
            wanted = sorted(
                zip(embeddings @ unit, (row["clip_id"] for row in rows), strict=True), reverse=True
            )
            found = server.json("/api/clips", text=text)["clips"]
            assert [clip["clip_id"] for clip in found] == [clip_id for _, clip_id in wanted]
            np.testing.assert_allclose(
                [clip["cosine"] for clip in found], [cosine for cosine, _ in wanted], atol=1e-5
            )
            best += found[0]["clip_id"] == row["clip_id"]
        assert best >= 7
        model = "embedded/000000000000"  # weights of another release
        dataset.write(
            "clips",
            pa.Table.from_pylist([row | {"embedding_model": model} for row in rows], schema=TABLES["clips"]),
        )
        until(lambda: server.json("/api/state")["models"] == [model])
        status, why = server.refused("/api/clips?text=star")
        assert status == 400
        assert "the embedded CLIP is embedded/" in why


def test_a_model_that_cannot_be_had_is_not_tried_for_every_text(monkeypatch) -> None:
    tried: list[tuple[str, bool]] = []

    def load(model: str) -> None:
        tried.append((model, constants.HF_HUB_OFFLINE))
        raise BadInput("it is away")

    monkeypatch.setattr("recaption.trust.clip_text.load_text_tower", load)
    texts = TextSearch(None)
    for text in ("star", "disc", "star"):
        with pytest.raises(BadInput, match=r"cannot be loaded here.*\(it is away\)"):
            texts.feature(text, "ViT-L-14/openai")
    assert tried == [("ViT-L-14/openai", True), ("ViT-L-14/openai", False)]  # here, and then elsewhere
    monkeypatch.setattr("pipelines.serve_clip_text.FORGET_FAILURE_S", 0.0)
    with pytest.raises(BadInput, match="it is away"):
        texts.feature("star", "ViT-L-14/openai")
    assert len(tried) == 4
    with pytest.raises(BadInput, match="it is away"):
        TextSearch(None, on_hub=True).feature("star", "ViT-L-14/openai")
    assert tried[4:] == [("ViT-L-14/openai", False)]  # the dataset is read from there meanwhile
    assert constants.HF_HUB_OFFLINE is False


class Tower:
    """A text model whose every text is the same."""

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 1), np.float32)


def test_a_model_that_is_here_is_not_asked_for_elsewhere(monkeypatch) -> None:
    tried: list[bool] = []

    def load(model: str) -> Tower:
        tried.append(constants.HF_HUB_OFFLINE)
        return Tower()

    monkeypatch.setattr("recaption.trust.clip_text.load_text_tower", load)
    assert TextSearch(None).feature("star", "ViT-L-14/openai").tolist() == [1.0]
    assert tried == [True]


def test_without_the_hub_nothing_is_fetched_from_it() -> None:
    """huggingface_hub looks at the setting at every request, and not only at the start."""
    with without_hub(), pytest.raises(OfflineModeIsEnabled):
        get_session().get("http://127.0.0.1:9/")


def test_nobody_waits_for_a_model_that_is_being_loaded(monkeypatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def load(model: str) -> Tower:
        if model == "slow/model":
            begun.set()
            end.wait(30)
        return Tower()

    monkeypatch.setattr("recaption.trust.clip_text.load_text_tower", load)
    texts = TextSearch(None)
    texts.feature("star", "quick/model")
    found: list[list[float]] = []
    first = threading.Thread(target=lambda: found.append(texts.feature("star", "slow/model").tolist()))
    first.start()
    begun.wait(30)
    try:
        for text in ("star", "disc"):
            assert texts.feature(text, "quick/model").tolist() == [1.0]
            with pytest.raises(Busy, match=r"^CLIP is being loaded; ask again in a moment\.$"):
                texts.feature(text, "slow/model")
        assert first.is_alive()
    finally:
        end.set()
        first.join()
    assert found == [[1.0]]  # who asked first has the answer
    assert texts.feature("disc", "slow/model").tolist() == [1.0]


def test_texts_take_turns(monkeypatch) -> None:
    monkeypatch.setattr("recaption.trust.clip_text.load_text_tower", lambda model: Tower())
    monkeypatch.setattr("pipelines.serve_clip_text.WAIT_S", 0.05)
    texts = TextSearch(None)
    texts.feature("star", "quick/model")
    with texts._reading:
        assert texts.feature("star", "quick/model").tolist() == [1.0]  # remembered
        with pytest.raises(Busy, match="CLIP is reading other texts"):
            texts.feature("disc", "quick/model")


def test_without_embeddings_it_says_so(tmp_path: Path) -> None:
    dataset = build(tmp_path, tables=("sources", "clips"))
    rows = dataset.read("clips").to_pylist()
    dataset.write(
        "clips", pa.Table.from_pylist([row | {"embedding": None} for row in rows], schema=TABLES["clips"])
    )
    with served(dataset) as server:
        for asked in (f"like={clip_id('a0')}", "text=star"):
            status, why = server.refused(f"/api/clips?{asked}")
            assert status == 400
            assert why.startswith("no clip has an embedding: CLIP was switched off when they were curated")
        assert (
            server.json("/api/clips", q="green")["total"] == 2
        )  # sidecar captions, with no table of captions
        assert server.json("/api/clips", state="undecided")["total"] == 8
