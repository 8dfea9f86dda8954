"""What the openai backend sends: pictures, videos as vLLM reads them, text alone, schemas, temperatures."""

import base64
import json
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from fault_plans import by_word
from fault_server import FaultServer
from numbered_frames import numbered_frames, pictures

from curate.errors import BadInput
from pipelines.cli import parse
from pipelines.recaption import RecaptionConfig
from recaption.captioner import CaptionRequest
from recaption.openai.body import jpeg_url, make_body, mp4
from recaption.openai.config import OpenAIConfig
from recaption.openai.server import OpenAICaptioner

SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["subject", "people"],
    "additionalProperties": False,
}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as found:
        yield found


def config(base_url: str, **changes: object) -> OpenAIConfig:
    return OpenAIConfig(**{"base_url": base_url, "model": "tiny", "backoff_s": 0.01, **changes})  # type: ignore[arg-type]


def sent(request: CaptionRequest, **changes: object) -> dict:
    return json.loads(make_body(request, config("http://a/v1", **changes)).content)


def test_frames_arrive_as_jpeg_in_order() -> None:
    frames = np.zeros((3, 24, 32, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 1] = frames[2, ..., 2] = 255  # red, green, blue
    request = CaptionRequest("a", "dense", frames, (0.0, 0.5, 1.0), prompt="describe", seed=5)
    body = sent(request, max_tokens=99, temperature=0.5)
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 99, 0.5, 5)
    assert "media_io_kwargs" not in body
    *parts, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "describe"}
    for place, part in enumerate(parts):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/jpeg;base64"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (24, 32, 3)
        assert picture[..., ::-1].reshape(-1, 3).mean(0).argmax() == place


def test_jpeg_url_keeps_colours() -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[..., 0] = 200
    data = base64.b64decode(jpeg_url(frame, 95).split(",")[1])
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert abs(back[..., ::-1].astype(int) - frame.astype(int)).max() < 6


@pytest.mark.parametrize("frames_as", ["image_url", "video_jpeg", "video_mp4"])
@pytest.mark.parametrize("size", [8, 60])
def test_every_way_of_sending_brings_all_frames_in_order(
    server: FaultServer, frames_as: str, size: int
) -> None:
    numbers = list(range(1000, 1040))  # more than the 32 that vLLM would take unasked
    times = tuple(n / 4 for n in range(40))
    request = CaptionRequest("a", "dense", numbered_frames(numbers, size), times, prompt="see")
    result = OpenAICaptioner(config(server.url, frames_as=frames_as)).caption([request])[0]
    assert result.text_raw == " ".join(["see", "frames", *map(str, numbers)])
    kinds = [part["type"] for part in server.seen.asks[0].body["messages"][0]["content"]]
    assert kinds == (["image_url"] * 40 if frames_as == "image_url" else ["video_url"]) + ["text"]


def test_vllm_hears_the_frame_rate_and_drops_nothing() -> None:
    request = CaptionRequest("a", "dense", numbered_frames(list(range(40))), tuple(n / 4 for n in range(40)))
    body = sent(request, frames_as="video_jpeg")
    assert body["media_io_kwargs"] == {"video": {"num_frames": 40, "fps": 4.0, "duration": 10.0}}
    del body["media_io_kwargs"]
    assert len(pictures(body)) == 32  # which is what vLLM does if not told
    one = CaptionRequest("a", "dense", numbered_frames([1]), (7.0,))
    assert sent(one, frames_as="video_jpeg")["media_io_kwargs"]["video"]["fps"] == 1.0
    hours = CaptionRequest("a", "dense", numbered_frames([1, 2]), (0.0, 9000.0))
    assert sent(hours, frames_as="video_jpeg")["media_io_kwargs"]["video"]["fps"] == 0.001


def test_an_mp4_of_the_same_frames_is_the_same_bytes_and_may_have_odd_sides() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 33, 47, 3), np.uint8)
    assert mp4(frames, 2) == mp4(frames, 2)  # type: ignore[arg-type]
    request = CaptionRequest("a", "dense", frames, tuple(map(float, range(9))))
    seen = pictures(sent(request, frames_as="video_mp4"))
    assert [picture.shape for picture in seen] == [(34, 48, 3)] * 9


def test_text_alone_and_another_temperature(server: FaultServer) -> None:
    for frames_as in ("image_url", "video_jpeg", "video_mp4"):
        request = CaptionRequest(
            "a", "rewrite", np.zeros((0, 1, 1, 3), np.uint8), (), "say it", temperature=0.9
        )
        captioner = OpenAICaptioner(config(server.url, frames_as=frames_as))
        assert captioner.caption([request])[0].text_raw == "say it frames none"
        body = server.seen.asks[-1].body
        assert body["messages"][0]["content"] == [{"type": "text", "text": "say it"}]
        assert body["temperature"] == 0.9
        assert "media_io_kwargs" not in body


