"""`reelmill serve` over the small dataset, in a thread, asked over real HTTP."""

from __future__ import annotations

import http.client
import io
import json
import math
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import uvicorn
from small_dataset import build, render

from curate.dataset import Dataset
from curate.tables import TABLES
from pipelines.serve import listen, settings
from pipelines.serve_app import application
from pipelines.serve_guards import Door
from pipelines.serve_live import Live


@dataclass
class Served:
    """A server that runs: its port, and what it serves."""

    port: int
    live: Live

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of one request on its own connection; `a_b` is the header a-b."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body, named = json.dumps(body).encode(), {"content-type": "application/json", **named}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        answer = connection.getresponse()
        told = {key.lower(): value for key, value in answer.getheaders()}
        data = answer.read()
        connection.close()
        return answer.status, told, data

    def json(self, path: str, body: Any = None, **asked: Any) -> Any:
        """What a request that succeeds says; `asked` are the fields of the query."""
        status, _, data = self.ask(path + (f"?{urlencode(asked)}" if asked else ""), body)
        assert status == 200, data
        return json.loads(data)

    def refused(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """(status, error) of a request that does not succeed."""
        status, _, data = self.ask(path, body, **headers)
        assert status >= 400
        return status, json.loads(data)["error"]

    def ids(self, **asked: Any) -> list[str]:
        """The first two letters of the ids of a page of clips."""
        return [clip["clip_id"][:2] for clip in self.json("/api/clips", **asked)["clips"]]


@contextmanager
def served(
    dataset: Dataset,
    *,
    keys: Mapping[str, str | None] | None = None,
    is_loopback: bool = True,
    look_every_s: float = 0.1,
) -> Iterator[Served]:
    """A server over `dataset` whose searches are ready; `keys` as `Door` takes them."""
    with Live(dataset, author="ann", look_every_s=look_every_s) as live:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = uvicorn.Server(settings(application(live, Door(port, keys or {}, is_loopback))))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            until(lambda: live.now.captions.value is not None and live.now.vectors.value is not None)
            yield Served(port, live)
        finally:
            server.should_exit = True
            thread.join(20)


def until(is_so: Any, seconds: float = 30.0) -> None:
    """Wait until `is_so()`; the test fails when that takes too long."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def with_shards(folder: Path, tables: tuple[str, ...] | None = None) -> tuple[Dataset, dict[str, bytes]]:
    """The small dataset with a real tar, and the bytes of every clip in it: clip_id -> mp4."""
    dataset = build(folder) if tables is None else build(folder, tables=tables)
    rows = dataset.read("shards").to_pylist()
    films: dict[str, bytes] = {}
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w") as tar:
        for row, shot in zip(rows, ["red", "green", "blue", "green", "blue"], strict=True):
            render(folder / "clip.mp4", [shot])
            films[row["clip_id"]] = (folder / "clip.mp4").read_bytes()
            member = tarfile.TarInfo(f"{row['clip_id']}.mp4")
            member.size = len(films[row["clip_id"]])
            row["mp4_offset"], row["mp4_size"] = tar.offset + 512, member.size
            tar.addfile(member, io.BytesIO(films[row["clip_id"]]))
    dataset.write_bytes(tar_bytes.getvalue(), "shards", rows[0]["shard"])
    dataset.write("shards", pa.Table.from_pylist(rows, schema=TABLES["shards"]))
    return dataset, films


# Unit embeddings by hand: the angle of each clip, and of other models or none.
ANGLES = {"a0": 0.0, "a1": 60.0, "b0": 90.0, "b1": 180.0, "b2": 30.0}


def with_embeddings(dataset: Dataset) -> None:
    """Two numbers for five clips (one three times as long as a unit), another model for c0, no good ones for others."""
    rows = dataset.read("clips").to_pylist()
    for row in rows:
        short = row["clip_id"][:2]
        row["embedding_model"] = "hand/made"
        if short in ANGLES:
            angle = math.radians(ANGLES[short])
            scale = 3.0 if short == "b2" else 1.0
            row["embedding"] = [scale * math.cos(angle), scale * math.sin(angle)]
        elif short == "c0":
            row["embedding"], row["embedding_model"] = [1.0, 0.0], "other/model"
        elif short == "c1":
            row["embedding"] = [float("nan"), 1.0]
        else:
            row["embedding"] = None
    dataset.write("clips", pa.Table.from_pylist(rows, schema=TABLES["clips"]))
