"""How well captions fit their clips: by hand on small vectors, and on the world with the embedded CoCa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
from world_stills import VISIBLE, stills, tower

from curate.errors import BadInput
from pipelines.demo.weights import embedded
from pipelines.demo.world import describe
from recaption.trust.clip_text import embed_captions, load_text_tower, parts
from recaption.trust.distance import RIDGE, SHRINKAGE, distances
from recaption.trust.scores import TrustConfig, score, suspects, without_mean


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pairs(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clips and captions (n, 16) that share their direction but for `noise`, in two cones as CLIP's are."""
    rng = np.random.default_rng(seed)
    meaning = rng.standard_normal((n, 16))
    clips, texts = (meaning + noise * rng.standard_normal((n, 16)) for _ in range(2))
    return unit(clips + 3 * np.eye(16)[0]), unit(texts + 3 * np.eye(16)[1])


def test_scores_by_hand() -> None:
    clips, texts = pairs(60, 0.3)
    kinds, own = ["short"] * 60, np.arange(60)
    scores = score(clips, own, texts, kinds)
    cosines = texts @ clips.T
    others = [np.delete(cosines[i], i) for i in range(60)]
    assert np.allclose(scores.clip_score, np.diag(cosines), atol=1e-6)
    # The 0.99 quantile of 59 others is their second best: as one of 60 places is the own, rank int(0.99 * 59) = 58.
    assert np.allclose(
        scores.clip_margin, [np.diag(cosines)[i] - np.sort(others[i])[-2] for i in range(60)], atol=1e-6
    )
    bare = unit(clips - clips.mean(0)) @ unit(texts - texts.mean(0)).T  # (clip, caption)
    rest = [np.delete(bare[:, i], i) for i in range(60)]
    expected = [(bare[i, i] - rest[i].mean()) / rest[i].std() for i in range(60)]
    assert np.allclose(scores.fit, expected, atol=1e-3)
    assert np.allclose(without_mean(texts, kinds), unit(texts - texts.mean(0)), atol=1e-6)


def test_a_sample_of_other_clips_stands_for_all() -> None:
    clips, texts = pairs(3000, 0.3)
    kinds, own = ["short"] * 3000, np.arange(3000)
    whole = score(clips, own, texts, kinds)
    sampled = score(clips, own, texts, kinds, TrustConfig(sample=500))
    again = score(clips, own, texts, kinds, TrustConfig(sample=500))
    assert np.abs(whole.clip_margin - sampled.clip_margin).mean() < 0.03
    assert np.array_equal(whole.fit, sampled.fit)  # means and spreads are over all clips
    assert np.array_equal(sampled.clip_margin, again.clip_margin)
    other = score(clips, own, texts, kinds, TrustConfig(sample=500, seed=1))
    assert not np.array_equal(sampled.clip_margin, other.clip_margin)


def test_what_is_missing_stays_null() -> None:
    clips, texts = pairs(100, 0.3)
    clips[3] = np.nan
    texts[5] = np.nan
    own = np.arange(100)
    own[7] = -1
    kinds = ["short"] * 100
    scores = score(clips, own, texts, kinds)
    for values in (scores.clip_score, scores.clip_margin, scores.fit):
        assert np.flatnonzero(np.isnan(values)).tolist() == [3, 5, 7]
    assert not suspects(scores, kinds)[[3, 5, 7]].any()
    nothing = score(np.zeros((0, 16)), np.full(100, -1), texts, kinds)
    assert np.isnan(nothing.clip_score).all()
    assert not suspects(nothing, kinds).any()


def test_few_clips_have_a_score_and_no_margin() -> None:
    clips, texts = pairs(49, 0.3)
    scores = score(clips, np.arange(49), texts, ["short"] * 49)
    assert np.isfinite(scores.clip_score).all()
    assert np.isnan(scores.clip_margin).all()
    assert np.isnan(scores.fit).all()
    assert not suspects(scores, ["short"] * 49).any()


def test_kinds_are_judged_by_themselves() -> None:
    clips, texts = pairs(200, 0.3)
    rng = np.random.default_rng(1)
    vague = unit(texts + rng.standard_normal(texts.shape) * 0.4)  # fit worse, but no worse than each other
    both = np.concatenate([texts, vague])
    kinds = ["dense"] * 200 + ["original"] * 200
    scores = score(clips, np.tile(np.arange(200), 2), both, kinds)
    wrong = suspects(scores, kinds)
    for place, name in ((slice(0, 200), "dense"), (slice(200, 400), "original")):
        alone = score(clips, np.arange(200), both[place], [name] * 200)
        assert np.allclose(scores.distance[place], alone.distance, rtol=1e-4)
        assert np.array_equal(wrong[place], suspects(alone, [name] * 200))
    mixed = score(clips, np.tile(np.arange(200), 2), both, ["one"] * 400)
    assert not np.allclose(mixed.distance, scores.distance, rtol=0.1)


