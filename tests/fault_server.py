"""An OpenAI-compatible server for tests: real HTTP, captions that tell which frames came, faults to order.

    with FaultServer(share(0.2, ["500", "cut", "html"])) as server:
        captioner = OpenAICaptioner(OpenAIConfig(base_url=server.url, model="tiny"))
        request = CaptionRequest("a", "dense", numbered_frames([7, 8]), (0.0, 1.0), prompt="Describe.")
        captioner.caption([request])[0].text_raw            # "Describe. frames 7 8"
        server.requests, server.peak, server.tokens         # what the server saw

The caption repeats the prompt and reads the numbers that the frames show (numbered_frames.py, which also knows
vLLM's `video_url`), so an answer that went to another clip, a frame that is missing and a wrong order are all seen
in the text. With `response_format` the answer is JSON that fits the schema, with that text in every string.

A plan decides the fate of each request; fault_plans.py lists the faults and makes plans.

As a program it serves until its standard input ends; `GET /seen` tells the counts:

    python tests/fault_server.py --share 0.2 --faults 500,cut --delay 0.1       # prints its base_url
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
from fault_plans import ODD, Ask, Plan, share
from numbered_frames import number_of, pictures, prompt_of, tokens_in


@dataclass
class Seen:
    """What the server counted; read it when nothing is in flight, or under `lock`.

    Attributes:
        asks: every request, in order of arrival.
        by_digest: requests per body.
        connections: TCP connections accepted.
        peak: most requests at once.
        in_flight: requests under way.
        tokens_in: prompt tokens of all answers that were generated, also where they were then cut off.
        tokens_out: generated tokens of the same.
        last_s: when the last answer was ready, on the monotonic clock.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    asks: list[Ask] = field(default_factory=list)
    by_digest: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    peak: int = 0
    in_flight: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    last_s: float | None = None


