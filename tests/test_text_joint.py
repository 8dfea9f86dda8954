"""Several text encoders as one, on small random checkpoints, from captions to the transformer and through `encode`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shards import film, write_shards
from small_text_encoder import open_clip_text_folder, word_tokenizer

from model.config import DiTConfig
from model.dit import DiT
from model.errors import BadInput
from model.text import TextEncoder, encoder_names, load_text_encoder
from model.vae import VAEConfig, VideoVAE, save_vae
from pipelines.encode import main
from pipelines.encode_plan import fingerprint
from pipelines.encode_text import caption_features
from pipelines.text_place import text_id, text_place
from train.blend import CaptionBlend, draw_caption
from train.caption_features import outline, shown
from train.data import LatentDataset

TEXTS = ["a small red disc moves left", "a star"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random encoder of each kind, of 24, 16 and 8 features."""
    from transformers import CLIPTextConfig, CLIPTextModel, UMT5Config, UMT5EncoderModel

    root = tmp_path_factory.mktemp("encoders")
    open_clip_text_folder(root / "open_clip")
    torch.manual_seed(0)
    small = {"vocab_size": 11, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPTextConfig(hidden_size=16, intermediate_size=32, eos_token_id=2, bos_token_id=1, **small)
    CLIPTextModel(clip).save_pretrained(root / "clip")
    t5 = UMT5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    UMT5EncoderModel(t5).save_pretrained(root / "umt5")
    for name in ("clip", "umt5"):
        word_tokenizer(root / name)
    return {name: str(root / name) for name in ("open_clip", "clip", "umt5")}


@pytest.fixture(scope="module")
def joint(folders: dict[str, str]) -> TextEncoder:
    return load_text_encoder(",".join(folders.values()))


def test_each_encoder_has_tokens_and_columns_of_its_own(joint: TextEncoder, folders: dict[str, str]) -> None:
    assert joint.width == 24 + 16 + 8
    assert joint.name == ",".join(folders.values())
    alone = [load_text_encoder(folder).encode(TEXTS) for folder in folders.values()]
    for number, features in enumerate(joint.encode(TEXTS)):
        expected = torch.block_diag(*(found[number] for found in alone))  # tokens and columns both in order
        torch.testing.assert_close(features, expected)
    assert [features.shape[0] for features in joint.encode(TEXTS)] == [3 * 8, 3 * 4]
    assert joint.encode([]) == []


def test_a_list_is_the_same_and_one_name_is_no_joint_encoder(
    joint: TextEncoder, folders: dict[str, str], tmp_path: Path
) -> None:
    listed = load_text_encoder(list(folders.values()))
    assert torch.equal(listed.encode(TEXTS)[0], joint.encode(TEXTS)[0])
    assert load_text_encoder([folders["clip"]]).width == 16
    assert encoder_names("hf:google/umt5-xxl, ViT-L-14/openai") == ["hf:google/umt5-xxl", "ViT-L-14/openai"]
    with_comma = open_clip_text_folder(tmp_path / "one,two")
    assert encoder_names(str(with_comma)) == [str(with_comma)]
    with pytest.raises(BadInput, match="a name is empty"):
        load_text_encoder("ViT-L-14/openai,")
    with pytest.raises(BadInput, match="no architecture 'ViT-Z-1'"):
        load_text_encoder(f"{folders['clip']},ViT-Z-1/openai")


def test_the_transformer_projects_each_encoder_by_weights_of_its_own(joint: TextEncoder) -> None:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(text_width=joint.width))
    first = dit.text_in[0]
    assert isinstance(first, torch.nn.Linear)
    features = joint.encode(TEXTS)[0]  # (3 * 8, 48)
    before = dit.text_in(features)
    with torch.no_grad():
        first.weight[:, 24:40] = 0  # what reads CLIP
    changed = (dit.text_in(features) - before).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [False] * 8 + [True] * 8 + [False] * 8
    assert dit.null_text.shape == (48,)


def test_captions_of_several_encoders_are_never_cut(folders: dict[str, str]) -> None:
    clip = {"dense": "A disc. It moves. A star.", "structured": {"subject": "a star"}}
    both_causal = load_text_encoder([folders["open_clip"], folders["clip"]])
    assert load_text_encoder(folders["open_clip"]).causal
    assert load_text_encoder(folders["clip"]).causal
    assert not both_causal.causal
    (texts,) = caption_features(both_causal, [clip])
    assert set(texts) == {"dense", "structured/subject"}
    assert outline(texts) == {"dense": 1, "structured": ("subject",)}
    always = CaptionBlend(cut_share=1, drop_share=0, short=0, structured=0, original=0)
    choice = draw_caption(outline(texts), seed=0, clip_id="aa", epoch=0, config=always)
    whole = both_causal.encode(["A disc. It moves. A star."])[0]
    torch.testing.assert_close(shown(texts, choice), whole)


def test_the_id_changes_with_each_of_the_encoders(folders: dict[str, str], tmp_path: Path) -> None:
    other = str(open_clip_text_folder(tmp_path / "other", seed=1))
    both = text_place(f"{folders['open_clip']},{folders['clip']}")
    assert text_id(both) == f"{fingerprint(folders['open_clip'])},{fingerprint(folders['clip'])}"
    assert text_id(f"{other},{folders['clip']}") != text_id(both)
    assert text_id(f"{folders['clip']},{folders['open_clip']}") != text_id(both)
    assert text_id(folders["clip"]) == fingerprint(folders["clip"])
    coca, t5 = text_place("embedded, hf:google/umt5-xxl").split(",")
    assert (Path(coca) / "open_clip_config.json").is_file()
    assert t5 == "hf:google/umt5-xxl"


def test_encode_writes_the_features_of_all_and_says_so(
    joint: TextEncoder, folders: dict[str, str], tmp_path: Path
) -> None:
    told = {"kind": "dense", "text": TEXTS[0]}
    clip = film(tmp_path, "a" * 16, np.full((5, 32, 32, 3), 90, np.uint8), 8, told)
    dataset = write_shards(tmp_path / "dataset", [[clip]])
    torch.manual_seed(0)
    save_vae(VideoVAE(VAEConfig(widths=(8, 8, 8))), tmp_path / "vae")
    names = ",".join(folders.values())
    flags = [f"--dataset={dataset.uri}", f"--vae={tmp_path / 'vae'}", f"--text={names}", "--engine=local"]
    assert main([*flags, "--frames.pixels=1024", "--frames.side=32"]) == 0

    data = LatentDataset(dataset.uri)
    assert data.about["text_encoder"] == names
    assert data.about["text_id"] == text_id(names)
    assert data.about["text_width"] == 48
    assert data.about["text_causal"] is False
    texts = data.read(0)[1]
    torch.testing.assert_close(texts["dense"], joint.encode(TEXTS[:1])[0].bfloat16().float())
    about = json.dumps(data.about)
    assert about.count(fingerprint(folders["clip"])) == 1
