"""Prompts to features: a few at a time, and what the encoder does not read is told."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_text_encoder import open_clip_text_folder
from torch import Tensor

from model.text import TextEncoder, TransformersText, load_text_encoder
from model.text_joint import JointText
from pipelines.sample_text import encode_prompts, tokens


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """It reads 16 tokens: <s>, 14 words, </s>."""
    return load_text_encoder(str(open_clip_text_folder(tmp_path_factory.mktemp("text"))))


def test_tokens_that_are_dropped_are_counted(encoder: TextEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    assert tokens(encoder, "a red disc") == (5, 16)
    whole = "red " * 14
    encode_prompts(encoder, [whole])
    assert capfd.readouterr().err == ""
    (found,) = encode_prompts(encoder, [f"{whole} star left small"])
    assert len(found) == 16
    assert capfd.readouterr().err == (
        "warning: the prompt 'red red red red red red red red red red ...' has 19 tokens, of which the text encoder "
        "reads 16: the last 3 are dropped.\n"
    )
    # One that is asked for several times is told of once, and of many the first few.
    encode_prompts(encoder, [f"{whole} {'star ' * n}" for n in (1, 1, 2, 3, 4, 5)])
    told = capfd.readouterr().err.splitlines()
    assert [line.partition("has ")[2][:9] for line in told[:3]] == ["17 tokens", "18 tokens", "19 tokens"]
    assert told[3:] == ["warning: 5 prompts are too long for the text encoder."]


def test_each_encoder_has_a_length_of_its_own(
    encoder: TextEncoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    shape = T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    folder = Path(encoder.name)
    t5 = TransformersText(T5EncoderModel(shape), AutoTokenizer.from_pretrained(folder), "t5", max_tokens=18)
    encode_prompts(JointText([encoder, t5]), ["red " * 15])
    (line,) = capfd.readouterr().err.splitlines()
    assert "has 17 tokens, of which the text encoder reads 16" in line
    encode_prompts(JointText([encoder, t5]), ["red " * 18])
    assert [line.partition("reads ")[2] for line in capfd.readouterr().err.splitlines()] == [
        "16: the last 4 are dropped.",
        "18: the last 2 are dropped.",
    ]


def test_many_prompts_are_encoded_a_few_at_a_time(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["red " * (1 + n % 7) for n in range(150)]
    sizes: list[int] = []
    encode = encoder.encode

    def counting(texts: list[str]) -> list[Tensor]:
        sizes.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(encoder, "encode", counting)
    found = encode_prompts(encoder, prompts)
    assert sizes == [64, 64, 22]
    for prompt, features in zip(prompts, found, strict=True):
        torch.testing.assert_close(features, encode([prompt])[0], atol=1e-5, rtol=0)
    assert encode_prompts(encoder, []) == []


def test_tokens_of_clip_are_those_of_its_own_tokenizer() -> None:
    """Which adds the first and the last one."""
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleNamespace(tokenizer=SimpleTokenizer())
    for text in ("a red disc", "unbelievably, it moves!"):
        ids = clip.tokenizer([text])[0]
        assert tokens(clip, text) == (int((ids > 0).sum()), 77)  # type: ignore[arg-type]
    count, most = tokens(clip, "red " * 100)  # type: ignore[arg-type, misc]
    assert (count, most) == (102, 77)