class FaultServer:
    """Runs from `with` to its end, on a free port of this machine or on `port`."""

    def __init__(self, plan: Plan | None = None, *, delay_s: float = 0.0, port: int = 0) -> None:
        """`plan`: the fate of each request, all well by default. `delay_s`: how long every answer takes.

        Both may be changed at any time.
        """
        self.plan: Plan = plan or (lambda ask: None)
        self.delay_s = delay_s
        self.seen = Seen()
        self.http = _Http(("127.0.0.1", port), _Handler)
        self.http.owner = self

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        """The base_url."""
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        """Requests so far."""
        return len(self.seen.asks)

    @property
    def peak(self) -> int:
        """Most requests that were under way at once."""
        return self.seen.peak

    @property
    def tokens(self) -> int:
        """Tokens of all answers that were generated, prompts included."""
        return self.seen.tokens_in + self.seen.tokens_out

    def times(self, word: str) -> list[float]:
        """When the requests with `word` in their prompt came, on the monotonic clock."""
        return [ask.at_s for ask in self.seen.asks if word in ask.prompt.split()]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    owner: FaultServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: clients that go away in the middle are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def setup(self) -> None:
        super().setup()
        with self.server.owner.seen.lock:
            self.server.owner.seen.connections += 1

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """`/seen`: the counts; `/v1/models`: the models that clients ask for."""
        seen = self.server.owner.seen
        if self.path == "/seen":
            names = ("connections", "peak", "in_flight", "tokens_in", "tokens_out")
            told: dict[str, Any] = {name: getattr(seen, name) for name in names} | {
                "requests": len(seen.asks),
                "first_s": seen.asks[0].at_s if seen.asks else None,
                "last_s": seen.last_s,
            }
        else:
            told = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        seen = self.server.owner.seen
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body, digest = json.loads(data), hashlib.blake2b(data, digest_size=16).hexdigest()
        with seen.lock:
            seen.by_digest[digest] += 1
            key = self.headers.get("Authorization")
            ask = Ask(
                len(seen.asks), seen.by_digest[digest], digest, body, prompt_of(body), time.monotonic(), key
            )
            seen.asks.append(ask)
            seen.in_flight += 1
            seen.peak = max(seen.peak, seen.in_flight)
        counted = True

        def leave() -> None:  # before the answer's last byte: the client may ask again at once
            nonlocal counted
            if counted:
                with seen.lock:
                    seen.in_flight -= 1
                    seen.last_s = time.monotonic()
                counted = False

        try:
            self._answer(ask, leave)
        finally:
            leave()

    def _answer(self, ask: Ask, leave: Callable[[], None]) -> None:
        owner = self.server.owner
        fault, _, detail = (owner.plan(ask) or "").partition(":")
        time.sleep(owner.delay_s + (float(detail) if fault == "slow" else 0.0))
        status, headers, body = self._reply(ask, fault, detail)
        leave()
        if fault == "drop":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "endless":
            while True:  # ends when the client has gone
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        if fault == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def _reply(self, ask: Ask, fault: str, detail: str) -> tuple[int, dict[str, str], bytes]:
        if fault.isdecimal() or fault == "quota":
            headers = {}
            if detail:
                kind, _, seconds = detail.rpartition(":")
                at = formatdate(time.time() + float(seconds), usegmt=True)
                headers["Retry-After"] = at if kind == "date" else seconds
            reason = "insufficient_quota" if fault == "quota" else f"fault {fault}"
            return 429 if fault == "quota" else int(fault), headers, reason.encode()
        if fault == "echo":
            return 401, {}, f"Incorrect API key provided: {ask.key}".encode()
        if fault == "charset":
            return 400, {"Content-Type": "text/plain; charset=unicode_escape"}, b"\\ud83d"
        if fault == "no_schema" and "response_format" in ask.body:
            return 400, {}, b"response_format is not supported"
        if fault == "html":
            return 200, {"Content-Type": "text/html"}, b"<html><body>Please sign in</body></html>"
        if fault == "malformed":
            return 200, {}, b'{"choices": ['
        if fault in ("keyless", "list"):
            return 200, {}, b"[]" if fault == "list" else b'{"object": "error"}'
        try:
            numbers = [number_of(picture) for picture in pictures(ask.body)]
        except (ValueError, cv2.error) as error:
            return 400, {}, str(error).encode()
        return 200, {"Content-Type": "application/json"}, self._caption(ask, fault, detail, numbers)

    def _caption(self, ask: Ask, fault: str, detail: str, numbers: list[int]) -> bytes:
        said = " ".join([ask.prompt, "frames", *map(str, numbers or ["none"])])
        if "response_format" in ask.body:
            said = json.dumps(fitting(ask.body["response_format"]["json_schema"]["schema"], said))
        text: str | None = said
        finish, refusal = "stop", None
        if fault in ("empty", "null", "thinking"):
            text = "" if fault == "empty" else None
            finish = "length" if fault == "thinking" else "stop"
        elif fault in ("refusal", "sorry"):
            told = "I'm sorry, but I cannot describe this."
            text, refusal = (None, told) if fault == "refusal" else (told, None)
        elif fault == "filtered":
            finish = "content_filter"
        elif fault == "loop":
            text, finish = "a red ball and " * (ask.body["max_tokens"] // 4), "length"
        elif fault == "truncated":
            text, finish = said[: len(said) // 2], "length"
        elif fault in ("silent", "say"):
            text = detail or said[: len(said) // 2]
        usage = {
            "prompt_tokens": tokens_in(ask.body, len(numbers)),
            "completion_tokens": len((text or "").split()),
        }
        if fault == "costly":
            usage["prompt_tokens"] *= int(detail)
        seen = self.server.owner.seen
        with seen.lock:
            seen.tokens_in += usage["prompt_tokens"]
            seen.tokens_out += usage["completion_tokens"]
        message = {"role": "assistant", "content": text, "refusal": refusal}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if fault == "silent":
            del choice["finish_reason"]
            usage["completion_tokens"] = ask.body["max_tokens"]
        for part in (choice, message, usage):
            part.update({name: value for name, value in ODD.get(detail, {}).items() if name in part})
        answer: dict[str, Any] = {"choices": [choice]}
        return json.dumps(answer if fault == "no_usage" else answer | {"usage": usage}).encode()


def fitting(schema: dict[str, Any], text: str) -> Any:
    """The smallest value that fits a JSON schema, with `text` in every string."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return fitting(schema[choice][0], text)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: fitting(inner, text) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [fitting(schema.get("items", {}), text)] * max(1, schema.get("minItems", 1))
    plain = {"integer": int(schema.get("minimum", 0)), "number": float(schema.get("minimum", 0))}
    return {**plain, "boolean": True, "null": None}.get(kind or "", text)


@contextmanager
def serving(*flags: str) -> Iterator[str]:
    """The server as a process of its own, which leaves this one's cores alone; gives its base_url."""
    process = subprocess.Popen(
        [sys.executable, __file__, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server that answers badly on demand.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--share", type=float, default=0.0, help="part of the requests that meet a fault")
    parser.add_argument("--faults", default="500", help="names of faults, with commas between")
    parser.add_argument("--times", type=int, default=1, help="how often such a request meets it")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every answer takes")
    flags = parser.parse_args()
    plan = share(flags.share, flags.faults.split(","), times=flags.times)
    with FaultServer(plan, delay_s=flags.delay, port=flags.port) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
