"""Where the report takes pictures from: shards before a remote source, and no second source of a silent store."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from small_dataset import SHOT_S, render
from test_report_page import pixels_of

import curate.sources
import pipelines.report_pictures
from curate.dataset import Dataset
from pipelines.report_pictures import add_strips, store_of


@pytest.fixture
def films(tmp_path: Path) -> dict[str, bytes]:
    found = {}
    for colour in ("red", "blue"):
        render(tmp_path / f"{colour}.mp4", [colour])
        found[colour] = (tmp_path / f"{colour}.mp4").read_bytes()
    return found


def clip(uri: str, shard: str | None = None, size: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"uri": uri, "start_s": 0.0, "end_s": SHOT_S, "shard": shard}
    return found if shard is None else found | {"mp4_offset": 512, "mp4_size": size}


def colour_of(card: dict[str, Any]) -> str:
    assert card["no_picture"] is None
    red, _, blue = pixels_of(card)[8, 100]
    return "red" if red > blue else "blue"


def test_a_remote_source_is_fetched_only_for_what_no_shard_holds(
    tmp_path: Path, films: dict[str, bytes]
) -> None:
    dataset = Dataset(tmp_path / "films.reel")
    dataset.write_bytes(bytes(512) + films["red"], "shards", "b", "0.tar")
    dataset.write_bytes(bytes(512) + b"no film" * 100, "shards", "b", "1.tar")
    fsspec.filesystem("memory").pipe("/films/a.mp4", films["blue"])
    size = len(films["red"])
    cards = [
        clip("memory://films/a.mp4", "b/0.tar", size),
        clip("memory://films/a.mp4"),
        clip("memory://films/gone.mp4", "b/0.tar", size),
        clip("memory://films/a.mp4", "b/1.tar", 700),
        clip(str(tmp_path / "blue.mp4"), "b/0.tar", size),  # a file of this machine is at hand
        clip("memory://films/gone.mp4", "b/1.tar", 700),
    ]
    add_strips(dataset, cards)
    assert [colour_of(card) for card in cards[:-1]] == ["red", "blue", "red", "blue", "blue"]
    assert cards[-1]["picture"] is None
    assert "; the source cannot be read any more: " in cards[-1]["no_picture"]


class Failing(BaseHTTPRequestHandler):
    """Answers 503, but for names in `films`, and 404 for those that are called gone."""

    films: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        film = self.films.get(self.path)
        self.send_response(200 if film else 404 if "gone" in self.path else 503)
        self.send_header("Content-Length", str(len(film or b"")))
        self.end_headers()
        self.wfile.write(film or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(curate.sources, "BACK_OFF_S", (0.0, 0.0))
    Failing.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_that_is_silent_is_asked_for_one_source(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "films", {})
    cards = [clip(f"{address}/{name}.mp4") for name in ("0-gone", "1", "2", "3")]
    add_strips(Dataset(tmp_path / "films.reel"), cards)
    assert Failing.asked == {"/0-gone.mp4": 1, "/1.mp4": 3}
    assert f"{address} cannot be reached: " in cards[3]["no_picture"]


def test_a_store_that_has_answered_is_asked_for_every_source(
    tmp_path: Path, address: str, films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "films", {"/0.mp4": films["red"], "/2.mp4": films["blue"]})
    cards = [clip(f"{address}/{name}.mp4") for name in ("0", "1", "2", "2")]
    add_strips(Dataset(tmp_path / "films.reel"), cards)
    assert [colour_of(card) for card in (cards[0], cards[2])] == ["red", "blue"]
    assert cards[1]["picture"] is None
    assert Failing.asked == {
        "/0.mp4": 1,
        "/1.mp4": 3,
        "/2.mp4": 1,
    }  # each once, whatever number of clips it has


class Together(Failing):
    """Answers the first source at once, the next two only when both were asked for, which it notes."""

    both: ClassVar[threading.Barrier]

    def do_GET(self) -> None:
        if self.path != "/0.mp4":
            self.both.wait(30)
        super().do_GET()


def test_sources_of_a_store_that_answers_are_fetched_side_by_side(
    tmp_path: Path, films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "films", {f"/{n}.mp4": films["red"] for n in range(3)})
    monkeypatch.setattr(Together, "both", threading.Barrier(2), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Together) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cards = [clip(f"http://127.0.0.1:{server.server_port}/{n}.mp4") for n in range(3)]
        add_strips(Dataset(tmp_path / "films.reel"), cards)
        server.shutdown()
    assert [colour_of(card) for card in cards] == ["red"] * 3


def test_what_no_one_expected_is_raised_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("of a thread")

    monkeypatch.setattr(pipelines.report_pictures, "_strip", fail)
    with pytest.raises(ZeroDivisionError, match="of a thread"):
        add_strips(
            Dataset(tmp_path / "films.reel"), [clip(str(tmp_path / "a.mp4")), clip("memory://films/a.mp4")]
        )


def test_stores() -> None:
    assert store_of("s3://bucket/films/a.mp4") == "s3://bucket"
    assert store_of("http://host:80/a.mp4") == "http://host:80"
    assert store_of("/films/a.mp4") is store_of("file:///films/a.mp4") is store_of("C:/a") is None
