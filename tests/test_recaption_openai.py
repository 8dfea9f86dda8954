"""The openai backend against a real HTTP server that answers well, badly, late and not at all."""

import base64
import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from curate.errors import BadInput
from recaption.captioner import CaptionRequest, CaptionResult
from recaption.openai_config import OpenAIConfig
from recaption.openai_server import OpenAICaptioner, jpeg_url, retry_after_s


class FaultServer(ThreadingHTTPServer):
    """Answers by the word after `clip` in the prompt; counts requests and those in flight."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.in_flight = self.peak = 0
        self.bodies: dict[str, dict] = {}
        self.keys: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def caption(self, text: str | None, finish: str = "stop") -> None:
        usage = {"prompt_tokens": 11, "completion_tokens": 7}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.answer(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        clip = re.search(r"clip (\S+)", body["messages"][0]["content"][-1]["text"])[1]  # type: ignore[index]
        with self.server.lock:
            self.server.asked[clip] += 1
            self.server.times.setdefault(clip, []).append(time.monotonic())
            self.server.in_flight += 1
            self.server.peak = max(self.server.peak, self.server.in_flight)
            self.server.bodies[clip] = body
            self.server.keys.add(self.headers.get("Authorization"))
        try:
            self.act(clip, self.server.asked[clip] == 1)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def act(self, clip: str, first: bool) -> None:
        what = clip.split("-")[0]
        if what == "late":  # the later asked, the sooner answered
            time.sleep(0.05 + 0.15 * (1 - int(clip.split("-")[1]) / 50))
        if what == "busy" and first:
            return self.answer(429, b'{"error": "slow down"}', Retry_After="0.3")
        if what == "down" and first:
            return self.answer(500, b"oh no")
        if what == "gone":
            return self.answer(503, b"the engine is dead")
        if what == "wrong":
            return self.answer(400, b'{"error": "Incorrect API key provided: sekret-9"}')
        if what == "garbled" and first:
            return self.answer(200, b'{"choices": [')
        if what == "keyless" and first:
            return self.answer(200, b'{"object": "error"}')
        if what == "list" and first:
            return self.answer(200, b"[]")
        if what == "cut" and first:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')
            self.close_connection = True
            return None
        if what == "slow" and first:
            time.sleep(1.2)
        if what == "empty":
            return self.caption("" if first else f"about {clip}")
        if what == "null":
            return self.caption(None)
        if what == "long":
            return self.caption(f"about {clip}. And then it", "length")
        if what == "filtered":
            return self.caption(f"no word on {clip}", "content_filter")
        return self.caption(f"about {clip}")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    found = FaultServer()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def ask(server: FaultServer, clips: list[str], **changes: object) -> dict[str, CaptionResult]:
    config = OpenAIConfig(
        **{  # type: ignore[arg-type]
            "base_url": server.url,
            "model": "tiny",
            "timeout_s": 0.6,
            "retries": 2,
            "backoff_s": 0.01,
            **changes,
        }
    )
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    requests = [
        CaptionRequest(clip, "dense", frames, (0.0, 1.0), prompt=f"describe clip {clip}") for clip in clips
    ]
    results = OpenAICaptioner(config).caption(requests)
    assert sorted(result.clip_id for result in results) == sorted(clips)  # nothing lost, nothing twice
    return {result.clip_id: result for result in results}


def test_every_fault_ends_as_the_right_result(server: FaultServer) -> None:
    mended = ["busy-1", "down-1", "garbled-1", "keyless-1", "list-1", "cut-1", "slow-1", "empty-1"]
    found = ask(server, ["fine-1", *mended, "gone-1", "wrong-1", "null-1", "long-1", "filtered-1"])
    for clip in ["fine-1", *mended]:
        assert (found[clip].status, found[clip].text_raw, found[clip].error) == ("ok", f"about {clip}", None)
        assert found[clip].retries == (clip != "fine-1"), clip
    assert (found["fine-1"].tokens_in, found["fine-1"].tokens_out) == (11, 7)
    assert found["gone-1"].status == "error"
    assert found["gone-1"].retries == 2
    assert found["gone-1"].error is not None
    assert found["gone-1"].error.splitlines() == [
        f"try {n}: HTTP 503 Service Unavailable: the engine is dead" for n in (1, 2, 3)
    ]
    assert (found["wrong-1"].status, found["wrong-1"].retries) == ("error", 0)
    assert found["null-1"].status == "error"
    assert "empty answer (finish_reason 'stop')" in (found["null-1"].error or "")
    assert (found["long-1"].status, found["long-1"].finish_reason) == ("truncated", "length")
    assert (found["filtered-1"].status, found["filtered-1"].text_raw) == ("refused", "no word on filtered-1")
    assert server.asked["wrong-1"] == 1
    assert server.asked["gone-1"] == 3


def test_answers_in_any_order_stay_with_their_clip_and_run_together(server: FaultServer) -> None:
    clips = [f"late-{n}" for n in range(50)]
    began = time.monotonic()
    found = ask(server, clips, in_flight=10)
    took = time.monotonic() - began
    assert {clip: found[clip].text_raw for clip in clips} == {clip: f"about {clip}" for clip in clips}
    assert server.peak == 10
    assert took < 3.0  # one after another they would take 6.3 s


def test_retry_after_is_waited_for(server: FaultServer) -> None:
    found = ask(server, ["busy-1"])
    first, second = server.times["busy-1"]
    assert 0.3 <= second - first < 1.0
    assert found["busy-1"].latency_ms is not None
    assert found["busy-1"].latency_ms >= 300


def test_retry_after_reads_seconds_and_dates() -> None:
    assert retry_after_s("2.5") == 2.5
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None
    assert retry_after_s("-3") == 0.0
    in_a_minute = retry_after_s(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 57 < in_a_minute <= 60


def test_key_comes_from_the_environment_and_is_never_told(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("REELMILL_API_KEY", "sekret-9")
    with caplog.at_level(logging.DEBUG):
        found = ask(server, ["wrong-1", "down-1"])
    assert server.keys == {"Bearer sekret-9"}
    assert found["wrong-1"].error == 'HTTP 400 Bad Request: {"error": "Incorrect API key provided: ***"}'
    assert "sekret" not in caplog.text


def test_no_server_is_an_error_per_row(server: FaultServer) -> None:
    found = ask(server, ["a", "b"], base_url="http://127.0.0.1:9/v1", retries=1)
    for result in found.values():
        assert result.status == "error"
        assert (result.error or "").count("ConnectError") == 2
    for result in ask(server, ["a", "b"], base_url="nowhere").values():
        assert "UnsupportedProtocol" in (result.error or "")


def test_frames_arrive_as_jpeg_in_order(server: FaultServer) -> None:
    frames = np.zeros((3, 24, 32, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 1] = frames[2, ..., 2] = 255  # red, green, blue
    config = OpenAIConfig(base_url=server.url, model="tiny", max_tokens=99, temperature=0.5)
    request = CaptionRequest(
        "fine-7", "dense", frames, (0.0, 0.5, 1.0), prompt="describe clip fine-7", seed=5
    )
    OpenAICaptioner(config).caption([request])
    body = server.bodies["fine-7"]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 99, 0.5, 5)
    *pictures, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "describe clip fine-7"}
    for place, part in enumerate(pictures):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/jpeg;base64"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (24, 32, 3)
        assert picture[..., ::-1].reshape(-1, 3).mean(0).argmax() == place


def test_a_bad_frame_is_an_error_of_its_own_row(server: FaultServer) -> None:
    good = CaptionRequest("fine-1", "dense", np.zeros((1, 8, 8, 3), np.uint8), (0.0,), prompt="clip fine-1")
    bad = CaptionRequest("fine-2", "dense", np.zeros((1, 8, 8), np.uint8), (0.0,), prompt="clip fine-2")
    config = OpenAIConfig(base_url=server.url, model="tiny")
    found = {result.clip_id: result for result in OpenAICaptioner(config).caption([good, bad])}
    assert found["fine-1"].status == "ok"
    assert "must be (H, W, 3) uint8, not (8, 8) uint8" in (found["fine-2"].error or "")


def test_jpeg_url_keeps_colours() -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[..., 0] = 200
    data = base64.b64decode(jpeg_url(frame, 95).split(",")[1])
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert abs(back[..., ::-1].astype(int) - frame.astype(int)).max() < 6


def test_a_model_must_be_named() -> None:
    with pytest.raises(BadInput, match=r"captioner\.openai\.model"):
        OpenAIConfig().identity()


def test_identity_knows_the_sampling_but_not_the_address() -> None:
    here = OpenAIConfig(base_url="http://a/v1", model="m").identity()
    assert here == OpenAIConfig(base_url="http://b/v1", model="m", in_flight=2).identity()
    assert here != OpenAIConfig(model="m", temperature=0.7).identity()
