"""What people say of clips on the page: kept, shown at once, honoured by decide; and tables that change meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from serve_small import Served, served, until
from small_dataset import HOSTILE, build, clip_id

import pipelines.compact
from curate.dataset import Dataset
from curate.decide import DecideConfig, Range
from curate.overrides import latest, put
from curate.tables import TABLES
from pipelines.decide import rules_in_force, write_decisions
from pipelines.serve_search import Captions
from pipelines.serve_view import versions_of
from pipelines.serve_words import Words

TABLES_HERE = ("sources", "clips", "decisions", "captions")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Decided by today's rules: kept are those with motion 0.3 or more and few black frames."""
    dataset = build(tmp_path, tables=TABLES_HERE)
    write_decisions(dataset, DecideConfig(luma=Range(), duration_s=Range()))
    return dataset


def say(server: Served, short: str, keep: bool | None, note: str | None = None) -> dict:
    found: dict = server.json(f"/api/clips/{clip_id(short)}/decision", {"keep": keep, "note": note})
    return found


def card(server: Served, short: str) -> dict:
    found: dict = server.json(f"/api/clips/{clip_id(short)}")
    return found


def test_a_word_is_kept_and_shown_at_once(dataset: Dataset) -> None:
    with served(dataset, look_every_s=60) as server:
        before = dataset.read("decisions")
        row = say(server, "a0", False, HOSTILE)
        stored = latest(dataset)[clip_id("a0")]
        assert (row["author"], stored["author"], stored["keep"]) == ("ann", "ann", False)
        assert stored["note"] == " ".join(HOSTILE.split())
        assert stored["override_id"] == row["override_id"]
        shown = server.json("/api/clips", state="pending")["clips"]
        assert [(clip["clip_id"], clip["keep"], clip["word"]["keep"], clip["pending"]) for clip in shown] == [
            (clip_id("a0"), True, False, True)
        ]
        assert server.json("/api/state")["pending"] == 1
        assert dataset.read("decisions").equals(before)  # it counts from the next decide on


def test_every_word_stays_and_the_newest_counts(dataset: Dataset) -> None:
    with served(dataset) as server:
        for keep, note in ((False, "dark"), (True, "no, fine"), (None, None)):
            say(server, "a0", keep, note)
        told = [(row["keep"], row["note"]) for row in card(server, "a0")["history"]]
        assert told == [(None, None), (True, "no, fine"), (False, "dark")]
        assert server.ids(state="overruled") == []
        assert server.ids(state="pending") == []
        assert len(dataset.read("overrides")) == 3
        assert latest(dataset)[clip_id("a0")]["keep"] is None


def test_words_are_read_in_the_order_they_were_said(dataset: Dataset) -> None:
    said = [put(dataset, clip_id("a0"), keep=bool(n % 2), author=f"author {n}") for n in range(8)]
    words = Words(dataset)
    found = words.read(versions_of(dataset)["overrides"])
    assert [row["author"] for row in found[clip_id("a0")]] == [row["author"] for row in said]
    said.append(put(dataset, clip_id("a0"), keep=None, author="the last"))
    again = words.read(versions_of(dataset)["overrides"])
    assert [row["override_id"] for row in again[clip_id("a0")]] == [row["override_id"] for row in said]


def test_decide_honours_it_from_the_page(dataset: Dataset) -> None:
    with served(dataset) as server:
        assert card(server, "a0")["keep"] is True
        assert card(server, "b1")["keep"] is False
        kept = server.json("/api/clips", state="kept")["total"]
        rules = rules_in_force(dataset)
        say(server, "a0", False, "a watermark")
        say(server, "b1", True)
        say(server, "c0", True)  # as the rules say already
        assert server.ids(state="pending") == ["a0", "b1"]
        found = server.json("/api/decide", {})
        assert (found["before"], found["kept"]) == (kept, kept)  # one out, one in
        assert server.ids(state="pending") == []
        assert server.ids(state="overruled") == ["a0", "b1", "c0"]
        assert card(server, "a0")["reasons"][0] == "override by ann: a watermark"
        assert card(server, "b1")["keep"] is True
        assert rules_in_force(dataset) == rules
        say(server, "b1", None)
        assert server.ids(state="pending") == ["b1"]  # decisions/ follows the word that was taken back
        assert card(server, "b1")["pending"] is True
        server.json("/api/decide", {})
        assert server.ids(state="pending") == []
        assert card(server, "b1")["keep"] is False
        assert len(dataset.read("overrides")) == 4  # decide writes none and takes none


