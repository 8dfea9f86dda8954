"""Clips out of their shards by ranges, over real HTTP, to the byte; and strips of pictures."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from moto_store import moto_store
from PIL import Image
from serve_small import Served, served, until, with_shards
from small_dataset import build, clip_id, render

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import TABLES
from pipelines import serve_video
from pipelines.serve_pictures import Strip, Strips
from pipelines.serve_video import member_of, range_of

RED, GREEN = (200, 40, 40), (40, 160, 60)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[Dataset, dict[str, bytes]]:
    return with_shards(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def server(shards) -> Iterator[Served]:
    with served(shards[0]) as running:
        yield running


@pytest.fixture(scope="module")
def films(shards) -> dict[str, bytes]:
    return shards[1]


def path(short: str) -> str:
    return f"/clips/{clip_id(short)}/video"


def test_the_whole_film(server: Served, films: dict[str, bytes]) -> None:
    assert len(films) == 5
    for wanted, film in films.items():
        status, headers, data = server.ask(f"/clips/{wanted}/video")
        assert (status, data) == (200, film)
        assert headers["content-type"] == "video/mp4"
        assert headers["accept-ranges"] == "bytes"
        assert int(headers["content-length"]) == len(film)


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("bytes=0-", 0, None), ("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=100-", 100, None),
     ("bytes=-5", -5, None), ("bytes=500-999999999", 500, None), ("Bytes=1-2", 1, 3), ("bytes=-999999999", 0, None)],
)  # fmt: skip
def test_ranges_to_the_byte(
    server: Served, films: dict[str, bytes], asked: str, first: int, end: int | None
) -> None:
    film = films[clip_id("b0")]
    status, headers, data = server.ask(path("b0"), range=asked)
    assert (status, data) == (206, film[first:end])
    begin = first if first >= 0 else len(film) + first
    assert headers["content-range"] == f"bytes {begin}-{begin + len(data) - 1}/{len(film)}"
    assert int(headers["content-length"]) == len(data)


def test_ranges_that_are_none(server: Served, films: dict[str, bytes]) -> None:
    film = films[clip_id("b0")]
    for asked in (f"bytes={len(film)}-", "bytes=999999999-", "bytes=-0"):
        status, headers, data = server.ask(path("b0"), range=asked)
        assert (status, data, headers["content-range"]) == (416, b"", f"bytes */{len(film)}")
    for asked in (
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "frames=0-1",
        "bytes=0-1,4-5",
        "bytes=0--1",
        "bytes= 0-1",
        "",
    ):
        status, _, data = server.ask(path("b0"), range=asked)
        assert (status, data) == (200, film), asked


def test_the_ends_of_ranges() -> None:
    assert range_of(None, 10) is None
    assert range_of("bytes=0-9", 10) == (0, 10)
    assert range_of("bytes=9-9", 10) == (9, 10)
    assert range_of("bytes=9-10", 10) == (9, 10)
    assert range_of("bytes=-10", 10) == (0, 10)
    assert range_of("bytes=-11", 10) == (0, 10)
    with pytest.raises(ValueError, match="behind the end"):
        range_of("bytes=10-", 10)


def test_a_film_is_read_in_pieces(server: Served, films: dict[str, bytes], monkeypatch) -> None:
    asked: list[tuple[int, int]] = []
    whole = server.live.dataset.read_bytes

    def counted(*parts: str, start: int | None = None, end: int | None = None) -> bytes:
        asked.append((start or 0, end or 0))
        return whole(*parts, start=start, end=end)

    monkeypatch.setattr(serve_video, "PIECE", 1000)
    monkeypatch.setattr(server.live.dataset, "read_bytes", counted)
    film = films[clip_id("a1")]
    assert server.ask(path("a1"), range="bytes=100-2599")[2] == film[100:2600]
    assert [end - start for start, end in asked] == [1000, 1000, 500]


def test_head_and_what_has_changed(server: Served, films: dict[str, bytes]) -> None:
    status, headers, data = server.ask(path("b0"), method="HEAD")
    assert (status, data, int(headers["content-length"])) == (200, b"", len(films[clip_id("b0")]))
    etag = headers["etag"]
    assert server.ask(path("b0"), range="bytes=0-3", if_range=etag)[0] == 206
    status, _, data = server.ask(path("b0"), range="bytes=0-3", if_range='"another"')
    assert (status, data) == (200, films[clip_id("b0")])
    assert server.ask(path("a0"), method="HEAD")[1]["etag"] != etag


def test_clips_in_no_shard_say_so(server: Served) -> None:
    assert server.refused(path("b1")) == (
        404,
        "this clip is in no shard. `reelmill shard` cuts the kept clips.",
    )
    assert server.refused("/clips/nobody/video") == (404, "there is no such clip.")


@pytest.mark.parametrize(
    ("shard", "offset", "size"),
    [("../clips/part-00000.parquet", 0, 4), ("/etc/passwd", 0, 4), ("a/../../clips/x.parquet", 0, 4), ("", 0, 4),
     ("./x.tar", 0, 4), ("a//x.tar", 0, 4), ("..\\x.tar", 0, 4), ("x\0.tar", 0, 4), ("16x9-h72/000000.tar", -1, 4),
     ("16x9-h72/000000.tar", 0, 0), ("16x9-h72/000000.tar", 0, -4), ("16x9-h72/000000.tar", None, 4)],
)  # fmt: skip
def test_an_index_that_points_elsewhere_is_refused(shards, shard: str, offset: int | None, size: int) -> None:
    card = {"shard": shard, "mp4_offset": offset, "mp4_size": size, "cut_id": None}
    with pytest.raises(BadInput, match="that is no place"):
        member_of(shards[0], card)


def test_over_http_too_and_through_links(tmp_path: Path) -> None:
    dataset, _ = with_shards(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    os.symlink(tmp_path / "secret", Path(dataset.uri) / "shards" / "link.tar")
    places = {"a0": ("../../secret", 0, 6), "a1": ("link.tar", 0, 6), "b0": ("16x9-h72/000000.tar", 10**9, 6),
              "c0": ("16x9-h72/nowhere.tar", 0, 6), "c1": ("16x9-h72/000000.tar", 512, 10**9)}  # fmt: skip
    rows = dataset.read("shards").to_pylist()
    for row in rows:
        row["shard"], row["mp4_offset"], row["mp4_size"] = places[row["clip_id"][:2]]
    dataset.write("shards", pa.Table.from_pylist(rows, schema=TABLES["shards"]))
    with served(dataset) as server:
        told = {short: server.refused(path(short)) for short in places}
    assert {status for status, _ in told.values()} == {404}
    assert "that is no place" in told["a0"][1]
    assert "lies outside of shards/, by a link" in told["a1"][1]
    assert "ends before this clip does" in told["b0"][1]
    assert "cannot be read" in told["c0"][1]
    assert "ends before this clip does" in told["c1"][1]


def test_films_on_an_object_store(tmp_path: Path) -> None:
    dataset, films = with_shards(tmp_path)
    with moto_store() as store:
        remote = Dataset(f"{store.uri}/films")
        for name in dataset.files(""):
            remote.write_bytes(dataset.read_bytes(name), *name.split("/"))
        with served(remote) as server:
            status, _, data = server.ask(path("b0"), range="bytes=7-5000")
            assert (status, data) == (206, films[clip_id("b0")][7:5001])
            assert server.json("/api/clips")["total"] == 8
            server.json(f"/api/clips/{clip_id('a0')}/decision", {"keep": False})
            assert server.ids(state="pending") == ["a0"]


# Strips ------------------------------------------------------------------------------------------------------


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_strips_are_frames_of_the_clip(server: Served) -> None:
    """a1 is green in its shard and in its source; b2 is in no shard, and red in its source."""
    for short, colour in {"a1": GREEN, "b2": RED}.items():
        status, headers, data = server.ask(f"/clips/{clip_id(short)}/strip.webp")
        assert status == 200
        assert headers["content-type"] == "image/webp"
        frames, (width, height) = int(headers["x-frames"]), map(int, headers["x-size"].split("x"))
        found = pixels(data)
        assert found.shape == (height, frames * width, 3)
        lefts = []
        for frame in range(frames):
            picture = found[:, frame * width : (frame + 1) * width]
            assert np.abs(picture[8, width // 2] - np.array(colour)).max() < 14
            lefts.append(int(np.flatnonzero(picture[height // 2].min(axis=1) > 200)[0]))
        assert frames == 8
        assert lefts == sorted(
            set(lefts)
        )  # the square of the clip moves to the right, from its first frame to its last
        assert lefts[-1] - lefts[0] > 60


def test_strips_come_from_the_shard_or_say_why_not(tmp_path: Path) -> None:
    dataset, _ = with_shards(tmp_path)
    shutil.rmtree(tmp_path / "films")
    with served(dataset) as server:
        found = pixels(server.ask(f"/clips/{clip_id('a1')}/strip.webp")[2])
        assert np.abs(found[8, 60] - np.array(GREEN)).max() < 14
        status, why = server.refused(f"/clips/{clip_id('b2')}/strip.webp")
        assert status == 404
        assert why.startswith("its source cannot be read: [Errno 2] No such file or directory")


def test_strips_are_kept_while_there_is_room(tmp_path: Path) -> None:
    strips = Strips(build(tmp_path), most_bytes=2500)
    for number in range(3):
        strips._keep((number,), Strip(b"x" * 500, 1, 1, 1))
    assert list(strips._kept) == [(1,), (2,)]
    strips._keep((2,), Strip(b"x" * 900, 1, 1, 1))
    assert list(strips._kept) == [(1,), (2,)]
    assert strips._bytes == 2400
    strips._keep((3,), Strip(b"x" * 9000, 1, 1, 1))
    assert list(strips._kept) == [(3,)]
    strips.close()


def test_a_strip_that_is_being_made_does_not_hold_up_the_end(tmp_path: Path, monkeypatch) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"x")
    strips = Strips(Dataset(tmp_path))
    slow = lambda _, child, *__: child.call("time:sleep", 60, deadline_s=60)  # noqa: E731
    monkeypatch.setattr(Strips, "_called", slow)
    card = {"clip_id": "b", "uri": str(film), "shard": None, "mp4_offset": None, "start_s": 0.0, "end_s": 1.0}
    found: list[Strip] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(strips.get(card))))
    thread.start()
    until(strips.children.pids)
    strips.close()
    thread.join(20)
    assert found[0].why is not None
    assert "the decoding process died (signal 9)" in found[0].why
    assert strips.children.pids() == []


def of_source(uri: str, **more: object) -> dict[str, object]:
    return {"clip_id": "b", "uri": uri, "shard": None, "mp4_offset": None, "size_bytes": None, "start_s": 0.0,
            "end_s": 1.0, **more}  # fmt: skip


def why_none(strips: Strips, card: dict[str, object]) -> str:
    strip = asyncio.run(strips.get(card))
    assert strip.why is not None
    return strip.why


@pytest.mark.parametrize(
    "begins", ["http", "simplecache::http", "zip://x::http", "s3://x::http", "webhdfs", "sftp", "ftp"]
)
def test_a_host_that_the_table_names_is_not_asked(tmp_path: Path, begins: str) -> None:
    strips = Strips(Dataset(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(0.1)
        why = why_none(strips, of_source(f"{begins}://127.0.0.1:{host.getsockname()[1]}/film.mp4"))
        assert "the live view fetches pictures from files here and from s3, s3a, gs," in why
        with pytest.raises(TimeoutError):
            host.accept()
    assert strips.children.pids() == []  # nobody was sent to look, either
    strips.close()


def test_a_film_of_a_store_is_counted_as_it_comes(tmp_path: Path, monkeypatch) -> None:
    """Whatever the table says of its size; and it leaves nothing behind."""
    monkeypatch.setattr("pipelines.serve_pictures.MOST_FETCHED", 3 << 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    film = make_film(tmp_path / "film.mp4")
    with moto_store() as store:
        remote = Dataset(store.uri)
        remote.write_bytes(film, "film.mp4")
        remote.write_bytes(film + bytes(3 << 20), "long.mp4")
        strips = Strips(Dataset(tmp_path))
        assert asyncio.run(strips.get(of_source(f"{store.uri}/film.mp4"))).frames > 1
        told = f"its source cannot be read: more than 3 MB at {store.uri}/long.mp4: too much to fetch for a picture"
        assert why_none(strips, of_source(f"{store.uri}/long.mp4")) == told
        far = of_source(f"{store.uri}/none.mp4", size_bytes=4 << 20)
        assert why_none(strips, far).endswith("none.mp4 are too much to fetch for a picture")
        strips.close()
    assert list(tmp_path.glob("reelmill-serve-*")) == []


@contextmanager
def hanging_store(monkeypatch) -> Iterator[socket.socket]:
    """An S3 that takes connections and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        for name, value in (("ENDPOINT_URL", f"http://127.0.0.1:{host.getsockname()[1]}"), ("ACCESS_KEY_ID", "x"),
                            ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):  # fmt: skip
            monkeypatch.setenv(f"AWS_{name}", value)
        host.settimeout(30)
        yield host