def test_extra_fields_are_added_and_null_takes_fields_away(server: FaultServer) -> None:
    extra = {
        "max_tokens": None,
        "max_completion_tokens": 33,
        "temperature": None,
        "chat_template_kwargs": {"enable_thinking": False, "budget": None},
    }
    request = CaptionRequest("a", "dense", numbered_frames([1]), (0.0,), "see", temperature=0.9)
    plain = sent(request)
    assert OpenAICaptioner(config(server.url, extra=extra)).caption([request])[0].status == "ok"
    body = server.seen.asks[0].body
    assert body == {
        **{name: plain[name] for name in ("model", "messages", "seed")},
        "max_completion_tokens": 33,
        "chat_template_kwargs": {"enable_thinking": False, "budget": None},
    }
    for changed in ({**extra, "max_completion_tokens": 34}, {}):
        one, other = (make_body(request, config("http://a/v1", extra=x)).digest for x in (extra, changed))
        assert one != other
    assert OpenAIConfig(extra=extra).answer_tokens == 33
    assert OpenAIConfig(max_tokens=9).answer_tokens == 9


def test_extra_fields_are_part_of_the_identity_and_none_are_not() -> None:
    sampling = {"temperature": 0.0, "max_tokens": 512, "jpeg_quality": 90}
    assert OpenAIConfig(model="m").identity().sampling == sampling
    extra = {"top_k": 1, "jpeg_quality": 3}
    assert OpenAIConfig(model="m", extra=extra).identity().sampling == sampling | {"extra": extra}
    # A second try at another temperature would be none.
    no_heat = OpenAIConfig(model="m", extra={"temperature": None}).identity().sampling
    assert no_heat == {"max_tokens": 512, "jpeg_quality": 90, "extra": {"temperature": None}}


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"model": "other"}, "must not hold 'model'"),
        ({"stream": True}, "must not hold 'stream'"),
        ({"n": None}, "must not hold 'n'"),
        ({"temperature": 0.3}, "can only leave 'temperature' out"),
        ({"max_completion_tokens": 0}, "max_completion_tokens=0 must be a whole number above 0"),
        ({"max_completion_tokens": True}, "must be a whole number"),
        ({"top_p": float("nan")}, "cannot be sent as JSON"),
        ({"stop": {1, 2}}, "cannot be sent as JSON"),
    ],
)
def test_extra_fields_that_cannot_be_sent_are_refused(extra: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        OpenAIConfig(extra=extra)


def test_extra_fields_come_from_the_command_line() -> None:
    flags = ["--dataset=x", "--captioner.openai.extra={max_tokens: null, max_completion_tokens: 64}"]
    read = parse(RecaptionConfig, flags, name="recaption")
    assert read.captioner.openai.extra == {"max_tokens": None, "max_completion_tokens": 64}


def structured(clip: str, prompt: str = "see") -> CaptionRequest:
    return CaptionRequest(clip, "structured", numbered_frames([5]), (0.0,), prompt=prompt, schema=SCHEMA)


def test_a_schema_asks_for_guided_decoding(server: FaultServer) -> None:
    result = OpenAICaptioner(config(server.url)).caption([structured("a")])[0]
    assert json.loads(result.text_raw or "") == {"subject": "see frames 5", "people": 0}
    assert server.seen.asks[0].body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "structured", "schema": SCHEMA, "strict": True},
    }


def test_a_server_without_guided_decoding_is_asked_without_and_remembered(server: FaultServer) -> None:
    server.plan = lambda ask: "no_schema"
    captioner = OpenAICaptioner(config(server.url, in_flight=1))
    found = captioner.caption([structured("a"), structured("b")])
    assert [result.text_raw for result in found] == ["see frames 5"] * 2
    assert [result.retries for result in found] == [1, 0]
    assert ["response_format" in ask.body for ask in server.seen.asks] == [True, False, False]


def test_a_400_for_another_reason_is_not_taken_for_missing_guidance(server: FaultServer) -> None:
    server.plan = by_word({"broken": "400"})
    captioner = OpenAICaptioner(config(server.url, in_flight=1))
    bad, good = captioner.caption([structured("a", "broken"), structured("b")])
    assert bad.status == "error"
    assert "HTTP 400" in (bad.error or "")
    assert json.loads(good.text_raw or "")["subject"] == "see frames 5"
