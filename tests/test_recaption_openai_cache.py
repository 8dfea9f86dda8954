"""The cache of the openai backend: the second run asks nothing, whatever changes words is asked again."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fault_plans import by_word
from fault_server import FaultServer
from numbered_frames import numbered_frames

from curate.errors import BadInput
from recaption.captioner import CaptionRequest
from recaption.openai.answer import Answer
from recaption.openai.answer_cache import AnswerCache
from recaption.openai.body import make_body
from recaption.openai.config import Budget, OpenAIConfig
from recaption.openai.server import OpenAICaptioner
from recaption.structured import SCHEMA


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as found:
        yield found


def captioner(server: FaultServer, cache: object, **changes: object) -> OpenAICaptioner:
    settings = {"base_url": server.url, "model": "tiny", "retries": 1, "backoff_s": 0.01, "cache": str(cache)}
    return OpenAICaptioner(OpenAIConfig(**{**settings, **changes}))  # type: ignore[arg-type]


def request(n: int, prompt: str = "see") -> CaptionRequest:
    return CaptionRequest(f"clip-{n}", "dense", numbered_frames([n]), (0.0,), prompt=prompt)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def test_a_second_run_sends_nothing_and_says_the_same(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELMILL_API_KEY", "sekret-1")
    budget = Budget(usd_per_million_in=1.0, usd_per_million_out=1.0)
    first = captioner(server, tmp_path / "cache", budget=budget).caption([request(n) for n in range(20)])
    assert server.requests == 20
    monkeypatch.setenv("REELMILL_API_KEY", "sekret-2")
    # Another address, key and limits: the same captions. A budget of nothing: they are free.
    with FaultServer() as elsewhere:
        spent = replace(budget, max_tokens_total=1)
        asking = captioner(elsewhere, tmp_path / "cache", budget=spent, in_flight=3)
        again = asking.caption([request(n) for n in reversed(range(20))])
        assert elsewhere.requests == 0
    assert asking.used.total == 0
    assert {r.cost_usd for r in again} == {0.0}
    assert {r.latency_ms for r in again} == {None}  # nobody was waited for: a mean must not take it for speed
    assert all(r.latency_ms for r in first)
    now = {"latency_ms": None, "cost_usd": None}
    assert [replace(r, **now) for r in reversed(again)] == [replace(r, **now) for r in first]  # type: ignore[arg-type]
    kept = b"".join(path.read_bytes() for path in entries(tmp_path))
    assert b"sekret" not in kept
    assert server.url.encode() not in kept


def test_whatever_may_change_the_words_is_asked_again(server: FaultServer, tmp_path: Path) -> None:
    base = request(1)
    changed = [
        base,
        replace(base, prompt="look"),
        replace(base, seed=1),
        replace(base, temperature=0.5),
        replace(base, schema={"type": "object", "properties": {"subject": {"type": "string"}}}),
        replace(base, frames=numbered_frames([2])),
        replace(base, frames=numbered_frames([1, 1]), frame_times_s=(0.0, 1.0)),
    ]
    settings = [{}, {"model": "other"}, {"revision": "r2"}, {"max_tokens": 9}, {"jpeg_quality": 50}]
    for asked in (12, 12):  # all are different, and all are kept
        for one in changed:
            captioner(server, tmp_path).caption([one])
        for setting in [*settings[1:], {"frames_as": "video_jpeg"}]:
            captioner(server, tmp_path, **setting).caption([base])
        assert server.requests == len(entries(tmp_path)) == asked
    captioner(server, tmp_path).caption([replace(base, clip_id="another", window=3)])
    assert server.requests == 12  # the same frames and words under another name


def test_only_good_answers_are_kept(server: FaultServer, tmp_path: Path) -> None:
    faults = ["refusal", "filtered", "truncated", "loop", "empty", "html", "500", "400", "thinking"]
    server.plan = by_word({fault: fault for fault in faults})
    captioner(server, tmp_path).caption([request(n, fault) for n, fault in enumerate(faults)])
    assert entries(tmp_path) == []


GERMAN = "Ein roter Ball rollt langsam nach links über die graue Wiese, bleibt liegen und wird nass."
LOOP = "A red ball rolls to the left. " * 20
JSON_THAT_FITS_NOT = '{"subject": 3}'


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("dense", "I'm sorry, but I cannot describe this."),
        ("dense", GERMAN),
        ("dense", LOOP),
        ("structured", JSON_THAT_FITS_NOT),
        ("structured", "I'm sorry, but I cannot describe this."),
    ],
)
def test_what_no_caption_comes_of_is_asked_again(
    server: FaultServer, tmp_path: Path, kind: str, answer: str
) -> None:
    asked = replace(request(1), kind=kind, schema=SCHEMA if kind == "structured" else None)
    server.plan = lambda ask: f"say:{answer}"
    assert captioner(server, tmp_path).caption([asked])[0].text_raw == answer
    server.plan = lambda ask: None
    good = captioner(server, tmp_path).caption([asked])[0].text_raw
    assert (server.requests, "see frames 1" in (good or "")) == (2, True)
    assert captioner(server, tmp_path).caption([asked])[0].text_raw == good
    assert server.requests == 2


def test_german_is_kept_where_german_was_asked_for(server: FaultServer, tmp_path: Path) -> None:
    server.plan = lambda ask: f"say:{GERMAN}"
    for _ in range(2):
        asking = captioner(server, tmp_path)
        assert asking.caption([replace(request(1), lang="de")])[0].text_raw == GERMAN
    assert server.requests == 1


def test_what_was_kept_under_older_rules_and_is_no_caption_today_is_asked_again(
    server: FaultServer, tmp_path: Path
) -> None:
    asking = captioner(server, tmp_path)
    digest = make_body(request(1), asking.config).digest
    AnswerCache(str(tmp_path)).put(digest, Answer("ok", "I'm sorry, but I cannot describe this."))
    assert asking.caption([request(1)])[0].text_raw == "see frames 1"
    assert server.requests == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[1, 2]",
        lambda data: b'"text"',
        lambda data: b"{}",
        lambda data: data.replace(b"see frames 1", b"see frames 2"),
        lambda data: data.replace(b'"ok"', b'"no"'),
        lambda data: data.replace(b'"text"', b'"tuxt"'),
    ],
)
def test_a_damaged_entry_is_a_miss_and_is_mended(server: FaultServer, tmp_path: Path, damage: object) -> None:
    captioner(server, tmp_path).caption([request(1)])
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    assert path.read_bytes() != whole
    assert captioner(server, tmp_path).caption([request(1)])[0].text_raw == "see frames 1"
    assert server.requests == 2
    assert path.read_bytes() == whole


def test_an_entry_under_another_name_is_a_miss(tmp_path: Path) -> None:
    cache = AnswerCache(str(tmp_path))
    cache.put("aa11", Answer("ok", "a cat"))
    (tmp_path / "bb").mkdir()
    (tmp_path / "bb/bb22.json").write_bytes((tmp_path / "aa/aa11.json").read_bytes())
    (tmp_path / "cc/cc33.json").mkdir(parents=True)
    assert cache.get("aa11") == Answer("ok", "a cat")
    assert [cache.get(name) for name in ("bb22", "cc33", "dd44")] == [None] * 3
    cache.put("cc33", Answer("ok", "a dog"))  # a folder is in its place
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "aa11.json",
        "bb22.json",
        "probe",
    }


def test_entries_appear_whole_under_many_writers(tmp_path: Path) -> None:
    answer = Answer("ok", "word " * 20_000)
    cache = AnswerCache(str(tmp_path))
    cache.put("aa11", answer)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            cache.put("aa11", answer)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        read = [cache.get("aa11") for _ in range(200)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert set(read) == {answer}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["aa11.json", "probe"]


def test_any_fsspec_address_will_do(server: FaultServer) -> None:
    for asked in (1, 1):
        captioner(server, "memory://answers/here").caption([request(1)])
        assert server.requests == asked
    assert len(fsspec.filesystem("memory").find("/answers/here")) == 2  # and the probe


def test_a_cache_that_cannot_be_written_is_told_at_once_or_costs_a_warning(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be written.*captioner\.openai\.cache"):
        captioner(server, tmp_path / "file")
    with pytest.raises(BadInput, match="cannot be written"):
        captioner(server, "nosuch://answers")
    asking = captioner(server, tmp_path / "cache")
    (tmp_path / "cache/probe").unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("in the way")
    assert {r.status for r in asking.caption([request(n) for n in range(3)])} == {"ok"}
    assert caplog.text.count("the answer cache cannot be written") == 1


def test_threads_that_fail_together_warn_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = AnswerCache(str(tmp_path / "cache"))
    together = threading.Barrier(4)

    def refused(name: str, data: bytes) -> None:
        together.wait()
        raise OSError("in the way")

    monkeypatch.setattr(cache, "_write", refused)
    answer = Answer("ok", "a cat")
    slow = logging.Handler()
    slow.emit = lambda record: time.sleep(0.05)  # type: ignore[method-assign]
    log = logging.getLogger("recaption.openai.answer_cache")
    log.addHandler(slow)
    try:
        threads = [threading.Thread(target=cache.put, args=(f"aa{n}", answer)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        log.removeHandler(slow)
    assert caplog.text.count("the answer cache cannot be written") == 1
