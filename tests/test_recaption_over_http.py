"""`reelmill recaption` over HTTP: a changed prompt asks for its captions alone; a kill loses at most a batch."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_recaption_command import KEPT, dataset, rows, run
from tiny_coca import COLOURS

from curate.dataset import Dataset

__all__ = ["dataset"]  # a fixture


class Namer(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that names the colour of the first picture it is sent."""

    server: Colours

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *pictures, text = body["messages"][0]["content"]
        data = base64.b64decode(pictures[0]["image_url"]["url"].split(",")[1])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        mean = np.median(picture.reshape(-1, 3), axis=0)[::-1]
        colour = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
        with self.server.lock:
            self.server.asked[text["text"]] += 1
        time.sleep(self.server.delay_s)
        reply = json.dumps(
            {"choices": [{"message": {"content": f"{text['text']} {colour}"}, "finish_reason": "stop"}]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


class Colours(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Namer)
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.delay_s = 0.0


@pytest.fixture
def server() -> Iterator[Colours]:
    found = Colours()
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def flags_for(server: Colours, prompts: Path) -> list[str]:
    return [
        "--captioner.backend=openai",
        f"--captioner.openai.base_url=http://127.0.0.1:{server.server_address[1]}/v1",
        "--captioner.openai.model=namer",
        f"--prompts={prompts}",
    ]


def test_a_changed_prompt_makes_exactly_its_captions_again(
    dataset: Dataset, server: Colours, tmp_path: Path
) -> None:
    (tmp_path / "short.v1.txt").write_text("first short")
    (tmp_path / "dense.v1.txt").write_text("first dense")
    flags = flags_for(server, tmp_path)
    assert run(dataset, *flags) == 0
    assert server.asked == {"first short": 5, "first dense": 5}
    for clip, colour in KEPT.items():
        assert {
            row["text"]
            for row in rows(dataset)
            if row["clip_id"][:2] == clip and row["captioner"] == "openai"
        } == {f"first short {colour}", f"first dense {colour}"}

    (tmp_path / "short.v2.txt").write_text("second short")
    assert run(dataset, *flags) == 0
    assert server.asked == {"first short": 5, "first dense": 5, "second short": 5}
    shorts = {(row["prompt_id"], row["chosen"]) for row in rows(dataset, "short")}
    assert shorts == {("short.v1", False), ("short.v2", True)}
    assert all(row["chosen"] for row in rows(dataset, "dense"))

    (tmp_path / "short.v2.txt").unlink()  # back to the first: nothing is asked, the old captions are chosen
    assert run(dataset, *flags) == 0
    assert server.asked.total() == 15
    assert {(row["prompt_id"], row["chosen"]) for row in rows(dataset, "short")} == {
        ("short.v1", True),
        ("short.v2", False),
    }


def test_killed_and_run_again_it_loses_at_most_a_batch(
    dataset: Dataset, server: Colours, tmp_path: Path
) -> None:
    (tmp_path / "short.v1.txt").write_text("short")
    (tmp_path / "dense.v1.txt").write_text("dense")
    server.delay_s = 0.3
    flags = [*flags_for(server, tmp_path), "--captioner.batch_clips=1", "--captioner.openai.in_flight=1"]
    command = [
        sys.executable,
        "-m",
        "pipelines.recaption",
        "--dataset",
        dataset.uri,
        "--engine=local",
        *flags,
    ]
    job = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    parts = Path(dataset.path("_state/captions"))
    until = time.monotonic() + 60
    # One part holds the originals; then each clip commits its own.
    while time.monotonic() < until and len(list(parts.glob("*.parquet"))) < 3 and job.poll() is None:
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    asked = server.asked.total()
    assert 4 <= asked < 10
    server.delay_s = 0.0
    assert run(dataset, *flags) == 0
    assert server.asked.total() <= 12  # ten captions, and the batch of one clip that was under way
    found = {
        (row["clip_id"][:2], row["kind"]): row["text"] for row in rows(dataset) if row["kind"] != "original"
    }
    assert found == {
        (clip, kind): f"{kind} {colour}" for clip, colour in KEPT.items() for kind in ("short", "dense")
    }
    assert len(rows(dataset, "original")) == 3