@pytest.mark.parametrize(
    "body",
    [{}, {"keep": "yes"}, {"keep": 1}, {"keep": 0}, {"keep": True, "note": 5}, {"keep": True, "note": ["x"]}, [True],
     {"note": "x"}, {"keep": True, "note": "x" * 2001}],
)  # fmt: skip
def test_words_that_are_none(dataset: Dataset, body: object) -> None:
    with served(dataset) as server:
        assert server.refused(f"/api/clips/{clip_id('a0')}/decision", body)[0] == 400
    assert latest(dataset) == {}


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfff", "\\udc80"])
def test_half_a_sign_is_no_text(dataset: Dataset, text: str) -> None:
    with served(dataset) as server:
        bodies = {
            f'{{"keep": true, "note": "{text}"}}': f"/api/clips/{clip_id('a0')}/decision",
            f'{{"sql": "{text}"}}': "/api/sql",
            f'{{"sql": "SELECT 1", "{text}": 1}}': "/api/sql",
        }
        for body, path in bodies.items():
            told = server.refused(path, body.encode(), content_type="application/json")
            assert told == (400, "the request holds no JSON.")
    assert latest(dataset) == {}


def test_a_note_holds_writing_only(dataset: Dataset) -> None:
    """Nothing that moves a terminal's cursor or turns its line around; joiners, which Persian needs, stay."""
    with served(dataset) as server:
        say(server, "a0", False, "a\0b\x1b[2Jc\u202ed\u2066e\x9bf می\u200cروم 👩\u200d🎨")
        assert latest(dataset)[clip_id("a0")]["note"] == "a b [2Jc d e f می\u200cروم 👩\u200d🎨"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("ben", "ben"), (" Ben  of\tUlm ", "Ben of Ulm"), ("b\x1b[2Je\u202en", "b [2Je n"), (None, "ann"), ("", "ann")],
)  # fmt: skip
def test_who_said_it_is_kept(dataset: Dataset, sent: str | None, stored: str) -> None:
    """The name that the page asked for, without what turns a terminal's line around; else the server's --author."""
    with served(dataset) as server:
        row = server.json(f"/api/clips/{clip_id('a0')}/decision", {"keep": True, "author": sent})
        assert (row["author"], latest(dataset)[clip_id("a0")]["author"]) == (stored, stored)


def test_who_has_a_token_of_their_own_decides_under_its_name(dataset: Dataset) -> None:
    ann, ben = "anns-token-of-her-own", "bens-token-of-his-own"
    with served(dataset, keys={ann: "Ann", ben: "Ben of Ulm"}) as server:
        for short, token, sent in (("a0", ann, None), ("a1", ben, None), ("b0", ben, "Ann")):
            body = {"keep": False, "author": sent}
            path = f"/api/clips/{clip_id(short)}/decision"
            assert server.ask(path, body, authorization=f"Bearer {token}")[0] == 200
        assert server.ask(path, {"keep": True, "author": "Ann"})[0] == 401
    told = {clip[:2]: row["author"] for clip, row in latest(dataset).items()}
    assert told == {"a0": "Ann", "a1": "Ben of Ulm", "b0": "Ben of Ulm"}


def test_a_name_that_is_none(dataset: Dataset) -> None:
    with served(dataset) as server:
        for name in (5, ["ben"], " ", "x" * 101):
            body = {"keep": True, "author": name}
            assert server.refused(f"/api/clips/{clip_id('a0')}/decision", body)[0] == 400
    assert latest(dataset) == {}


def test_a_clip_cannot_be_sent_and_must_exist(dataset: Dataset) -> None:
    with served(dataset) as server:
        server.json(f"/api/clips/{clip_id('a0')}/decision", {"keep": True, "clip_id": "x"})
        assert list(latest(dataset)) == [clip_id("a0")]
        for unknown in ("nobody", "..%2f..%2fx", "%00", "a" * 3000):
            assert server.refused(f"/api/clips/{unknown}/decision", {"keep": True})[0] == 404
    assert len(latest(dataset)) == 1


