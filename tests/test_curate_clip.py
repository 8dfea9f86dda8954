"""CLIP scores through open_clip: a folder in its own format, names, the aesthetic head, and what cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from curate.clip_scores import EMBEDDED, ClipConfig, ScoreWithClip, SkipClip, load_aesthetic_head, load_clip
from curate.errors import BadInput
from curate.keyframes import opened

WIDTH = 32
TINY = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of open_clip, saved as its hub folders are."""
    out = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    net = open_clip.model.CLIP(**TINY)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    return out


def jpeg(value: int) -> bytes:
    picture = np.random.default_rng(value).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def unit(caption: str | None, *clips: list[bytes]) -> dict:
    return {
        "unit": "u-s",
        "source": {"caption": caption},
        "clips": [{"clip_id": f"{i}", "score_errors": []} for i in range(len(clips))],
        "keyframes": list(clips),
    }


def reference(
    folder: Path, pictures: list[bytes], text: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The same by hand, one picture at a time."""
    net, preprocess, tokenizer = load_clip(str(folder))
    with torch.inference_mode():
        features = [net.encode_image(preprocess(opened(p))[None])[0] for p in pictures]
        mean = torch.stack([f / f.norm() for f in features]).mean(0)
        said = net.encode_text(tokenizer([text]))[0] if text else None
    return (mean / mean.norm()).numpy(), None if said is None else (said / said.norm()).numpy()


def test_mean_embedding_and_similarity_to_the_caption(folder: Path) -> None:
    stage = ScoreWithClip(ClipConfig(model=str(folder)), model_name="tiny")
    stage.setup()
    rows = stage([unit("a red disc", [jpeg(1), jpeg(2), jpeg(3)], [jpeg(4)]), unit(None, [jpeg(5)])])
    first, second = rows[0]["clips"]
    mean, said = reference(folder, [jpeg(1), jpeg(2), jpeg(3)], "a red disc")
    assert said is not None
    assert np.allclose(first["embedding"], mean, atol=1e-5)
    assert first["clip_text_sim"] == pytest.approx(float(mean @ said), abs=1e-5)
    assert first["embedding_model"] == "tiny"
    assert np.allclose(second["embedding"], reference(folder, [jpeg(4)])[0], atol=1e-5)
    uncaptioned = rows[1]["clips"][0]
    assert uncaptioned["clip_text_sim"] is None
    assert dict(uncaptioned["score_errors"])["clip_text_sim"] == "the source has no caption"
    assert first["embedding_spread"] > 0.0 == pytest.approx(second["embedding_spread"], abs=1e-6)
    assert list(rows[0]) == EMBEDDED.names
    assert [len(clip) for clip in rows[0]["features"]] == [3, 1]


def test_a_clip_without_keyframes_is_null_with_a_reason(folder: Path) -> None:
    stage = ScoreWithClip(ClipConfig(model=str(folder)))
    stage.setup()
    (clip,) = stage([unit("words", [])])[0]["clips"]
    assert clip["embedding"] is None
    assert "no keyframe" in dict(clip["score_errors"])["embedding"]


def test_a_broken_keyframe_is_null_with_a_reason(folder: Path) -> None:
    stage = ScoreWithClip(ClipConfig(model=str(folder), batch=2))
    stage.setup()
    (row,) = stage([unit("words", [jpeg(1), b"no picture"], [jpeg(2), jpeg(3)])])
    broken, good = row["clips"]
    assert broken["embedding"] is None
    assert dict(broken["score_errors"])["clip_text_sim"] == "a keyframe could not be decoded"
    assert np.allclose(good["embedding"], reference(folder, [jpeg(2), jpeg(3)])[0], atol=1e-5)
    assert [len(clip) for clip in row["features"]] == [0, 2]


def test_switched_off_says_so() -> None:
    (clip,) = SkipClip()([unit("words", [jpeg(1)])])[0]["clips"]
    assert "switched off" in dict(clip["score_errors"])["clip_text_sim"]


def test_name_of_open_clip_without_weights_at_hand() -> None:
    """ARCH/TAG goes through open_clip; this machine has no hub, so the message must say what to do."""
    with pytest.raises(BadInput, match=r"ViT-B-32/no-such-tag.*local folder.*--clip\.model=off"):
        load_clip("ViT-B-32/no-such-tag")


def test_neither_folder_nor_name() -> None:
    with pytest.raises(BadInput, match="neither a folder nor ARCH/TAG"):
        load_clip("nonsense")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_aesthetic_head_of_laion(tmp_path: Path, suffix: str) -> None:
    """Weights under LAION's own names; the head is linear, so the answer can be computed by hand."""
    torch.manual_seed(1)
    widths = ((0, 1024, 768), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16))
    weights = {f"layers.{i}.weight": torch.randn(a, b) * 0.05 for i, a, b in widths}
    weights |= {f"layers.{i}.bias": torch.randn(a) for i, a, _ in widths}
    path = tmp_path / f"head.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    x = torch.nn.functional.normalize(torch.randn(3, 768), dim=-1)
    expected = x
    for i, _, _ in widths:
        expected = expected @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]
    assert torch.allclose(load_aesthetic_head(str(path))(x), expected, atol=1e-4)


def test_aesthetic_head_that_does_not_fit(tmp_path: Path) -> None:
    save_file({"layers.0.weight": torch.zeros(4, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="could not be loaded"):
        load_aesthetic_head(str(tmp_path / "x.safetensors"))