def test_distances_leave_each_caption_out_of_its_own_prediction() -> None:
    clips, texts = pairs(40, 0.3)
    x, y = (unit(part - part.mean(0)).astype(np.float64) for part in (clips, texts))
    ridge = RIDGE * np.trace(x.T @ x) / 16
    left_over = []
    for i in range(40):
        rest = np.arange(40) != i
        weights = np.linalg.solve(x[rest].T @ x[rest] + ridge * np.eye(16), x[rest].T @ y[rest])
        left_over.append(y[i] - x[i] @ weights)
    spread = np.cov(np.array(left_over).T, bias=True) + np.outer(np.mean(left_over, 0), np.mean(left_over, 0))
    spread += SHRINKAGE * np.trace(spread) / 16 * np.eye(16)
    expected = [rest @ np.linalg.solve(spread, rest) for rest in left_over]
    found = distances(x.astype(np.float32), y.astype(np.float32))
    assert np.allclose(found.own, expected, rtol=1e-3)
    pairs_of_others = [
        ((found.said[i] - found.predicted[j]) ** 2).sum() for i in range(40) for j in range(40) if i != j
    ]
    assert found.random(0.1, np.random.default_rng(0)) == pytest.approx(np.quantile(pairs_of_others, 0.1))


def test_a_clip_that_knows_nothing_of_captions_suspects_few() -> None:
    clips, _ = pairs(400, 0.3)
    _, texts = pairs(400, 0.3, seed=1)
    assert suspects(score(clips, np.arange(400), texts, ["short"] * 400), ["short"] * 400).mean() <= 0.05