def test_words_of_many_at_once(dataset: Dataset) -> None:
    with served(dataset) as server:
        shorts = ["a0", "a1", "b0", "b1", "b2", "c0"] * 3
        threads = [
            threading.Thread(target=say, args=(server, short, bool(i % 2))) for i, short in enumerate(shorts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(dataset.read("overrides")) == len(shorts)
        newest = {clip[:2]: row["keep"] for clip, row in latest(dataset).items()}
        until(lambda: {short: card(server, short)["word"]["keep"] for short in newest} == newest)
        wanted = sorted(short for short, keep in newest.items() if card(server, short)["keep"] is not keep)
        until(lambda: server.ids(state="pending") == wanted)


# Tables that change ------------------------------------------------------------------------------------------


def test_words_said_elsewhere_and_merged_files_are_noticed(dataset: Dataset) -> None:
    with served(dataset) as server:
        number = server.json("/api/state")["view"]
        put(dataset, clip_id("c1"), keep=False, author="ben", note="by another server")
        until(lambda: server.ids(state="overruled") == ["c1"])
        put(dataset, clip_id("c0"), keep=False, author="ben")
        until(lambda: server.ids(state="overruled") == ["c0", "c1"])
        assert pipelines.compact.main(["--dataset", dataset.uri]) == 0
        until(
            lambda: (
                server.live.now.versions["overrides"] != ()
                and len(server.live.now.versions["overrides"]) == 1
            )
        )
        assert server.ids(state="overruled") == ["c0", "c1"]
        assert card(server, "c1")["history"][0]["note"] == "by another server"
        assert server.json("/api/state")["trouble"] is None
        assert number == 1


def test_other_rules_are_noticed_and_the_searches_stay(dataset: Dataset) -> None:
    with served(dataset) as server:
        captions = server.live.now.captions.value
        before = server.json("/api/overview")
        assert server.ids(reason="motion") == ["b1", "b2"]
        write_decisions(dataset, DecideConfig(motion=Range(min=4.0), luma=Range(), duration_s=Range()))
        until(lambda: server.ids(reason="motion") == ["a0", "a1", "b1", "b2", "c2"])
        assert server.json("/api/state")["view"] == 2
        assert server.json("/api/overview") != before
        assert server.live.now.captions.value is captions
        assert server.ids(q="dense a1") == ["a1"]


def test_new_captions_are_found(dataset: Dataset) -> None:
    with served(dataset) as server:
        assert server.ids(q="zebra") == []
        rows = dataset.read("captions").to_pylist()
        rows.append(rows[0] | {"caption_id": "f" * 16, "clip_id": clip_id("b2"), "text": "a zebra"})
        dataset.write("captions", pa.Table.from_pylist(rows, schema=TABLES["captions"]))
        until(lambda: server.ids(q="zebra") == ["b2"])
        assert server.live.now.number == 2
        assert "a zebra" in [row["text"] for row in card(server, "b2")["captions"]]


def test_clips_that_come_and_go(dataset: Dataset) -> None:
    with served(dataset) as server:
        rows = dataset.read("clips").to_pylist()
        fewer = [row for row in rows if not row["clip_id"].startswith("a0")]
        fewer.append(rows[0] | {"clip_id": "0new"})
        dataset.write("clips", pa.Table.from_pylist(fewer, schema=TABLES["clips"]))
        until(lambda: server.ids()[0] == "0n")
        assert server.ids() == ["0n", "a1", "b0", "b1", "b2", "c0", "c1", "c2"]
        assert server.refused(f"/api/clips/{clip_id('a0')}")[0] == 404
        until(lambda: not server.live.now.captions.is_old)
        assert server.ids(q="dense") == ["a1", "c0", "c1"]  # a0 has captions still, and is no clip any more


def test_a_table_that_is_away_is_told_and_comes_back(dataset: Dataset) -> None:
    with served(dataset) as server:
        clips = Path(dataset.uri) / "clips"
        clips.rename(clips.with_name("away"))
        (Path(dataset.uri) / "sources").rename(Path(dataset.uri) / "sources-away")
        until(lambda: server.json("/api/state")["trouble"] is not None)
        assert "cannot be read at the moment" in server.json("/api/state")["trouble"]
        assert server.json("/api/clips")["total"] == 8  # what was there is still shown
        clips.with_name("away").rename(clips)
        (Path(dataset.uri) / "sources-away").rename(Path(dataset.uri) / "sources")
        until(lambda: server.json("/api/state")["trouble"] is None)
        assert server.json("/api/clips")["total"] == 8


def test_a_question_in_the_moment_of_change_can_be_asked_again(dataset: Dataset) -> None:
    with served(dataset, look_every_s=60) as server:
        clips = Path(dataset.uri) / "clips"
        clips.rename(clips.with_name("away"))
        status, why = server.refused("/api/overview")
        assert status == 503
        assert why.startswith("the tables are being changed; ask again in a moment.")
        clips.with_name("away").rename(clips)
        assert server.json("/api/overview")["funnel"][0]["total"] == 4


def test_searches_are_those_of_before_until_the_new_ones_are_ready(dataset: Dataset, monkeypatch) -> None:
    with served(dataset) as server:
        may_go = threading.Event()

        def slow(*asked: object, **more: object) -> Captions:
            may_go.wait(20)
            return Captions(*asked, **more)  # type: ignore[arg-type]

        monkeypatch.setattr("pipelines.serve_live.Captions", slow)
        rows = dataset.read("captions").to_pylist()
        rows.append(rows[0] | {"caption_id": "f" * 16, "clip_id": clip_id("b2"), "text": "a zebra"})
        dataset.write("captions", pa.Table.from_pylist(rows, schema=TABLES["captions"]))
        until(lambda: server.json("/api/state")["captions"] == "being prepared")
        assert server.ids(q="zebra") == []
        assert server.ids(q="dense a1") == ["a1"]
        assert "a zebra" in [
            row["text"] for row in card(server, "b2")["captions"]
        ]  # the tables have it already
        may_go.set()
        until(lambda: server.ids(q="zebra") == ["b2"])
        assert server.json("/api/state")["captions"] == "ready"
