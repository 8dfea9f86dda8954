"""Unsafe content: prompts on CLIP by hand-made vectors, a classifier saved as the hub does, and what says nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from curate.clip_scores import SkipClip
from curate.errors import BadInput
from curate.nsfw import ClassifyNsfw, NsfwConfig, ZeroShot
from curate.sources import ANALYSED


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((64, 96, 3), value, np.uint8))[1].tobytes()


def unit(*clips: list[bytes]) -> dict:
    scored = [{"clip_id": f"{i}", "score_errors": []} for i in range(len(clips))]
    return {"unit": "u", "source": {"caption": None}, "clips": scored, "keyframes": list(clips)}


def test_softmax_over_prompts_and_the_worst_frame() -> None:
    """One unsafe and two safe prompts along three axes, at a logit scale of 2."""
    net = SimpleNamespace(
        encode_text=lambda tokens, normalize: torch.eye(3)[tokens], logit_scale=torch.tensor(2.0).log()
    )
    names = ["bad", "good", "fine"]
    prompts = NsfwConfig(unsafe=("bad",), safe=("good", "fine"))
    judge = ZeroShot(net, lambda texts: torch.tensor([names.index(t) for t in texts]), prompts)
    safe, unsafe = np.eye(3, dtype=np.float32)[[1]], np.eye(3, dtype=np.float32)[[0]]
    e2 = float(np.exp(2.0))
    assert judge.probability(safe) == pytest.approx(1 / (e2 + 2))
    assert judge.probability(np.concatenate([safe, unsafe, safe])) == pytest.approx(e2 / (e2 + 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    labels = {0: "normal", 1: "nsfw", 2: "drawing"}
    config = ViTConfig(
        image_size=32, patch_size=16, id2label=labels, label2id={v: k for k, v in labels.items()}, **sizes
    )
    ViTForImageClassification(config).save_pretrained(out)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(out)
    return out


def test_probability_of_the_label(folder: Path) -> None:
    stage = ClassifyNsfw(NsfwConfig(classifier=str(folder), batch=2))
    stage.setup()
    (row,) = stage([unit([jpeg(0), jpeg(120), jpeg(250)], [jpeg(0), b""], [])])
    net = ViTForImageClassification.from_pretrained(folder).eval()
    shares = []
    for value in (0, 120, 250):
        pixels = torch.full((1, 3, 32, 32), (value / 255 - 0.5) / 0.5)
        with torch.inference_mode():
            shares.append(float(net(pixel_values=pixels).logits.softmax(-1)[0, 1]))
    good, broken, none = row["clips"]
    assert good["nsfw"] == pytest.approx(max(shares), abs=1e-4)
    assert max(shares) > np.mean(shares) + 1e-3
    assert broken["nsfw"] is None
    assert dict(broken["score_errors"])["nsfw"] == "a keyframe could not be decoded"
    assert "no keyframe" in dict(none["score_errors"])["nsfw"]
    assert list(row) == ANALYSED.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "porn"}, "porn is none of the labels .*normal, nsfw, drawing"),
        ({"classifier": "/no/such/folder"}, "is no folder.*hf:OWNER/NAME"),
    ],
)
def test_a_classifier_that_cannot_be_used(folder: Path, change: dict, message: str) -> None:
    stage = ClassifyNsfw(NsfwConfig(**{"classifier": str(folder), **change}))
    with pytest.raises(BadInput, match=message):
        stage.setup()


def test_without_clip_the_reason_is_told() -> None:
    (clip,) = SkipClip(NsfwConfig())([unit([jpeg(1)])])[0]["clips"]
    assert "switched off" in dict(clip["score_errors"])["nsfw"]
    (clip,) = SkipClip()([unit([jpeg(1)])])[0]["clips"]
    assert "nsfw" not in dict(clip["score_errors"])