def test_a_store_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch) -> None:
    strips = Strips(Dataset(tmp_path))
    found: list[str] = []
    with hanging_store(monkeypatch) as host:
        thread = threading.Thread(
            target=lambda: found.append(why_none(strips, of_source("s3://films/film.mp4")))
        )
        thread.start()
        asked, _ = host.accept()  # and no word more
        strips.close()
        thread.join(20)
        asked.close()
    assert "the decoding process died (signal 9)" in found[0]


def test_a_shard_whose_store_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch) -> None:
    """Read where it can be killed, as the source is."""
    found: list[str] = []
    with hanging_store(monkeypatch) as host:
        strips = Strips(Dataset("s3://films/dataset"))
        place = {"shard": "16x9-h72/000000.tar", "mp4_offset": 512, "mp4_size": 9, "cut_id": None}
        card = of_source("no/such/film.mp4", **place)
        thread = threading.Thread(target=lambda: found.append(why_none(strips, card)))
        thread.start()
        asked, _ = host.accept()  # and no word more
        strips.close()
        thread.join(20)
        asked.close()
    assert found[0].startswith("its shard cannot be read: the decoding process died (signal 9)")


def test_a_shard_whose_store_hangs_is_given_up(tmp_path: Path, monkeypatch) -> None:
    dataset, films = with_shards(tmp_path)
    monkeypatch.setattr("pipelines.serve_reads.DEADLINE_S", 0.3)
    monkeypatch.setattr("pipelines.serve_reads.AT_ONCE", 2)
    begun: list[tuple[str, ...]] = []
    end = threading.Event()
    whole = dataset.read_bytes

    def hangs(*parts: str, **more: int) -> bytes:
        if parts[0] == "shards":
            begun.append(parts)
            end.wait(30)
        return whole(*parts, **more)

    with served(dataset) as server:
        monkeypatch.setattr(dataset, "read_bytes", hangs)
        told = "the store of the shards did not answer within 0.3 seconds."
        assert [server.refused(path(short)) for short in ("a0", "a1", "b0")] == [(504, told)] * 3
        assert len(begun) == 2, begun  # the third was not begun while two hang
        assert not any(
            thread.daemon is False for thread in threading.enumerate() if thread.name == "serve-read"
        )
        assert server.json("/api/clips")["total"] == 8
        monkeypatch.setattr(dataset, "read_bytes", whole)
        end.set()
        until(lambda: server.ask(path("b0"))[2] == films[clip_id("b0")])  # their turns are free again


def test_a_failure_is_remembered_for_a_while(tmp_path: Path, monkeypatch) -> None:
    strips = Strips(Dataset(tmp_path))
    card = of_source(str(tmp_path / "film.mp4"))
    assert "No such file" in why_none(strips, card)
    make_film(tmp_path / "film.mp4")
    assert "No such file" in why_none(strips, card)
    monkeypatch.setattr("pipelines.serve_pictures.FORGET_FAILURE_S", 0.0)
    assert asyncio.run(strips.get(card)).why is None
    strips.close()


def make_film(path: Path) -> bytes:
    render(path, ["red"])
    return path.read_bytes()
