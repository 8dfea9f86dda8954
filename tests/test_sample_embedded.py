"""Every mode of `reelmill sample`, end to end, on the tiny model that ships with the code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video
from PIL import Image
from watched_sampling import watch

from pipelines.sample import main
from pipelines.sample_pictures import video_pictures

#: The model was trained on 9 pictures of 80 x 80 at 6 per second: one latent frame, and two of four pictures.
SIDE, FPS, PIECE = 64, 6, 9


@dataclass(frozen=True)
class Films:
    """Where the videos A and B and the picture P are, and their pictures as the command reads them: 13, 9 and 1."""

    paths: dict[str, str]
    pictures: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    paths, pictures = {}, {}
    for name, count, seed in (("A", 13, 0), ("B", 9, 1)):
        shown = moving_square(count, width=SIDE, height=SIDE, step=2, seed=seed)
        paths[name] = str(write_video(folder / f"{name}.mp4", shown, fps=FPS))
        pictures[name] = np.concatenate(list(video_pictures(paths[name], FPS, (SIDE, SIDE))))
    paths["P"], pictures["P"] = str(folder / "P.png"), pictures["A"][4:5]
    Image.fromarray(pictures["P"][0]).save(paths["P"])
    return Films(paths, pictures)


#: The flags, how many pieces are drawn, how many pictures come out, and which were given: at what number, whose which.
MODES = {
    "text": ("", 1, PIECE, {}),
    "picture": ("--frames=1", 1, 1, {}),
    "chain": ("--frames=20", 3, 20, {}),
    "image": ("--image={P}", 1, PIECE, {0: ("P", 0, 1)}),
    "image, chain": ("--image={P} --frames=14", 2, 14, {0: ("P", 0, 1)}),
    "forward": ("--video={A} --extend=forward", 1, 13 + 8, {0: ("A", 0, 13)}),
    "backward": ("--video={A} --extend=backward", 1, 8 + 13, {8: ("A", 0, 13)}),
    "both": ("--video={A} --extend=both", 2, 8 + 13 + 8, {8: ("A", 0, 13)}),
    "loop": ("--video={A} --loop", 1, 13 + 7, {0: ("A", 0, 13)}),
    "loop of text": ("--loop --frames=16", 2, 16, {}),
    "connect": ("--connect {A} {B}", 1, 13 + 7 + 9, {0: ("A", 0, 13), 20: ("B", 0, 9)}),
    "edit": ("--edit={A} --strength=0.6", 2, 13, {}),
    "keep": ("--video={B} --keep=0-1,4-5", 1, 9, {0: ("B", 0, 2), 4: ("B", 4, 6)}),
    "keep, chain": ("--video={A} --keep=3-4,10-12", 2, 13, {3: ("A", 3, 5), 10: ("A", 10, 13)}),
}


@pytest.mark.parametrize("mode", list(MODES))
def test_the_embedded_model_draws_in_every_mode(
    mode: str, films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = watch(monkeypatch)
    flags, pieces, frames, given = MODES[mode]
    told = [
        "--checkpoint=embedded",
        f"--out={tmp_path}",
        "--prompt=a small red disc moves left",
        "--device=cpu",
    ]
    told += [f"--width={SIDE}", f"--height={SIDE}", "--sampler.steps=2"]
    assert main([*told, *(flag.format(**films.paths) for flag in flags.split())]) == 0

    (row,) = json.loads((tmp_path / "prompts.json").read_text())
    assert (row["frames"], row["width"], row["height"], row["fps"]) == (frames, SIDE, SIDE, FPS)
    assert (tmp_path / "strip.png").is_file()
    assert len(drawn.calls) == pieces
    assert all(drawn.calls)
    if frames == 1:
        with Image.open(tmp_path / "000.png") as picture:
            assert picture.size == (SIDE, SIDE)
        return
    found = drawn.shown(tmp_path / "000.mp4")
    assert found.shape == (frames, SIDE, SIDE, 3)
    is_given = np.zeros(frames, bool)
    for at, (name, first, end) in given.items():
        place = slice(at, at + end - first)
        assert np.array_equal(found[place], films.pictures[name][first:end])
        is_given[place] = True
    for picture in found[~is_given]:  # all others are drawn, and copied from nowhere
        assert not any(
            (picture == pictures).all(axis=(1, 2, 3)).any() for pictures in films.pictures.values()
        )
