"""Footage read from, and a dataset written to, an object store over real HTTP (moto's S3 server)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import moving_square, write_video


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket; the environment points s3fs at it."""
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    s3fs.S3FileSystem.clear_instance_cache()  # those of a server that is gone
    try:
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        for _ in range(100):
            try:
                store.mkdir("films")
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail("moto's server did not start within 20 s")
        yield "s3://films"
    finally:
        server.terminate()
        server.wait(20)
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def test_the_same_dataset_as_on_disk(bucket: str, tmp_path: Path) -> None:
    import fsspec

    from curate.dataset import Dataset
    from pipelines.curate import main as curate
    from pipelines.shard import main as shard

    films = tmp_path / "films"
    films.mkdir()
    for i in range(2):
        write_video(films / f"film {i}.mp4", moving_square(40, seed=i))
    (films / "film 0.txt").write_text("a square")
    fsspec.filesystem("s3").put(str(films), "films/raw", recursive=True)

    flags = ["--engine=local", "--clip.model=off"]
    for source, out in ((f"{bucket}/raw", f"{bucket}/out"), (str(films), str(tmp_path / "out"))):
        assert curate(["--input", source, "--dataset", out, *flags]) == 0
        assert shard(["--dataset", out, "--engine=local"]) == 0

    remote, local = Dataset(f"{bucket}/out"), Dataset(str(tmp_path / "out"))
    assert remote.read("clips").equals(local.read("clips"))
    assert remote.read("decisions").equals(local.read("decisions"))
    assert sorted(r["caption"] or "" for r in remote.read("sources").to_pylist()) == ["", "a square"]
    row = remote.read("shards").to_pylist()[0]
    start = row["mp4_offset"]
    assert remote.read_bytes("shards", row["shard"], start=start + 4, end=start + 8) == b"ftyp"


def test_a_failed_write_leaves_no_object(bucket: str) -> None:
    from curate.dataset import Dataset

    dataset = Dataset(f"{bucket}/broken")

    def break_off() -> None:
        with dataset.atomic_writer("clips", "part.parquet") as file:
            file.write(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        break_off()
    assert dataset.files("clips") == []
