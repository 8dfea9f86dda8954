"""The live view over 100,000 clips: how long a page of 50 takes, as a browser waits for it.

    nice -n 19 python -m tests.bench.serve --json out.json          # about three minutes
    python -m tests.bench.serve --clips 2000 --requests 20          # a look

The dataset is that of tests/bench/query.py (250,000 captions of 100,000 clips, procedural, with a fixed seed), with
unit embeddings of 768 numbers as CLIP ViT-L/14 gives them. The server is the real command in a process of its own, on
the machine's own cores; it is asked over HTTP on one connection that stays open, one request after another, and the
clock runs from the request to the last byte of the answer. Every request of a kind asks for something else (another
page, bound, word or example), so that no answer is one that was kept. Besides: the same from four askers at once, how
long the start and the preparing of the searches take, and the most memory the server held.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from curate.tables import CLIPS, SHARDS
from tests.bench.query import write_tables
from tests.bench.record import machine, print_table

WIDTH = 768  # numbers of an embedding
ASKERS = 4
REASONS = ["motion", "aesthetic", "text_area"]


def write_dataset(dataset: Dataset, n_clips: int) -> None:
    """The tables, with about `n_clips` clips and 2.5 captions to each."""
    write_tables(dataset, n_clips * 5 // 2)
    clips = dataset.read("clips")
    rng = np.random.default_rng(20261122)
    units = rng.standard_normal((len(clips), WIDTH), np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    offsets = np.arange(len(clips) + 1, dtype=np.int32) * WIDTH
    columns = {
        "embedding": pa.ListArray.from_arrays(pa.array(offsets), pa.array(units.reshape(-1))),
        "embedding_model": pa.array(["ViT-L-14/openai"] * len(clips)),
        "index": pa.array(np.zeros(len(clips), np.int32)),
    }
    for name, values in columns.items():
        at = clips.schema.get_field_index(name)
        clips = clips.set_column(at, CLIPS.field(name), values)
    dataset.write("clips", clips)
    shards = dataset.read("shards")
    at = shards.schema.get_field_index("mp4_offset")
    dataset.write("shards", shards.set_column(at, SHARDS.field("mp4_offset"), pa.array([512] * len(shards))))


def questions(dataset: Dataset, n_requests: int) -> dict[str, Callable[[np.random.Generator], str]]:
    """Kind of question -> the address of one, drawn at random."""
    clip_ids = dataset.read("clips", ["clip_id"])["clip_id"].to_pylist()
    words = words_of(dataset)
    last = len(clip_ids) - 50

    def page(**asked: object) -> str:
        return "/api/clips?" + urlencode({"limit": 50, **asked})

    return {
        "first pages": lambda rng: page(offset=50 * int(rng.integers(20))),
        "deep page": lambda rng: page(offset=int(rng.integers(last // 2, last))),
        "by reason": lambda rng: page(reason=rng.choice(REASONS), offset=int(rng.integers(5000))),
        "score range, sorted": lambda rng: page(
            score="motion", least=round(float(rng.random() * 4), 3), most=6, sort="motion", order="desc"
        ),
        "source and camera": lambda rng: page(source=f"{int(rng.integers(1000)):04d}", camera="static"),
        "words, common": lambda rng: page(q=" ".join(rng.choice(words[:50], 2, replace=False))),
        "words, any": lambda rng: page(q=" ".join(rng.choice(words, 2, replace=False))),
        "word, most common": lambda rng: page(q=words[rng.integers(3)], camera="pan", offset=rng.integers(999)),
        "words begun": lambda rng: page(q=" ".join(f"{word[:3]}*" for word in rng.choice(words, 2, replace=False))),
        "phrase": lambda rng: page(q='"' + " ".join(rng.choice(words[:200], 2)) + '"'),
        "like an example": lambda rng: page(like=rng.choice(clip_ids)),
        "like an example, filtered": lambda rng: page(like=rng.choice(clip_ids), state="kept", camera="pan"),
        "one clip": lambda rng: f"/api/clips/{rng.choice(clip_ids)}",
        "one clip, its whole story": lambda rng: f"/api/clips/{rng.choice(clip_ids)}/story",
    }  # fmt: skip


def words_of(dataset: Dataset) -> list[str]:
    """The vocabulary of some captions, the most frequent word first."""
    texts = dataset.read("captions", ["text"])["text"].slice(0, 20_000).drop_null().to_pylist()
    counts: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))


class Server:
    """`reelmill serve` in a process of its own."""

    def __init__(self, uri: str) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "serve", "--dataset", uri, "--port=0", "--author=bench"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.start_s = time.perf_counter() - began
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.port = int(found[1])
        while (state := self.ask("/api/state")[0])["captions"] != "ready" or state["vectors"] != "ready":
            if state["trouble"]:
                raise SystemExit(state["trouble"])
            time.sleep(0.2)
        self.ready_s = time.perf_counter() - began

    def ask(self, path: str) -> tuple[dict, float]:
        """The answer and the seconds it took, on a new connection."""
        with_ = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        return ask(with_, path)

    def memory(self) -> tuple[int, int]:
        """Bytes of the process's own now, and with the files it maps at their most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines())
        own, most = (int(found[name].split()[0]) * 1024 for name in ("RssAnon", "VmHWM"))
        return own, most

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[dict, float]:
    """The answer to a GET, and the seconds to its last byte."""
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    data = answer.read()
    seconds = time.perf_counter() - began
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {data[:300]!r}")
    return json.loads(data), seconds


