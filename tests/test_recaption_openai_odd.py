"""Odd answers and odd frames: every one is a row of the captions table, and no other row suffers from it."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from fault_plans import ODD, by_word
from fault_server import FaultServer
from numbered_frames import numbered_frames

from curate.tables import CAPTIONS
from recaption.captioner import COUNT_MAX, CaptionerIdentity, CaptionRequest, CaptionResult, whole
from recaption.openai.config import OpenAIConfig
from recaption.openai.server import OpenAICaptioner
from recaption.prompts import Prompt
from recaption.rows import ClipSpan, Plan, caption_row


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as found:
        yield found


def caption(
    server: FaultServer, requests: list[CaptionRequest], **changes: object
) -> dict[str, CaptionResult]:
    settings = {"base_url": server.url, "model": "tiny", "retries": 1, "backoff_s": 0.01, **changes}
    results = OpenAICaptioner(OpenAIConfig(**settings)).caption(requests)  # type: ignore[arg-type]
    assert sorted(r.key for r in results) == sorted(r.key for r in requests)
    return {result.clip_id: result for result in results}


def request(clip_id: str, **changes: object) -> CaptionRequest:
    asked = {"frames": numbered_frames([1]), "frame_times_s": (0.0,), "prompt": f"about {clip_id}", **changes}
    return CaptionRequest(clip_id, "dense", **asked)  # type: ignore[arg-type]


def row(result: CaptionResult) -> dict:
    """As it comes back from the table."""
    span, identity = ClipSpan(result.clip_id, 0.0, 1.0), CaptionerIdentity("openai", "tiny")
    plan = Plan(span, "dense", identity, Prompt("dense.v1", "Describe."), (0.0,), 8, seed=0)
    made = caption_row(plan, result, frame_times_s=[0.0], run_id="r")
    return pa.Table.from_pylist([made], schema=CAPTIONS).to_pylist()[0]


# Answers ------------------------------------------------------------------------------------------------


def test_odd_answers_are_rows_of_their_own(server: FaultServer) -> None:
    server.plan = by_word({name: f"odd:{name}" for name in ODD})
    found = caption(server, [request(name) for name in ["fine", *ODD]])
    rows = {name: row(result) for name, result in found.items()}
    well = ["fine", "no_reason", "finish_number", "finish_object", "refusal_list", "vast", "yes"]
    for name in well:
        assert (rows[name]["status"], rows[name]["text_raw"]) == ("ok", f"about {name} frames 1"), name
    assert rows["half_emoji"]["text_raw"] == "a cat \ufffd sits here"
    assert rows["half_emoji"]["status"] == "ok"
    assert rows["finish_number"]["finish_reason"] is rows["finish_object"]["finish_reason"] is None
    assert rows["parts"]["status"] == "error"
    assert (rows["parts_filtered"]["status"], rows["parts_filtered"]["text_raw"]) == ("refused", None)
    for name in ("vast", "yes"):
        assert (rows[name]["tokens_in"], rows[name]["tokens_out"]) == (None, None)


def test_an_encoding_that_is_no_text_is_not_believed(server: FaultServer) -> None:
    server.plan = lambda ask: "charset" if "odd" in ask.prompt else None
    found = caption(server, [request("odd"), request("fine")])
    assert found["fine"].status == "ok"
    assert "HTTP 400 Bad Request: \\ud83d" in (found["odd"].error or "")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("text_raw", ["a", "cat"], "text_raw=['a', 'cat']"),
        ("finish_reason", {"type": "stop"}, "finish_reason={'type': 'stop'}"),
        ("error", 404, "error=404"),
        ("tokens_in", 2**40, "tokens_in=1099511627776"),
        ("tokens_out", -1, "tokens_out=-1"),
        ("retries", 1.5, "retries=1.5"),
        ("latency_ms", float("nan"), "latency_ms=nan"),
        ("cost_usd", "free", "cost_usd='free'"),
    ],
)
def test_whatever_a_row_cannot_hold_is_an_error_row(field: str, value: object, told: str) -> None:
    fields = {"text_raw": "a cat sits on a mat", "tokens_in": 3, field: value}
    result = CaptionResult("c", "dense", "ok", **fields)  # type: ignore[arg-type]
    found = row(result)
    assert (found["status"], found["text"]) == ("error", None)
    assert told in found["error"]


def test_halves_of_characters_are_replaced_and_whole_ones_stay() -> None:
    assert whole("a \ud83d\ude00 b \ud83d") == "a \U0001f600 b \ufffd"
    assert whole("\ufeffa \U0001f600 \x00 \u00e9") == "\ufeffa \U0001f600 \x00 \u00e9"
    odd = CaptionResult("c", "dense", "error", error="said \udc80", finish_reason="\ud800")
    assert (row(odd)["error"], row(odd)["finish_reason"]) == ("said \ufffd", "\ufffd")
    two = CaptionResult("c", "dense", "ok", "a cat", tokens_in=COUNT_MAX)
    assert (two.status, two.tokens_in) == ("ok", COUNT_MAX)
    pa.array([2 * COUNT_MAX], pa.int32())  # a second try's are added


def test_a_cut_answer_without_a_reason_is_not_taken_for_whole(server: FaultServer) -> None:
    server.plan = by_word({"cut": "silent", "none": "odd:no_reason", "model": "odd:cut_by_model"})
    asked = [request(name) for name in ("cut", "none", "model", "fine")]
    found = caption(server, asked, max_tokens=5)  # the answers have 4
    assert {name: result.status for name, result in found.items()} == {
        "cut": "truncated", "none": "ok", "model": "truncated", "fine": "ok",
    }  # fmt: skip
    assert (found["cut"].finish_reason, found["cut"].tokens_out) == (None, 5)
    assert caption(server, [request("none")], max_tokens=4)["none"].status == "truncated"
    limit = {"max_tokens": None, "max_completion_tokens": 4}
    assert caption(server, [request("none")], extra=limit)["none"].status == "truncated"


# Frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames_as", "changes", "told"),
    [
        ("image_url", {"frames": np.zeros((1, 1, 70_000, 3), np.uint8)}, "cannot be a JPEG"),
        ("image_url", {"frames": [np.zeros((8, 8, 3), np.uint8)], "prompt": b"odd"}, "TypeError"),
        ("image_url", {"frames": None}, "TypeError"),
        ("image_url", {"schema": {1: {2, 3}}}, "TypeError"),
        ("video_mp4", {"frames": np.zeros((2, 2, 20_000, 3), np.uint8)}, "cannot be an H.264 file"),
        (
            "video_jpeg",
            {"frames": numbered_frames([1, 2]), "frame_times_s": (0.0, 5e-324)},
            "OverflowError",
        ),
    ],
)
def test_frames_that_cannot_be_sent_fail_alone(
    server: FaultServer, frames_as: str, changes: dict, told: str
) -> None:
    bad = request("bad", **({"frame_times_s": (0.0, 1.0)} | changes))
    found = caption(server, [request("first"), bad, request("last")], frames_as=frames_as)
    assert (found["first"].status, found["last"].status) == ("ok", "ok")
    assert found["bad"].status == "error"
    assert told in (found["bad"].error or "")
