"""Every mode of `reelmill sample`, from files to files: what is given comes back, in latents and in pixels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_video
from PIL import Image
from small_checkpoint import FPS, HEIGHT, PIECE, WIDTH, write_checkpoint
from torch import Tensor
from watched_sampling import Drawn, watch

from model.vae import VideoVAE, from_pixels, load_vae, to_pixels
from pipelines.demo.weights import embedded
from pipelines.sample import main
from pipelines.sample_pictures import video_pictures


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


@dataclass(frozen=True)
class Films:
    """Three videos, and their pictures as the command reads them."""

    a: str
    b: str
    long: str
    first: np.ndarray
    second: np.ndarray
    third: np.ndarray


def film(path: Path, count: int, begin: int, step: int) -> str:
    """Write pictures that brighten to the right, each `step` levels brighter or darker than the one before it."""
    levels = begin + step * np.minimum(np.arange(count), 60 - np.arange(count))
    pictures = levels[:, None, None, None] + np.linspace(0, 40, WIDTH)[:, None]
    filled = np.broadcast_to(pictures, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)
    return str(write_video(path, filled, fps=int(FPS)))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    paths = [
        film(folder / f"{name}.mp4", count, begin, step)
        for name, count, begin, step in (("a", 21, 30, 5), ("b", 14, 210, -5), ("long", 60, 30, 5))
    ]
    read = [np.concatenate(list(video_pictures(path, FPS, (HEIGHT, WIDTH)))) for path in paths]
    assert [len(pictures) for pictures in read] == [21, 14, 60]
    # Pictures that were moved by one are others.
    assert all(np.abs(np.diff(x.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 4 for x in read)
    return Films(*paths, *read)  # type: ignore[arg-type]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Looks on while the command draws; what is given must come back unchanged (watched_sampling.py)."""
    return watch(monkeypatch)


