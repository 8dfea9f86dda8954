"""`reelmill serve` as a process: it starts, tells its address, ends on Ctrl-C, and says what is wrong before that."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from serve_small import with_shards
from small_dataset import build, clip_id

from pipelines.serve import main

ROOT = Path(__file__).resolve().parents[1]


def as_from_a_terminal() -> None:
    """In the new process: it hears what these tests themselves may be told to ignore, as under `nohup`."""
    for told in (signal.SIGHUP, signal.SIGINT):
        signal.signal(told, signal.SIG_DFL)


def with_a_terminal() -> None:
    as_from_a_terminal()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def running(*flags: str, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "serve", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=as_from_a_terminal,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def status(port: int, path: str = "/api/state", host: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"host": host} if host else {})
    return connection.getresponse().status


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, stop: signal.Signals, code: int) -> None:
    uri = build(tmp_path / "films").uri
    (tmp_path / "temporary").mkdir()
    with running("--dataset", uri, "--port=0", temporary=tmp_path / "temporary") as (process, line):
        found = re.fullmatch(r"serve: (\S+) at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
        assert found is not None, line
        assert found[1] == uri
        port = int(found[2])
        assert status(port) == 200
        assert status(port, host="films.example") == 403
        # Several pictures at once, the first that the process makes.
        paths = [f"/clips/{clip_id(short)}/strip.webp" for short in ("a0", "a1", "b0", "b1", "b2", "c0")]
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(partial(status, port), paths)) == {200}
        # A reader that never reads does not hold up the end.
        idle = socket.create_connection(("127.0.0.1", port))
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
        idle.close()
        assert process.returncode == code
        assert out == "serve: ended\n"
        # On a machine at its limit uvicorn's own patience may end first, and it says so.
        assert [line for line in err.splitlines() if "graceful shutdown exceeded" not in line] == []
    assert [path.name for path in (tmp_path / "temporary").glob("reelmill-*")] == []


def test_a_closed_terminal_leaves_nothing_behind(tmp_path: Path) -> None:
    uri = build(tmp_path / "films").uri
    (tmp_path / "temporary").mkdir()
    terminal, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "serve", "--dataset", uri, "--port=0"],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=with_a_terminal,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )  # fmt: skip
    os.close(theirs)
    try:
        line = b""
        while b"\n" not in line:
            line += os.read(terminal, 1000)
        found = re.search(rb"127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line
        assert status(int(found[1])) == 200
        os.close(terminal)  # the kernel sends SIGHUP, and what is printed fails
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in (tmp_path / "temporary").glob("reelmill-*")] == []


def test_others_need_the_token_that_is_printed(tmp_path: Path) -> None:
    uri = build(tmp_path).uri
    with running("--dataset", uri, "--port=0", "--host=0.0.0.0", temporary=tmp_path) as (process, line):
        found = re.search(r"http://\S+:(\d+)/\?token=([\w-]{43}) ", line)
        assert found is not None, line
        port = int(found[1])
        assert process.stdout is not None
        assert "it is printed once" in process.stdout.readline()
        assert status(port) == 401
        assert status(port, f"/?token={found[2]}") == 303
        assert status(port, f"/?token={found[2]}", host="films.example") == 303


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    uri = build(tmp_path).uri
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wrong = {
            ("--dataset", uri, f"--port={port}"): f"cannot listen on 127.0.0.1:{port}: Address already in use. "
            "Give another --port (0 takes a free one) or --host.",
            ("--dataset", uri, "--port=70000"): "--port=70000 is no port; give one from 1 to 65535, or 0",
            ("--dataset", uri, "--port=0", "--host=no.such.host.example"): "cannot listen on no.such.host.example:0",
            ("--dataset", str(tmp_path / "none")): "has no clips table. Run `reelmill curate",
            ("--dataset", uri, "--token=short"): "--token must be 16 characters or more",
            ("--dataset", uri, "--author= "): "--author is empty",
            ("--dataset", uri, "--run", str(tmp_path)): "holds no metrics.jsonl; give the folder of a training run.",
        }  # fmt: skip
        for flags, told in wrong.items():
            assert main(list(flags)) == 2
            err = capsys.readouterr().err
            assert told in err
            assert err.count("\n") == 1


def test_a_token_of_the_environment_and_one_for_each(tmp_path: Path, monkeypatch) -> None:
    uri = build(tmp_path / "films").uri
    token, ann = "a-token-of-enough-letters", "anns-token-of-her-own"
    monkeypatch.setenv("REELMILL_TOKEN", token)
    with running("--dataset", uri, "--port=0", temporary=tmp_path) as (process, line):
        found = re.search(rf"http://127\.0\.0\.1:(\d+)/\?token={token} ", line)
        assert found is not None, line
        assert (status(int(found[1])), status(int(found[1]), f"/?token={token}")) == (401, 303)
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_text()
    people = tmp_path / "people.txt"
    people.touch(0o600)
    people.write_text(f"ann {ann}\nBen of Ulm bens-token-of-his-own\n")
    with running("--dataset", uri, "--port=0", "--tokens", str(people), temporary=tmp_path) as (
        process,
        line,
    ):
        found = re.search(r"at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C", line)
        assert found is not None, line
        assert process.stdout is not None
        told = process.stdout.readline()
        assert (
            told == f"serve: each opens it with their token of {people}, as /?token=TOKEN: Ben of Ulm, ann\n"
        )
        assert (status(int(found[1])), status(int(found[1]), f"/?token={token}")) == (401, 401)
        assert status(int(found[1]), f"/?token={ann}") == 303


def test_a_store_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A shard that is a pipe into which nobody writes: whoever opens it waits for ever."""
    dataset, _ = with_shards(tmp_path)
    shard = tmp_path / "dataset" / "shards" / dataset.read("shards")["shard"][0].as_py()
    shard.unlink()
    os.mkfifo(shard)
    with running("--dataset", dataset.uri, "--port=0", temporary=tmp_path) as (process, line):
        found = re.search(r"127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line
        asked = []
        for path in ("video", "strip.webp"):
            asked.append(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=1))
            asked[-1].request("GET", f"/clips/{clip_id('a0')}/{path}")
            with pytest.raises(TimeoutError):  # and the connection stays open
                asked[-1].getresponse()
        assert status(int(found[1])) == 200
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "serve: ended\n")
