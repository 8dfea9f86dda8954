"""Text encoders by their names on the hub: what a download leaves behind is found, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_text_encoder import word_tokenizer

from model.errors import BadInput
from model.text import load_text_encoder
from pipelines.text_place import text_place

TEXTS = ["a small red disc moves left", "a star"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random T5 encoder as transformers saves it."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    small: dict[str, Any] = {
        "vocab_size": 11,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    }
    T5EncoderModel(T5Config(**small)).save_pretrained(tmp_path / "t5")
    word_tokenizer(tmp_path / "t5")
    return tmp_path / "t5"


def test_a_name_on_the_hub_is_the_encoder_that_was_downloaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    there = tmp_path / "hub" / "models--some--encoder"
    shutil.copytree(folder, there / "snapshots" / ("0" * 40))
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    expected = load_text_encoder(str(folder)).encode(TEXTS)
    encoder = load_text_encoder("hf:some/encoder")
    assert (encoder.name, encoder.width, encoder.causal) == ("hf:some/encoder", 16, False)
    for found, features in zip(encoder.encode(TEXTS), expected, strict=True):
        assert torch.equal(found, features)

    # Beside the 128 features of another; what was never downloaded is told of.
    assert load_text_encoder(text_place("hf:some/encoder,embedded")).width == 16 + 128
    with pytest.raises(BadInput, match=r"(?s)'hf:some/other' could not be .*without the hub, give a folder"):
        load_text_encoder("hf:some/other")
