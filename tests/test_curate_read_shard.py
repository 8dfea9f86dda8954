"""A clip is read from its shard by range: over real HTTP, no more than its own bytes come back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.read_shard import ShardReader, read_clip
from curate.shard_stages import PackShards
from curate.shards import to_json

MIB = 1 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Relay:
    """Passes TCP connections on to a port and counts the bytes that come back."""

    def __init__(self, target: int) -> None:
        self.received = 0
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target), timeout=30)
            for source, sink, counts in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, sink, counts), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.received += len(data) * counts
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """moto's S3 server behind a relay; the environment points s3fs at the relay."""
    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    relay = Relay(port)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("cuts")
        yield relay
    finally:
        relay.close()
        server.terminate()
        server.wait(20)
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def packed(uri: str) -> tuple[Dataset, dict[str, bytes]]:
    """A dataset with one shard of eight clips of 1 MiB each, made by the real packer, and one failed clip."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.tables import SHARDS

    dataset = Dataset(uri)
    noise = np.random.default_rng(0)
    clips = {f"{i:024x}": noise.bytes(MIB + i) for i in range(8)}
    members = []
    for clip_id, data in clips.items():
        dataset.write_bytes(data, "_state", "cuts", f"{clip_id}.mp4")
        members.append(
            {
                "clip_id": clip_id,
                "json": to_json({"clip_id": clip_id, "captions": []}),
                "cut": {
                    "clip_id": clip_id,
                    "error": None,
                    "place": {"path": f"_state/cuts/{clip_id}.mp4", "start": None, "end": None},
                },
            }
        )
    stage = PackShards(uri)
    stage.setup()
    stage([{"shard": "16x9_360p_4s/00000.tar", "content": "c0", "members": members}])
    index = pq.read_table(io.BytesIO(dataset.read_bytes("_state", "shards", "c0.parquet")))
    failed = pa.Table.from_pylist([{"clip_id": "f" * 24, "error": "no frame"}], schema=SHARDS)
    dataset.write("shards", pa.concat_tables([index, failed]))
    return dataset, clips


def test_only_the_bytes_of_the_clip_are_fetched(relay: Relay) -> None:
    dataset, clips = packed("s3://cuts/dataset")
    assert dataset.fs.size(dataset.path("shards", "16x9_360p_4s", "00000.tar")) > 8 * MIB
    shards = ShardReader(dataset)
    for clip_id in (f"{3:024x}", f"{0:024x}", f"{7:024x}"):
        before = relay.received
        mp4, record = shards.read(clip_id)
        assert mp4 == clips[clip_id]
        assert record["clip_id"] == clip_id
        assert relay.received - before < len(mp4) + 4096  # the tar's headers, the record, HTTP's headers

    before = relay.received
    mp4, record = read_clip(Dataset("s3://cuts/dataset"), f"{5:024x}")
    assert (mp4, record["clip_id"]) == (clips[f"{5:024x}"], f"{5:024x}")
    assert relay.received - before < len(mp4) + 40_000  # the index besides


def test_a_clip_that_is_not_there_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="reelmill shard"):
        read_clip(Dataset(str(tmp_path / "none")), "a" * 24)
    dataset, _ = packed(str(tmp_path / "d"))
    with pytest.raises(BadInput, match="could not be cut: no frame"):
        read_clip(dataset, "f" * 24)
    with pytest.raises(BadInput, match=r"not in shards/index\.parquet"):
        ShardReader(dataset).read("e" * 24)
