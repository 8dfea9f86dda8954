"""Every mode of `reelmill sample`, from files to files: what is given comes back, in latents and in pixels."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import write_video
from PIL import Image
from small_checkpoint import FPS, SIZE, write_checkpoint
from torch import Tensor

import pipelines.generate as generate_module
from model.sampler import Request
from model.vae import VideoVAE, from_pixels, load_vae, to_pixels
from pipelines.demo.weights import embedded
from pipelines.sample import main
from pipelines.sample_pictures import video_pictures

HEIGHT, WIDTH = 8 * SIZE[1], 8 * SIZE[2]
PIECE = 4 * (SIZE[0] - 1) + 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


@dataclass(frozen=True)
class Films:
    """Two videos of pictures of one colour each, that change slowly: coding hardly changes them."""

    a: str
    b: str
    first: np.ndarray
    second: np.ndarray


def film(path: Path, count: int, begin: int) -> str:
    levels = np.linspace(begin, begin + 60, count).astype(np.uint8)
    pictures = np.broadcast_to(levels[:, None, None, None], (count, HEIGHT, WIDTH, 3))
    return str(write_video(path, pictures, fps=int(FPS)))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    a, b = film(folder / "a.mp4", 21, 30), film(folder / "b.mp4", 14, 150)
    read = [np.concatenate(list(video_pictures(path, FPS, (HEIGHT, WIDTH)))) for path in (a, b)]
    assert [len(pictures) for pictures in read] == [21, 14]
    return Films(a, b, *read)


@dataclass
class Drawn:
    """What was asked of the sampler, and what it gave."""

    requests: list[Request] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawn]:
    """Looks on while the command draws; what is given must come back at every turn."""
    seen, draw = Drawn(), generate_module.draw

    def looking_on(dit: Any, requests: list[Request], *rest: Any) -> list[Tensor]:
        latents = draw(dit, requests, *rest)
        seen.requests += requests
        seen.latents += latents
        return latents

    monkeypatch.setattr(generate_module, "draw", looking_on)
    yield seen
    for request, latent in zip(seen.requests, seen.latents, strict=True):
        assert tuple(latent.shape[1:]) == request.size
        if request.known is not None and request.is_known is not None:
            assert torch.equal(latent[:, request.is_known], request.known[:, request.is_known])


def run(checkpoint: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    """Run the command with two steps; returns the rows of prompts.json."""
    told = [f"--checkpoint={checkpoint}", f"--out={out}", "--sampler.steps=2", "--device=cpu"]
    prompt = [] if any(option.startswith("--prompts") for option in options) else ["--prompt=a star"]
    assert main([*told, *prompt, *options]) == 0
    rows: list[dict[str, Any]] = json.loads((out / "prompts.json").read_text())
    return rows


def pictures_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def assert_shows(found: np.ndarray, given: np.ndarray) -> None:
    """The same pictures but for the coding of mp4."""
    assert found.shape == given.shape
    assert np.abs(found.astype(int) - given).mean() < 3


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
    assert pictures_of(tmp_path / "000.mp4").shape == (PIECE, HEIGHT, WIDTH, 3)
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
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == PIECE
    assert_shows(found[:1], fitted)


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
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == row["frames"] == 21 + 12
    assert_shows(found[:21], films.first)


def test_extending_backward(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.a}", "--extend=backward", "--frames=10")
    # Twelve pictures are drawn, since the ending must begin a latent frame; the two at the beginning go.
    assert_given(drawn, vae, 0, None, [(3, films.first[:5])])
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 10 + 21
    assert_shows(found[10:], films.first)


def test_extending_both_ways_in_several_pieces(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.a}", "--extend=both", "--frames=20")
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 20 + 21 + 20
    assert_shows(found[20:41], films.first)
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
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 21 + 15
    assert_shows(found[:21], films.first)


def test_a_loop_of_a_video_that_is_made_first(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE
) -> None:
    run(checkpoint, tmp_path, "--loop", "--frames=24")
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 24
    first, back = drawn.requests
    assert first.known is None
    assert first.size[0] == 3
    assert back.size[0] == 5
    made = vae_pictures(vae, drawn.latents[0])[:9]
    assert_given(drawn, vae, 1, made[-1:], [(4, made[:1])])


def test_connecting_two_videos(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path / "whole", "--connect", films.a, films.b)
    assert_given(drawn, vae, 0, films.first[-1:], [(4, films.second[:1])])
    found = pictures_of(tmp_path / "whole" / "000.mp4")
    assert len(found) == 21 + 15 + 14
    assert_shows(found[:21], films.first)
    assert_shows(found[36:], films.second)
    # More to see of each end, and fewer pictures between them: 4k+3, so that the second begins a latent frame.
    more = ["--context=5", "--frames=6", "--only_generated"]
    run(checkpoint, tmp_path / "between", "--connect", films.a, films.b, *more)
    assert_given(drawn, vae, 1, films.first[-5:], [(3, films.second[:5])])
    assert len(pictures_of(tmp_path / "between" / "000.mp4")) == 7


def test_connecting_over_more_than_a_piece(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, films: Films
) -> None:
    run(checkpoint, tmp_path, "--connect", films.a, films.b, "--frames=31")
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 21 + 31 + 14
    assert_shows(found[-14:], films.second)
    assert [len(request.spans) for request in drawn.requests] == [0, 0, 1]


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_editing(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films, strength: float
) -> None:
    """In pieces of 17 pictures: 17, then 4 more that go on from the last 5 made."""
    run(checkpoint, tmp_path, f"--edit={films.a}", f"--strength={strength}")
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 21
    first, second = drawn.requests
    assert first.strength == second.strength == strength
    torch.testing.assert_close(first.start, encoded(vae, films.first[:17]), atol=1e-4, rtol=0)
    torch.testing.assert_close(second.start, encoded(vae, films.first[12:]), atol=1e-4, rtol=0)
    assert second.is_known is not None
    assert second.is_known.tolist() == [True, True, False]
    if strength == 0:
        assert torch.equal(drawn.latents[0], first.start)  # type: ignore[arg-type]
        assert_shows(found[:17], vae_pictures(vae, encoded(vae, films.first[:17])))


def test_keeping_parts_of_a_video(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """Of 11-18 the model sees 12 to 16: latent frames begin at multiples of four, and hold four pictures."""
    (row,) = run(checkpoint, tmp_path, f"--video={films.a}", "--keep=0-4,11-18")
    assert row["asked"]["keep"] == "0-4,11-18"
    assert_given(drawn, vae, 0, films.first[:5], [(3, films.first[12:17])])
    found = pictures_of(tmp_path / "000.mp4")
    assert len(found) == 21
    assert_shows(found[:5], films.first[:5])
    assert_shows(found[11:19], films.first[11:19])
    assert np.abs(found[5:11].astype(int) - films.first[5:11]).mean() > 10


def test_keeping_an_ending_alone(
    checkpoint: Path, tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    run(checkpoint, tmp_path, f"--video={films.b}", "--keep=8-12", "--frames=20")
    assert_given(drawn, vae, 0, None, [(2, films.second[8:13])])
    assert len(pictures_of(tmp_path / "000.mp4")) == 20


def test_tokens_of_several_latent_frames_are_never_given_in_part(
    tmp_path: Path, drawn: Drawn, vae: VideoVAE, films: Films
) -> None:
    """Tubelets of two: the first latent frame by itself, then pairs, so 1, 9, 17 pictures can be given."""
    checkpoint = write_checkpoint(tmp_path, (7, 4, 6), (2, 2, 2))
    run(checkpoint, tmp_path / "a", f"--video={films.a}", "--extend=forward", "--context=14")
    assert_given(drawn, vae, 0, films.first[-9:], [])
    run(checkpoint, tmp_path / "b", f"--video={films.a}", "--keep=0-7,11-20")
    assert_given(drawn, vae, 1, films.first[:1], [(3, films.first[12:21])])


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


Options = Callable[[Path, Films], list[str]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda p, f: ["--prompts=no.txt"], "cannot read the prompts no.txt"),
        (lambda p, f: [f"--video={f.a}"], "--video needs to know what for: give --extend, --loop or --keep"),
        (lambda p, f: ["--extend=both"], "--extend needs a video"),
        (
            lambda p, f: [f"--video={f.a}", "--image=x.png", "--loop"],
            "--image and --video do not go together",
        ),
        (
            lambda p, f: [f"--video={f.a}", "--extend=both", "--loop"],
            "--extend and --loop do not go together",
        ),
        (lambda p, f: [f"--edit={f.a}", "--loop"], "--loop and --edit do not go together"),
        (lambda p, f: ["--connect=[a.mp4]"], "--connect needs two videos, not 1"),
        (lambda p, f: [f"--edit={f.a}", "--strength=1.2"], "--strength=1.2 must be from 0"),
        (lambda p, f: [f"--edit={p / 'text.mp4'}"], "text.mp4: not a readable video"),
        (lambda p, f: ["--edit=missing.mp4"], "cannot read the video missing.mp4"),
        (lambda p, f: [f"--image={p / 'text.mp4'}"], "cannot read the picture"),
        (lambda p, f: ["--image=missing.png"], "cannot read the picture missing.png"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-8,18-21"], "--keep 18-21: there are 21 pictures"),
        (lambda p, f: [f"--video={f.a}", "--keep=8-4"], "no list of picture numbers in rising order"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-8,4-9"], "no list of picture numbers in rising order"),
        (lambda p, f: [f"--video={f.a}", "--keep=5-7"], "give 4-7 or 5-8"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-20"], "keeps all 21 pictures"),
        (
            lambda p, f: ["--loop", "--frames=10"],
            "--frames=10 is too short for a loop, of which 15 lead back",
        ),
        (lambda p, f: ["--fps=0"], "--fps=0.0: give pictures per second"),
        (lambda p, f: ["--frames=0"], "--frames=0: give at least 1"),
        (lambda p, f: ["--piece=0"], "--piece=0: give at least 1"),
        (lambda p, f: ["--width=40"], "--width=40 must be a multiple of 16 pixels, such as 32"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    checkpoint: Path,
    films: Films,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: Options,
    message: str,
) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    told = [f"--checkpoint={checkpoint}", f"--out={tmp_path}", "--prompt=a star", "--sampler.steps=1"]
    assert main([*told, *options(tmp_path, films)]) == 2
    error = [line for line in capfd.readouterr().err.strip().splitlines() if "error" in line]
    assert len(error) == 1
    assert message in error[0]


@pytest.mark.parametrize(
    ("condition", "options", "message"),
    [
        ({"prefix": 0, "random": 0}, ["--extend=forward"], "a given prefix: its weights condition.prefix"),
        ({"suffix": 0, "random": 0}, ["--extend=both"], "a given ending"),
        ({"both_ends": 0, "random": 0}, ["--loop"], "a given both ends"),
        ({"both_ends": 0, "suffix": 0, "random": 0}, ["--keep=0-4,8-12"], "later pictures"),
    ],
)
def test_a_checkpoint_that_was_never_shown_such_things_is_refused(
    films: Films,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    condition: dict[str, float],
    options: list[str],
    message: str,
) -> None:
    checkpoint = write_checkpoint(tmp_path, **condition)
    told = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--prompt=a star"]
    assert main([*told, f"--video={films.a}", *options]) == 2
    assert message in capfd.readouterr().err
