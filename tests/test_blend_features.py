"""Cached features show the words that the text draw shows, on the shipped CoCa's text tower and on random others."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from small_text_encoder import open_clip_text_folder, word_tokenizer

from curate.dataset import Dataset
from curate.shard_plan import kept_clips
from curate.tables import CAPTIONS, CLIPS, DECISIONS, SOURCES
from model.text import TextEncoder, load_text_encoder
from pipelines.demo.weights import embedded
from pipelines.encode_text import caption_features
from train.blend import Choice, blend, captions_of, draw_caption
from train.caption_features import outline, shown
from train.config import CaptionBlend

FIELDS = {
    "subject": "A small red disc.", "background": "a green hill", "camera": "The camera is still.", "mood": None,
    "style": "A flat picture. It has few colours.",
}  # fmt: skip
DENSE = (
    "A small red disc moves left over a green hill. The camera is still. The light is warm! "
    'A sign reads "stop." The disc grows, then it rests'
)
BEGINNINGS = (
    "A small red disc moves left over a green hill.",
    "A small red disc moves left over a green hill. The camera is still.",
    "A small red disc moves left over a green hill. The camera is still. The light is warm!",
    'A small red disc moves left over a green hill. The camera is still. The light is warm! A sign reads "stop."',
)
CLIP: dict[str, Any] = {
    "original": "disc test 4", "short": "a red disc", "dense": DENSE, "structured": FIELDS,
}  # fmt: skip
CONFIG = CaptionBlend(original=0.2, drop_share=0.1, cut_share=0.6, structured=1.0)


@pytest.fixture(scope="module")
def coca() -> TextEncoder:
    return load_text_encoder(str(embedded("coca")))


def test_text_and_features_make_the_same_draw(coca: TextEncoder) -> None:
    (texts,) = caption_features(coca, [CLIP])
    assert outline(texts) == {
        "original": 1, "short": 1, "dense": 5, "structured": ("background", "camera", "style", "subject"),
    }  # fmt: skip
    seen = set()
    for epoch in range(150):
        about = {"seed": 0, "clip_id": "aa", "epoch": epoch}
        text = blend(CLIP, **about, config=CONFIG)
        choice = draw_caption(outline(texts), **about, config=CONFIG)
        assert vars(text) == vars(choice) | {"text": text.text}
        seen.add((text.kind, text.n_sentences, text.is_cut, text.is_dropped))
        features = shown(texts, choice)
        if choice.kind is None:
            assert features is None
            continue
        # A structured caption is encoded field by field; any other as the very text that is shown.
        pieces = [_sentence(FIELDS[name]) for name in choice.fields] or [text.text]
        expected = torch.cat(coca.encode(pieces))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert {("dense", n, n < 5, False) for n in range(1, 6)} < seen
    assert {(None, 0, False, True), ("short", 1, False, False), ("structured", 4, False, False)} < seen


def _sentence(value: str | None) -> str:
    return value if str(value).endswith(".") else f"{value}."


def test_the_cut_features_are_the_first_of_the_whole_up_to_the_end_token(coca: TextEncoder) -> None:
    """What causality promises: the words before the cut are the whole text's own rows; the end token is not."""
    (texts,) = caption_features(coca, [{"dense": DENSE}])
    whole, ends = texts["dense"], texts["dense.ends"]
    assert ends.dtype == torch.int32
    assert ends.tolist() == [12, 17, 22, 29]  # <s> and words; each stop, mark and quote is a word
    for place, (beginning, end) in enumerate(zip(BEGINNINGS, ends.tolist(), strict=True)):
        cut, anew = shown(texts, first_sentences(place + 1)), coca.encode([beginning])[0]
        torch.testing.assert_close(whole[:end], anew[:-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(cut, anew, atol=1e-5, rtol=1e-5)
        # The whole text goes on with a word there, which is no end token.
        assert (anew[-1] - whole[end]).norm() > 0.1 * whole[end].norm()


def first_sentences(number: int) -> Choice:
    return Choice("dense", number, is_cut=True)


def test_a_text_beyond_the_context_is_cut_as_the_encoder_cuts_it(coca: TextEncoder) -> None:
    text = " ".join(["A small red disc moves left over a green hill."] * 12)
    (texts,) = caption_features(coca, [{"dense": text}])
    assert len(texts["dense"]) == 96
    assert texts["dense.ends"].tolist() == [1 + 11 * n for n in range(1, 9)] + [95] * 3
    assert outline(texts) == {"dense": 12}  # as in the text
    for sentences in (8, 9, 11):
        anew = coca.encode([" ".join(["A small red disc moves left over a green hill."] * sentences)])[0]
        torch.testing.assert_close(shown(texts, first_sentences(sentences)), anew, atol=1e-5, rtol=1e-5)


def test_members_do_not_depend_on_the_clips_beside_them(coca: TextEncoder) -> None:
    many = [{"dense": f"{'A disc. ' * (n % 9)}A star. It moves."} for n in range(150)]
    together = caption_features(coca, [CLIP, {}, *many])
    assert together[1] == {}
    (alone,) = caption_features(coca, [CLIP])
    assert alone.keys() == together[0].keys()
    for name in alone:
        torch.testing.assert_close(together[0][name], alone[name], atol=1e-5, rtol=1e-5)


def test_latents_without_ends_are_shown_whole(coca: TextEncoder) -> None:
    (texts,) = caption_features(coca, [CLIP])
    old = {kind: texts[kind] for kind in ("dense", "short")}
    assert outline(old) == {"dense": 1, "short": 1}
    config = CaptionBlend(cut_share=1, drop_share=0, short=0)
    choice = draw_caption(outline(old), seed=0, clip_id="aa", epoch=0, config=config)
    assert torch.equal(shown(old, choice), texts["dense"])


def test_encoders_that_look_both_ways_give_no_ends(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    T5EncoderModel(
        T5Config(vocab_size=11, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(vocab_size=11, eos_token_id=2, bos_token_id=1, **small)).save_pretrained(
        tmp_path / "clip"
    )
    for name in ("t5", "clip"):
        word_tokenizer(tmp_path / name)
    open_clip_text_folder(tmp_path / "open_clip")
    clip = {
        "dense": "A disc moves. A star.",
        "structured": {"subject": "a star", "camera": "It moves. A star."},
    }
    fields = {"dense", "structured/subject", "structured/camera"}
    found = {}
    for name in ("t5", "clip", "open_clip"):
        encoder = load_text_encoder(str(tmp_path / name))
        (texts,) = caption_features(encoder, [clip])
        found[name] = (encoder.causal, set(texts) - fields)
        assert fields <= set(texts)
    ends = {"dense.ends", "dense.stops"}
    assert found == {"t5": (False, set()), "clip": (True, ends), "open_clip": (True, ends)}


def test_a_text_whose_beginning_is_tokenised_otherwise_gets_no_ends() -> None:
    class Joining:
        """An encoder of one feature per character, in which a stop before a space is another token."""

        name, width, causal = "joining", 1, True

        def encode(self, texts: list[str]) -> list[torch.Tensor]:
            found = [text.replace(". B", "_ B") for text in texts]
            return [torch.tensor([[float(ord(c))] for c in f"{text}$"]) for text in found]

    joined, apart = caption_features(Joining(), [{"dense": "A disc. Blue."}, {"dense": "A disc. Red."}])
    assert set(joined) == {"dense"}
    assert set(apart) == {"dense", "dense.ends", "dense.stops"}


def test_a_structured_caption_travels_into_the_record(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write("sources", pa.Table.from_pylist([{"source_id": "s", "uri": "s.mp4"}], schema=SOURCES))
    dataset.write("clips", pa.Table.from_pylist([{"clip_id": "aa", "source_id": "s"}], schema=CLIPS))
    dataset.write("decisions", pa.Table.from_pylist([{"clip_id": "aa", "keep": True}], schema=DECISIONS))
    rows = [
        {"caption_id": "1", "kind": "structured", "status": "ok", "structured": json.dumps({"subject": "Old."}),
         "chosen": False},
        {"caption_id": "2", "kind": "structured", "status": "ok", "structured": json.dumps(FIELDS), "chosen": True},
        {"caption_id": "3", "kind": "structured", "status": "bad_json", "structured": "{", "text_raw": "{"},
        {"caption_id": "7", "kind": "structured", "status": "truncated", "text": "A.", "structured": '{"subj'},
        {"caption_id": "4", "kind": "dense", "status": "ok", "text": "Not chosen.", "chosen": False},
        {"caption_id": "5", "kind": "dense", "status": "truncated", "text": "Chosen.", "chosen": True},
        {"caption_id": "6", "kind": "short", "status": "refused"},
        {"caption_id": "8", "kind": "short", "status": "ok", "text": "Abstained.", "chosen": False,
         "flags": ["abstained"]},
        {"caption_id": "9", "kind": "rewrite", "status": "ok", "text": "From elsewhere."},
    ]  # fmt: skip
    dataset.write(
        "captions", pa.Table.from_pylist([row | {"clip_id": "aa"} for row in rows], schema=CAPTIONS)
    )
    record = kept_clips(dataset).clips["aa"]
    assert [(c["kind"], c["caption_id"]) for c in record["captions"]] == [
        ("dense", "5"), ("rewrite", "9"), ("structured", "2"), ("structured", "7"),
    ]  # fmt: skip
    assert record["captions"][2]["structured"] == FIELDS
    assert all("structured" not in record["captions"][place] for place in (0, 1, 3))
    assert captions_of(record) == {"dense": "Chosen.", "rewrite": "From elsewhere.", "structured": FIELDS}