def test_what_only_the_distance_sees() -> None:
    """Clips and captions share a direction with much weight and a sign with little, which 20 of 2,000 have wrong."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    meaning = np.column_stack(
        [3 * np.cos(angle), 3 * np.sin(angle), np.where(np.arange(2000) % 2, 0.5, -0.5)]
    )
    clips, texts = (
        np.column_stack([meaning + 0.05 * rng.standard_normal((2000, 3)), np.full(2000, 9.0)])
        for _ in range(2)
    )
    texts[:20, 2] *= -1
    scores = score(unit(clips), np.arange(2000), unit(texts), ["short"] * 2000)
    assert set(np.flatnonzero(suspects(scores, ["short"] * 2000))) == set(range(20))
    by_fit = score(unit(clips), np.arange(2000), unit(texts), ["short"] * 2000)
    by_fit.far_chance.clear()
    assert suspects(by_fit, ["short"] * 2000)[20:].any()


def test_a_loose_caption_is_not_suspect_while_it_is_nearer_than_chance() -> None:
    """Among captions that fit to a hair, ten fit less well, and still far better than those of other clips would."""
    rng = np.random.default_rng(0)
    noise = np.full((600, 1), 0.05)
    noise[:10] = 0.2
    meaning = rng.standard_normal((600, 16))
    clips, texts = (unit(meaning + noise * rng.standard_normal((600, 16))) for _ in range(2))
    scores = score(clips, np.arange(600), texts, ["short"] * 600)
    assert not suspects(scores, ["short"] * 600).any()
    scores.far_chance["short"] = 0.0
    assert set(range(10)) <= set(np.flatnonzero(suspects(scores, ["short"] * 600)))  # by the fence alone


def test_more_numbers_than_captions() -> None:
    """An embedding of 64 numbers, 60 captions, 3 of them exchanged."""
    rng = np.random.default_rng(0)
    clips, texts = pairs(60, 0.1)
    wide = rng.standard_normal((16, 64))
    given = np.arange(60)
    given[[3, 20, 41]] = 20, 41, 3
    scores = score(unit(clips @ wide), np.arange(60), unit(texts @ wide)[given], ["short"] * 60)
    assert np.isnan(scores.distance).all()  # too few to predict from: judged by fit
    assert set(np.flatnonzero(suspects(scores, ["short"] * 60))) == {3, 20, 41}


def test_two_models_are_not_compared() -> None:
    clips, texts = pairs(60, 0.3)
    with pytest.raises(BadInput, match="16 numbers, the captions' 8"):
        score(clips, np.arange(60), texts[:, :8], ["short"] * 60)


def test_long_texts_are_cut_into_as_few_pieces_as_fit() -> None:
    def fits(text: str) -> bool:
        return len(text.split()) <= 5

    assert parts("a b c d e", fits) == ["a b c d e"]
    assert parts("One two. Three four. Five six.", fits) == ["One two. Three four.", "Five six."]
    assert parts("one two three, four five six and seven", fits) == [
        "one two three,",
        "four five six and seven",
    ]
    assert parts("one two three four five six seven", fits) == ["one two three four five", "six seven"]
    assert parts("x. one two three four five six. y.", fits) == ["x.", "one two three four five", "six. y."]
    text = "A red disc moves left over a hill: bushes, clouds and grass. It is small. The light is soft, and so on."
    found = parts(text, fits)
    assert all(map(fits, found))
    assert " ".join(found) == text


def test_pieces_weigh_as_many_words_as_they_have() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return np.array([[1.0, 0.0] if text.startswith("One") else [0.0, 1.0] for text in texts])

    found = embed_captions(
        ["One two three. Four.", None, "Four.", " "], embed, lambda text: len(text.split()) <= 3
    )
    assert asked == [["One two three.", "Four."]]  # equal pieces once
    assert np.allclose(found[0], np.array([3, 1]) / np.sqrt(10))
    assert np.allclose(found[2], [0, 1])
    assert np.isnan(found[[1, 3]]).all()
    assert embed_captions([None], embed).shape == (1, 0)


def test_the_tower_is_open_clips_and_knows_its_context() -> None:
    folder = str(embedded("coca"))
    texts = ["a small red disc moves left over a green hill", "blue ring"]
    net, tokenizer = (
        open_clip.create_model(f"local-dir:{folder}"),
        open_clip.get_tokenizer(f"local-dir:{folder}"),
    )
    theirs = net.eval().encode_text(tokenizer(texts), normalize=True).detach().numpy()
    assert np.allclose(tower().embed(texts), theirs, atol=1e-5)
    assert tower().fits("disc " * 94)
    assert not tower().fits("disc " * 95)  # 96 with the tokens for start and end


def test_a_clip_with_the_tokenizer_of_open_clip(tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
    tiny = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    state = open_clip.model.CLIP(**tiny).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny, "preprocess_cfg": {}}))
    found = load_text_tower(str(tmp_path))
    assert found.fits("disc " * 75)
    assert not found.fits("disc " * 76)
    vectors = embed_captions(["disc " * 200, "red disc"], found.embed, found.fits)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_such_tower() -> None:
    with pytest.raises(BadInput, match="neither a folder nor ARCH/TAG"):
        load_text_tower("nonsense")
    with pytest.raises(BadInput, match=r"could not be loaded"):
        load_text_tower("ViT-B-32/no-such-tag")


def swapped(visible: list[tuple], share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whose caption each clip gets, (n,), after exchanges between clips that look different; and which are wrong."""
    n = len(visible)
    given, order, left = np.arange(n), list(rng.permutation(n)), round(share * n / 2)
    while left:
        one, two = order.pop(), order.pop()
        if visible[one] != visible[two]:
            given[[one, two]] = two, one
            left -= 1
    return given, given != np.arange(n)


@pytest.mark.parametrize(
    ("kind", "context"),
    [("short", None), ("dense", None), ("dense", 77)],
    ids=["short", "dense", "dense in pieces"],
)
def test_swapped_captions_of_the_world_are_found(kind: str, context: int | None) -> None:
    def fits(text: str) -> bool:
        return tower().fits(text + " ." * (96 - context)) if context else tower().fits(text)

    hits = flagged = wrong = innocent = 0
    for scene_seed in (7, 101):  # two sets of clips: a threshold that suits one alone would show
        scenes, clips = stills(1000, scene_seed)
        rng = np.random.default_rng(scene_seed)
        captions = [describe(scene, kind, rng) for scene in scenes]  # type: ignore[arg-type]
        vectors = embed_captions(captions, tower().embed, fits)
        visible = [tuple(getattr(scene, name) for name in VISIBLE) for scene in scenes]
        kinds, own = [kind] * len(scenes), np.arange(len(scenes))
        for seed in range(5):
            given, bad = swapped(visible, 0.05, np.random.default_rng(seed))
            found = suspects(score(clips, own, vectors[given], kinds), kinds)
            hits, flagged = hits + int((found & bad).sum()), flagged + int(found.sum())
            wrong += int(bad.sum())
        innocent += int(suspects(score(clips, own, vectors, kinds), kinds).sum())
    print(f"{kind}, context {context}: recall {hits / wrong:.4f}, precision {hits / flagged:.4f} of {wrong}")
    assert wrong == 500
    assert hits / wrong >= 0.99
    assert hits / flagged >= 0.95
    assert innocent <= 0.01 * 2000  # without any swap
