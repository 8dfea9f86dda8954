"""What cannot be drawn is told in one line before anything is drawn, and which line of a file asks for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_checkpoint import film, write_checkpoint

import pipelines.generate as generate_module
from pipelines.sample import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@dataclass(frozen=True)
class Films:
    """Videos of 21 and of 60 pictures."""

    a: str
    long: str


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    return Films(film(folder / "a.mp4", 21, 30), film(folder / "long.mp4", 60, 30))


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before the first step."""

    def draw(*_: Any) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(generate_module, "draw", draw)


def refused(checkpoint: Path, out: Path, capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that a command ends with."""
    told = [f"--checkpoint={checkpoint}", f"--out={out}", "--sampler.steps=1", "--device=cpu"]
    assert main([*told, *options]) == 2
    errors = [line for line in capfd.readouterr().err.strip().splitlines() if "error" in line]
    assert len(errors) == 1
    return errors[0]


Options = Callable[[Path, Films], list[str]]


@pytest.mark.usefixtures("no_drawing")
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
        (lambda p, f: ["--connect", f.a, "missing.mp4"], "cannot read the video missing.mp4"),
        (lambda p, f: [f"--edit={f.a}", "--strength=1.2"], "--strength=1.2 must be from 0"),
        (lambda p, f: [f"--edit={f.a}", "--strength=.nan"], "--strength=nan must be from 0"),
        (lambda p, f: ["--strength=0.6"], "give --edit FILE with it"),
        (lambda p, f: [f"--edit={p / 'text.mp4'}"], "text.mp4: not a readable video"),
        (lambda p, f: ["--edit=missing.mp4"], "cannot read the video missing.mp4"),
        (lambda p, f: [f"--edit={f.a}", "--frames=22"], "--frames=22: the video to edit has 21 pictures"),
        (lambda p, f: [f"--image={p / 'text.mp4'}"], "cannot read the picture"),
        (lambda p, f: ["--image=missing.png"], "cannot read the picture missing.png"),
        (lambda p, f: [f"--image={p / 'red.png'}", "--frames=1"], "leaves nothing to draw"),
        (lambda p, f: ["--only_generated"], "--only_generated leaves out videos that are given"),
        (lambda p, f: ["--loop", "--only_generated"], "--only_generated leaves out videos"),
        (lambda p, f: [f"--edit={f.a}", "--only_generated"], "--only_generated leaves out videos"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-4", "--only_generated"], "--only_generated leaves"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-8,18-21"], "--keep 18-21: there are 21 pictures"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-8", "--frames=8"], "--keep 0-8: there are 8 pictures"),
        (lambda p, f: [f"--video={f.a}", "--keep=8-4"], "no list of picture numbers in rising order"),
        (lambda p, f: [f"--video={f.a}", "--keep=0-8,4-9"], "no list of picture numbers in rising order"),
        (lambda p, f: [f"--video={f.a}", "--keep="], "--keep= is no list of picture numbers"),
        (lambda p, f: [f"--video={f.a}", "--keep=,"], "--keep=, is no list of picture numbers"),
        (lambda p, f: [f"--video={f.a}", "--keep=5-7", "--piece=21"], "give 4-7 or 5-8"),
        (
            lambda p, f: [f"--video={f.a}", "--keep=0-8,10-10"],
            "too little to lead to over 1 pictures: keep 9-10",
        ),
        (lambda p, f: [f"--video={f.a}", "--keep=0-20"], "keeps all 21 pictures"),
        (
            lambda p, f: ["--loop", "--frames=10"],
            "--frames=10 is too short for a loop, of which 15 lead back",
        ),
        (lambda p, f: ["--fps=0"], "--fps=0.0: give 0.1 to 240 pictures per second"),
        (lambda p, f: ["--fps=0.0001"], "--fps=0.0001: give 0.1 to 240 pictures per second"),
        (lambda p, f: ["--fps=1e9", f"--video={f.a}", "--loop"], "--fps=1000000000.0: give 0.1 to 240"),
        (lambda p, f: ["--fps=.nan"], "--fps=nan: give 0.1 to 240"),
        (lambda p, f: ["--frames=0"], "--frames=0: give at least 1"),
        (lambda p, f: ["--frames=1000000000"], "--frames=1000000000: give at least 1 and at most 1,000,000"),
        (
            lambda p, f: [f"--video={f.a}", "--keep=0-4", "--frames=1000000000"],
            "--frames=1000000000: give at least 1 and at most 1,000,000",
        ),
        (lambda p, f: ["--piece=0"], "--piece=0: give at least 1"),
        (lambda p, f: ["--piece=1000000000"], "--piece=1000000000: give at least 1 and at most 1,000,000"),
        (lambda p, f: ["--piece=1000000"], "give a smaller --piece, --width or --height"),
        (lambda p, f: ["--width=1600000"], "give sides of at most 16384 pixels"),
        (lambda p, f: ["--height=1600000", "--frames=1"], "give sides of at most 16384 pixels"),
        (lambda p, f: ["--width=16384", "--height=16384"], "give a smaller --piece, --width or --height"),
        (lambda p, f: ["--width=40"], "--width=40 must be a multiple of 16 pixels, such as 32"),
        (lambda p, f: ["--context=1000"], "leaves nothing to draw of a piece of 17 frames: give at most 13"),
        (lambda p, f: ["--piece=1", "--frames=9"], "give --piece of at least 5 frames"),
        (lambda p, f: [f"--video={f.a}", "--extend=forward", "--piece=1"], "of at least 5 frames"),
        (lambda p, f: ["--gif", "--frames=1"], "--gif: a picture becomes a PNG"),
        (lambda p, f: ["--tile=12"], "a tile of 12 pixels does not fit latents of 8"),
        (lambda p, f: ["--seed=-1"], "--seed=-1: seeds are from 0 to 4294967295"),
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
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    found = refused(checkpoint, tmp_path / "out", capfd, "--prompt=a star", *options(tmp_path, films))
    assert message in found


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "--frames=0: give at least 1"),
        ({"fps": 1e9}, "--fps=1000000000.0: give 0.1"),
        ({"extend": "both"}, "--extend needs a video"),
        ({"edit": "missing.mp4"}, "cannot read the video missing.mp4"),
        ({"loop": True, "frames": 10}, "too short for a loop"),
        ({"video": "A", "keep": "0-8,18-21"}, "--keep 18-21: there are 21 pictures"),
        (
            {"video": "A", "extend": "forward"},
            "was not trained to draw a clip with its beginning (2 latent frames)",
        ),
    ],
)
def test_a_line_of_a_file_is_named(
    films: Films, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    """Also where settings, files or training are amiss, and before any other line is drawn."""
    checkpoint = write_checkpoint(tmp_path, prefix=0, random=0)
    path = tmp_path / "prompts.jsonl"
    row = {"prompt": "b", **options} | ({"video": films.a} if "video" in options else {})
    path.write_text("\n" + "\n".join(map(json.dumps, [{"prompt": "a"}, row])))
    found = refused(checkpoint, tmp_path / "out", capfd, f"--prompts={path}")
    assert f"error: {path}, line 3: " in found
    assert message in found


def test_a_file_in_the_place_of_the_folder(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out in ("file", "file/below"):
        assert "cannot be made a folder" in refused(checkpoint, tmp_path / out, capfd, "--prompt=a")


#: Weights of training, the command, and what it lacks; null where all was shown.
TRAINED = [
    ({"prefix": 0, "random": 0}, ["--video=A", "--extend=forward"], "its beginning (2 latent frames)"),
    ({"prefix": 0, "random": 0}, ["--video=A", "--extend=forward", "--context=1"], None),
    ({"suffix": 0, "random": 0}, ["--video=A", "--extend=both"], "its ending (2 latent frames)"),
    (
        {"both_ends": 0, "random": 0},
        ["--video=A", "--loop"],
        "beginning (1 latent frame) and its ending (1 latent",
    ),
    ({"random": 0}, ["--video=A", "--loop"], None),
    (
        {"random": 0},
        ["--video=A", "--loop", "--context=5"],
        "(2 latent frames) and its ending (2 latent frames)",
    ),
    (
        {"both_ends": 0, "random": 0},
        ["--video=A", "--keep=0-4,12-16", "--piece=21"],
        "pictures in its middle",
    ),
    # A beginning of several latent frames is no first picture.
    (
        {"prefix": 0, "random": 0},
        ["--video=A", "--keep=0-8", "--piece=21"],
        "its beginning (3 latent frames)",
    ),
    ({"prefix": 0, "random": 0}, ["--video=A", "--keep=0-0", "--piece=21"], None),
    # What is edited in several pieces goes on from what was made.
    ({"prefix": 0, "random": 0}, ["--edit=LONG"], "its beginning (2 latent frames)"),
    ({"prefix": 0, "random": 0}, ["--edit=LONG", "--frames=17"], None),
    (
        {"first_frame": 0, "prefix": 0, "random": 0},
        ["--loop", "--image=RED"],
        "its beginning (1 latent frame)",
    ),
    # 15 new pictures and one at each end are a piece; one more is a chain.
    ({"first_frame": 0, "prefix": 0, "random": 0}, ["--connect", "A", "A", "--frames=15"], None),
    ({"first_frame": 0, "prefix": 0, "random": 0}, ["--connect", "A", "A", "--frames=16"], "its beginning"),
    ({"prefix": 0, "random": 0}, ["--frames=18"], "its beginning (2 latent frames)"),
    ({"prefix": 0, "random": 0}, ["--frames=17"], None),
]


@pytest.mark.parametrize(("condition", "options", "message"), TRAINED)
def test_only_what_training_showed_is_drawn(
    films: Films,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    condition: dict[str, float],
    options: list[str],
    message: str | None,
) -> None:
    checkpoint = write_checkpoint(tmp_path, **condition)
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    names = {"A": films.a, "LONG": films.long, "RED": str(tmp_path / "red.png")}
    filled = ["=".join(names.get(part, part) for part in option.split("=")) for option in options]
    out = tmp_path / "out"
    if message is None:
        told = [f"--checkpoint={checkpoint}", f"--out={out}", "--sampler.steps=1", "--device=cpu"]
        assert main([*told, "--prompt=a", *filled]) == 0
    else:
        found = refused(checkpoint, out, capfd, "--prompt=a", *filled)
        assert "the checkpoint was not trained to draw a clip with" in found
        assert message in found
        assert not list(out.iterdir())


def test_what_is_drawn_is_told_of_though_a_later_group_fails(
    checkpoint: Path, films: Films, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A picture that passes the first look and then has gone."""
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a"}, {"prompt": "b", "image": str(tmp_path / "red.png")}]
    path.write_text("\n".join(map(json.dumps, rows)))
    draw = generate_module.draw

    def losing(*args: Any) -> Any:
        (tmp_path / "red.png").unlink(missing_ok=True)
        return draw(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate_module, "draw", losing)
        # A budget of one video: each is a group.
        found = refused(checkpoint, tmp_path / "out", capfd, f"--prompts={path}", "--sampler.token_budget=60")
    assert f"{path}, line 2: cannot read the picture" in found
    (row,) = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert row["video"] == "000.mp4"
    assert [p.name for p in sorted((tmp_path / "out").glob("*.mp4"))] == ["000.mp4"]


def test_how_far_it_is_can_be_told_of_every_mode(
    checkpoint: Path, films: Films, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Steps are counted before: three pieces of four steps, and three of an edit with the two below 0.5."""
    rows = [{"prompt": "a", "frames": 41}, {"prompt": "b", "edit": films.a, "strength": 0.5}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    told = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--device=cpu", f"--prompts={path}"]
    assert main([*told, "--sampler.steps=4"]) == 0
    assert "sample: 16/16 steps" in capfd.readouterr().err
