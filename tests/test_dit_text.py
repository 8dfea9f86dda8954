"""Text encoders, on small random checkpoints that the tests write in the formats of open_clip and the hub."""

from pathlib import Path

import pytest
import torch
from small_text_encoder import open_clip_text_folder, word_tokenizer

from model.errors import BadInput
from model.text import load_text_encoder

TEXTS = ["a small red disc moves left", "a star"]


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_clip_text_folder(tmp_path_factory.mktemp("clip"))


def test_open_clip_features_are_the_towers_own_tokens(open_clip_folder: Path) -> None:
    import open_clip

    encoder = load_text_encoder(str(open_clip_folder))
    features = encoder.encode(TEXTS)
    assert encoder.width == 24
    assert encoder.name == str(open_clip_folder)
    assert [f.shape for f in features] == [(8, 24), (4, 24)]  # <s>, the words, </s>
    tower = open_clip.create_model(f"local-dir:{open_clip_folder}").eval().text
    tower.output_tokens = True
    ids = torch.tensor([[1, 4, 9, 8, 5, 7, 6, 2] + [0] * 8])
    torch.testing.assert_close(features[0], tower(ids)[1][0, :8], atol=1e-5, rtol=1e-5)


def test_features_do_not_depend_on_the_other_texts(open_clip_folder: Path) -> None:
    encoder = load_text_encoder(str(open_clip_folder))
    torch.testing.assert_close(encoder.encode(TEXTS)[1], encoder.encode(TEXTS[1:])[0], atol=1e-5, rtol=1e-5)
    assert encoder.encode([]) == []


@pytest.mark.parametrize("kind", ["t5", "umt5", "clip"])
def test_transformers_encoders(kind: str, tmp_path: Path) -> None:
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        T5Config,
        T5EncoderModel,
        UMT5Config,
        UMT5EncoderModel,
    )

    small = {"vocab_size": 11, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    torch.manual_seed(0)
    if kind == "t5":
        model = T5EncoderModel(T5Config(**small))
    elif kind == "umt5":
        model = UMT5EncoderModel(UMT5Config(**small))
    else:
        model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=11,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=6,
                eos_token_id=2,
                bos_token_id=1,
            )
        )
    model.save_pretrained(tmp_path)
    word_tokenizer(tmp_path)
    encoder = load_text_encoder(str(tmp_path))
    features = encoder.encode(TEXTS)
    longest = 6 if kind == "clip" else 8  # CLIP cuts at its last position
    assert [f.shape for f in features] == [(longest, 16), (4, 16)]
    alone = model.eval()(input_ids=torch.tensor([[1, 4, 10, 2]])).last_hidden_state[0]
    torch.testing.assert_close(features[1], alone, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_loaded_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hf:ORG/NAME"):
        load_text_encoder(str(tmp_path))
    with pytest.raises(BadInput, match="no architecture 'ViT-Z-1'"):
        load_text_encoder("ViT-Z-1/openai")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="bert"):
        load_text_encoder(str(tmp_path))