def measure(
    server: Server, address: Callable[[np.random.Generator], str], n_requests: int, seed: int
) -> dict:
    """Seconds of `n_requests` of a kind, one after another, and how many clips the answers held."""
    rng = np.random.default_rng(seed)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    seconds, shown = [], 0
    for _ in range(n_requests):
        found, took = ask(connection, address(rng))
        seconds.append(took)
        shown += len(found.get("clips", [1]))
    return {
        "median_s": float(np.quantile(seconds, 0.5)),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "slowest_s": max(seconds),
        "clips_a_page": shown / n_requests,
    }


def at_once(server: Server, asked: dict[str, Callable[[np.random.Generator], str]], n_requests: int) -> dict:
    """The same of all kinds mixed, from ASKERS askers at once."""
    seconds: list[float] = []

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for _ in range(n_requests // ASKERS):
            address = list(asked.values())[int(rng.integers(len(asked)))]
            seconds.append(ask(connection, address(rng))[1])

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(ASKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "median_s": float(np.quantile(seconds, 0.5)),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "slowest_s": max(seconds),
        "clips_a_page": None,
    }


def rows_of(server: Server, dataset: Dataset, n_requests: int) -> Iterator[dict]:
    asked = questions(dataset, n_requests)
    for seed, (name, address) in enumerate(asked.items()):
        for warm in range(3):
            ask(
                http.client.HTTPConnection("127.0.0.1", server.port),
                address(np.random.default_rng(10_000 + warm)),
            )
        yield {"question": name, **measure(server, address, n_requests, seed)}
    yield {"question": f"all mixed, {ASKERS} askers at once", **at_once(server, asked, n_requests * 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--dataset", help="where to keep the tables, or find those of an earlier run")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(flags.dataset or folder)
        if not dataset.has("captions"):
            write_dataset(dataset, flags.clips)
        counts = {table: dataset.read(table, [column]).num_rows for table, column in
                  (("sources", "uri"), ("clips", "clip_id"), ("captions", "clip_id"))}  # fmt: skip
        server = Server(dataset.uri)
        try:
            rows = list(rows_of(server, dataset, flags.requests))
            own, most = server.memory()
        finally:
            server.close()
    title = (
        f"{counts['clips']:,} clips, {counts['captions']:,} captions; the page is there after {server.start_s:.1f} s, "
        f"searches after {server.ready_s:.1f} s; {own / 1e9:.2f} GB its own, {most / 1e9:.2f} GB with mapped files"
    )
    shown = ("median_s", "p95_s", "slowest_s", "clips_a_page")
    print_table(
        title, ("question", *shown), [[row["question"], *(row[name] for name in shown)] for row in rows]
    )
    if flags.json:
        found = machine() | {
            "load_average": os.getloadavg()[0],
            "requests": flags.requests,
            "rows": counts,
            "embedding": WIDTH,
            "start_s": server.start_s,
            "searches_ready_s": server.ready_s,
            "memory_bytes": {"own": own, "most_with_mapped_files": most},
            "pages": rows,
        }
        flags.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