def run(checkpoint: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    """Run the command with two steps; returns the rows of prompts.json."""
    told = [f"--checkpoint={checkpoint}", f"--out={out}", "--sampler.steps=2", "--device=cpu"]
    prompt = [] if any(option.startswith("--prompts") for option in options) else ["--prompt=a star"]
    assert main([*told, *prompt, *options]) == 0
    rows: list[dict[str, Any]] = json.loads((out / "prompts.json").read_text())
    return rows


def encoded(vae: VideoVAE, pictures: np.ndarray) -> Tensor:
    with torch.inference_mode():
        return vae.encode_latents(from_pixels(torch.from_numpy(pictures.copy())[None]))[0]


def vae_pictures(vae: VideoVAE, latent: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return to_pixels(vae.decode_latents(latent[None]))[0].numpy()


def assert_given(
    drawn: Drawn,
    vae: VideoVAE,
    number: int,
    beginning: np.ndarray | None,
    spans: list[tuple[int, np.ndarray]],
) -> None:
    """The request's given frames are these pictures, encoded by themselves: `spans` as (latent frame, pictures)."""
    request = drawn.requests[number]
    if beginning is None:
        assert request.known is None
    else:
        latent = encoded(vae, beginning)
        t = latent.shape[1]
        assert request.is_known is not None
        assert request.is_known.tolist() == [True] * t + [False] * (request.size[0] - t)
        torch.testing.assert_close(request.known[:, :t], latent, atol=1e-4, rtol=0)  # type: ignore[index]
    assert [span.at for span in request.spans] == [at for at, _ in spans]
    for span, (_, pictures) in zip(request.spans, spans, strict=True):
        torch.testing.assert_close(span.latent, encoded(vae, pictures), atol=1e-4, rtol=0)


def test_text_alone_has_the_size_and_length_of_training(
    checkpoint: Path, tmp_path: Path, drawn: Drawn
) -> None:
    (row,) = run(checkpoint, tmp_path)
    assert drawn.shown(tmp_path / "000.mp4").shape == (PIECE, HEIGHT, WIDTH, 3)
    assert [row[key] for key in ("mode", "frames", "height", "width", "fps")] == [
        "text", PIECE, HEIGHT, WIDTH, FPS
    ]  # fmt: skip
    assert drawn.requests[0].known is None
    assert drawn.requests[0].spans == ()


def test_a_picture_to_begin_with(checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE) -> None:
    """It is cut to the size, and its own pixels are the first of the video."""
    picture = np.zeros((HEIGHT, 2 * WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 : WIDTH] = 200
    picture[:, :4] = 90  # cut off
    Image.fromarray(picture).save(tmp_path / "first.png")
    fitted = picture[:, WIDTH // 2 : WIDTH // 2 + WIDTH][None]
    size = [f"--width={WIDTH}", f"--height={HEIGHT}"]
    (row,) = run(checkpoint, tmp_path, f"--image={tmp_path / 'first.png'}", *size)
    assert row["mode"] == "image"
    assert_given(drawn, vae, 0, fitted, [])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == PIECE
    assert np.array_equal(found[:1], fitted)


def test_a_picture_begins_a_chain_of_pieces(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """40 pictures in pieces of 17: each goes on from the five made last, which are in the video once."""
    Image.fromarray(films.first[7]).save(tmp_path / "first.png")
    (row,) = run(checkpoint, tmp_path, f"--image={tmp_path / 'first.png'}", "--frames=40")
    found, made = drawn.shown(tmp_path / "000.mp4"), drawn.pictures
    assert len(found) == row["frames"] == 40
    assert np.array_equal(found[0], films.first[7])
    assert np.array_equal(found, np.concatenate([made[0], made[1][5:], made[2][5:]]))
    assert_given(drawn, vae, 0, films.first[7:8], [])
    assert_given(drawn, vae, 1, found[12:17], [])
    assert_given(drawn, vae, 2, found[24:29], [])


def test_a_picture_alone_is_a_png(checkpoint: Path, tmp_path: Path, drawn: Drawn) -> None:
    (row,) = run(checkpoint, tmp_path, "--frames=1", "--width=64", "--height=16")
    assert row["video"] == "000.png"
    assert drawn.requests[0].size == (1, 2, 8)
    with Image.open(tmp_path / "000.png") as picture:
        assert picture.size == (64, 16)
    assert not list(tmp_path.glob("*.mp4"))


def test_extending_forward(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """Half of a piece of five latent frames is given: two, the last five pictures."""
    (row,) = run(checkpoint, tmp_path, f"--video={films.a}", "--extend=forward")
    assert_given(drawn, vae, 0, films.first[-5:], [])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == row["frames"] == 21 + 12
    assert np.array_equal(found, np.concatenate([films.first, drawn.pictures[0][5:]]))


def test_extending_backward(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.a}", "--extend=backward", "--frames=10")
    # Twelve pictures are drawn, since the ending must begin a latent frame; the two at the beginning go.
    assert_given(drawn, vae, 0, None, [(3, films.first[:5])])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 10 + 21
    assert np.array_equal(found, np.concatenate([drawn.pictures[0][2:12], films.first]))


def test_extending_both_ways_in_several_pieces(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.a}", "--extend=both", "--frames=20")
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 20 + 21 + 20
    made = drawn.pictures
    before, after = [made[1][:8], made[0][:12]], [made[2][5:], made[3][5:]]
    assert np.array_equal(found, np.concatenate([*before, films.first, *after]))
    # Two pieces before it, the later one first, and two after it; each goes on from what the one next to it shows.
    assert_given(drawn, vae, 0, None, [(3, films.first[:5])])
    assert_given(drawn, vae, 1, None, [(2, vae_pictures(vae, drawn.latents[0])[:5])])
    assert_given(drawn, vae, 2, films.first[-5:], [])
    assert_given(drawn, vae, 3, vae_pictures(vae, drawn.latents[2])[-5:], [])
    assert len({request.seed for request in drawn.requests}) == len(drawn.requests) == 4


def test_a_video_made_to_loop(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """A quarter of a piece, one latent frame, is given at each end: its last picture and its first."""
    run(checkpoint, tmp_path, f"--video={films.a}", "--loop")
    assert_given(drawn, vae, 0, films.first[-1:], [(4, films.first[:1])])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 21 + 15
    assert np.array_equal(found, np.concatenate([films.first, drawn.pictures[0][1:16]]))


def test_a_loop_of_a_video_that_is_made_first(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE
) -> None:
    run(checkpoint, tmp_path, "--loop", "--frames=24")
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 24
    first, back = drawn.requests
    assert first.known is None
    assert first.size[0] == 3
    assert back.size[0] == 5
    made = vae_pictures(vae, drawn.latents[0])[:9]
    assert_given(drawn, vae, 1, made[-1:], [(4, made[:1])])
    assert np.array_equal(found, np.concatenate([drawn.pictures[0], drawn.pictures[1][1:16]]))


def test_connecting_two_videos(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path / "whole", "--connect", films.a, films.b)
    assert_given(drawn, vae, 0, films.first[-1:], [(4, films.second[:1])])
    found = drawn.shown(tmp_path / "whole" / "000.mp4")
    assert len(found) == 21 + 15 + 14
    assert np.array_equal(found, np.concatenate([films.first, drawn.pictures[0][1:16], films.second]))
    # More to see of each end, and fewer pictures between them: 4k+3, so that the second begins a latent frame.
    more = ["--context=5", "--frames=6", "--only_generated"]
    run(checkpoint, tmp_path / "between", "--connect", films.a, films.b, *more)
    assert_given(drawn, vae, 1, films.first[-5:], [(3, films.second[:5])])
    assert np.array_equal(drawn.shown(tmp_path / "between" / "000.mp4"), drawn.pictures[1][5:12])


@pytest.mark.parametrize(("options", "frames"), [(["--extend=both", "--frames=8"], 16), (["--loop"], 15)])
def test_what_is_generated_alone(
    checkpoint: Path,
    tmp_path: Path,
    drawn: Drawn,
    vae: VideoVAE,
    films: Films,
    options: list[str],
    frames: int,
) -> None:
    (row,) = run(checkpoint, tmp_path, f"--video={films.a}", *options, "--only_generated")
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == row["frames"] == frames
    # 8 of 13 pictures before the video, 8 after its last 5; or 15 between its last and its first one.
    parts = [(0, slice(0, 8)), (1, slice(5, 13))] if frames == 16 else [(0, slice(1, 16))]
    assert np.array_equal(found, np.concatenate([drawn.pictures[number][part] for number, part in parts]))


def test_connecting_over_more_than_a_piece(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, films: Films
) -> None:
    run(checkpoint, tmp_path, "--connect", films.a, films.b, "--frames=31")
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 21 + 31 + 14
    assert np.array_equal(found[:21], films.first)
    assert np.array_equal(found[-14:], films.second)
    assert [len(request.spans) for request in drawn.requests] == [0, 0, 1]


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_editing(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films, strength: float
) -> None:
    """In pieces of 17 pictures: 17, then 4 more that go on from the last 5 made."""
    run(checkpoint, tmp_path, f"--edit={films.a}", f"--strength={strength}")
    found = drawn.shown(tmp_path / "000.mp4")
    assert np.array_equal(found, np.concatenate([drawn.pictures[0], drawn.pictures[1][5:]]))
    assert len(found) == 21
    first, second = drawn.requests
    assert first.strength == second.strength == strength
    torch.testing.assert_close(first.start, encoded(vae, films.first[:17]), atol=1e-4, rtol=0)
    torch.testing.assert_close(second.start, encoded(vae, films.first[12:]), atol=1e-4, rtol=0)
    assert second.is_known is not None
    assert second.is_known.tolist() == [True, True, False]
    if strength == 0:
        assert torch.equal(drawn.latents[0], first.start)  # type: ignore[arg-type]
        again = vae_pictures(vae, encoded(vae, films.first[:17]))
        assert np.abs(found[:17].astype(int) - again).max() <= 1  # of 255, by the order of sums


def test_keeping_parts_of_a_video(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """Of 11-18 the model sees 12 to 16: latent frames begin at multiples of four, and hold four pictures."""
    (row,) = run(checkpoint, tmp_path, f"--video={films.a}", "--keep=0-4,11-18", "--piece=21")
    assert row["asked"]["keep"] == "0-4,11-18"
    assert_given(drawn, vae, 0, films.first[:5], [(3, films.first[12:17])])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 21
    assert np.array_equal(found[:5], films.first[:5])
    assert np.array_equal(found[11:19], films.first[11:19])
    assert np.array_equal(found, drawn.pictures[0])
    assert np.abs(found[5:11].astype(int) - films.first[5:11]).mean() > 10


def test_keeping_an_ending_alone(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.b}", "--keep=8-12", "--frames=20", "--piece=20")
    assert_given(drawn, vae, 0, None, [(2, films.second[8:13])])
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == 20
    assert np.array_equal(found[8:13], films.second[8:13])


def test_parts_of_a_long_video_are_kept_in_a_chain(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """60 pictures in pieces of 17: 10 before the first part, 4 and 20 between parts, 9 after the last one."""
    there = films.third
    (row,) = run(checkpoint, tmp_path, f"--video={films.long}", "--keep=10-18,23-23,44-50")
    found = drawn.shown(tmp_path / "000.mp4")
    assert len(found) == row["frames"] == 60
    for first, last in ((10, 18), (23, 23), (44, 50)):
        assert np.array_equal(found[first : last + 1], there[first : last + 1])
    assert max(request.size[0] for request in drawn.requests) <= 5
    # Before the first part: 12 pictures, of which 2 go.
    assert_given(drawn, vae, 0, None, [(3, there[10:15])])
    # 23 alone would not begin a latent frame after 4 pictures, so one is drawn by itself first.
    assert_given(drawn, vae, 1, there[14:19], [])
    made = vae_pictures(vae, drawn.latents[1])[5:6]
    assert_given(drawn, vae, 2, made, [(1, there[23:24])])
    # 20 pictures are more than a piece: 5 go on from what is there, 15 lead over to 44.
    between = vae_pictures(vae, drawn.latents[2])[1:4]
    assert_given(drawn, vae, 3, np.concatenate([made, between, there[23:24]]), [])
    assert_given(drawn, vae, 4, vae_pictures(vae, drawn.latents[3])[9:10], [(4, there[44:45])])
    assert_given(drawn, vae, 5, there[46:51], [])


def test_tokens_of_several_latent_frames_are_never_given_in_part(
    tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """Tubelets of two: the first latent frame by itself, then pairs, so 1, 9, 17 pictures can be given."""
    checkpoint = write_checkpoint(tmp_path, (7, 4, 6), (2, 2, 2))
    run(checkpoint, tmp_path / "a", f"--video={films.a}", "--extend=forward", "--context=14")
    assert_given(drawn, vae, 0, films.first[-9:], [])
    assert np.array_equal(drawn.shown(tmp_path / "a" / "000.mp4")[:21], films.first)
    run(checkpoint, tmp_path / "b", f"--video={films.a}", "--keep=0-7,11-20")
    assert_given(drawn, vae, 1, films.first[:1], [(3, films.first[12:21])])
    found = drawn.shown(tmp_path / "b" / "000.mp4")
    assert np.array_equal(found[:8], films.first[:8])
    assert np.array_equal(found[11:21], films.first[11:21])


def test_the_size_follows_what_is_given(checkpoint: Path, tmp_path: Path, drawn: Drawn, films: Films) -> None:
    """The area of training (six squares of 16 pixels) in the aspect ratio of the picture."""
    Image.new("RGB", (90, 200), "red").save(tmp_path / "tall.png")
    (row,) = run(checkpoint, tmp_path / "a", f"--image={tmp_path / 'tall.png'}", "--frames=2")
    assert (row["width"], row["height"]) == (32, 48)
    (row,) = run(checkpoint, tmp_path / "b", f"--image={tmp_path / 'tall.png'}", "--frames=2", "--height=64")
    assert (row["width"], row["height"]) == (32, 64)
    (row,) = run(checkpoint, tmp_path / "c", "--frames=2", "--height=64")
    assert (row["width"], row["height"]) == (WIDTH, 64)


def test_positions_are_stretched_for_pieces_longer_than_trained(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, films: Films
) -> None:
    whole = ["--frames=33", "--piece=33", "--width=64", "--height=32"]
    for name, options in {
        "plain": whole, "ntk": [*whole, "--stretch=ntk"], "interpolate": [*whole, "--stretch=interpolate"],
        "short": [], "short ntk": ["--stretch=ntk"],
    }.items():  # fmt: skip
        run(checkpoint, tmp_path / name, *options)
    plain, ntk, interpolated, short, short_ntk = drawn.latents
    assert drawn.requests[0].size == (9, 4, 8)
    assert (plain - ntk).abs().max() > 1e-3
    assert (interpolated - ntk).abs().max() > 1e-4
    assert torch.equal(short, short_ntk)


def test_no_prompt_is_needed_where_pictures_are_given(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, films: Films
) -> None:
    told = [f"--checkpoint={checkpoint}", f"--out={tmp_path}", "--sampler.steps=1", "--device=cpu"]
    assert main([*told, f"--video={films.b}", "--extend=forward"]) == 0
    assert drawn.requests[0].text is None
