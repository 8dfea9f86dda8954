"""A bucket over real HTTP (moto's S3 server) that can be out of reach for a while."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class MotoStore:
    """See the module.

    Attributes:
        uri: the bucket.
    """

    uri = "s3://runs"

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self.settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "t",
            "AWS_SECRET_ACCESS_KEY": "t",
            "AWS_MAX_ATTEMPTS": "1",
        }
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve an empty store; returns when the bucket is there."""
        import s3fs

        script = str(Path(sys.executable).with_name("moto_server"))
        self._server = subprocess.Popen(
            [script, "-H", "127.0.0.1", "-p", self._port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ},
        )
        s3fs.S3FileSystem.clear_instance_cache()
        store = s3fs.S3FileSystem()
        for _ in range(200):
            try:
                store.mkdir("runs")
                return
            except Exception:  # the driver's own error while nobody answers
                time.sleep(0.1)
        pytest.fail("moto's server did not start")

    def stop(self) -> None:
        """No answer from now on."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(20)
            self._server = None


@contextmanager
def moto_store() -> Iterator[MotoStore]:
    """A store that runs, with the environment that points at it."""
    import s3fs

    store = MotoStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.settings.items():
            patch.setenv(name, value)
        try:
            store.start()
            yield store
        finally:
            store.stop()
            s3fs.S3FileSystem.clear_instance_cache()
