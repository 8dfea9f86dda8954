"""Prompts from a file, and that prompts.json tells enough to make a video again."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from small_checkpoint import film, write_checkpoint

from curate.errors import BadInput
from pipelines.cli import parse
from pipelines.sample import SampleCommand, gather_lists, main
from pipelines.sample_prompts import asked, one_by_one
from pipelines.upsample import UpsampleConfig


def command(**options: Any) -> SampleCommand:
    return SampleCommand(checkpoint="run", out="out", **options)


def test_prompts_of_a_text_file_come_after_those_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("a red disc\n\n  [a, b]: {c}  \n")
    found = one_by_one(command(prompt=["a star"], prompts=str(tmp_path / "more.txt"), seed=5))
    path = tmp_path / "more.txt"
    assert [(one.config.prompt, one.config.seed, one.where) for one in found] == [
        (["a star"], 5, ""),
        (["a red disc"], 6, f"{path}, line 1"),
        (["[a, b]: {c}"], 7, f"{path}, line 3"),
    ]


def test_lines_of_a_jsonl_file_have_options_of_their_own(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a", "seed": 40, "width": 64},
        {"prompt": "b", "video": "x.mp4", "extend": "both", "fps": 12},
        {"prompt": "c", "connect": ["x.mp4", "y.mp4"], "loop": False, "strength": 0.5},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = command(
        prompts=str(tmp_path / "own.jsonl"), seed=3, width=32, upsample=UpsampleConfig(variants=2)
    )
    found = [one.config for one in one_by_one(config)]
    assert [(one.prompt[0], one.seed, one.width) for one in found] == [
        ("a", 40, 64), ("a", 41, 64), ("b", 5, 32), ("b", 6, 32), ("c", 7, 32), ("c", 8, 32)
    ]  # fmt: skip
    assert (found[2].video, found[2].extend, found[2].fps) == ("x.mp4", "both", 12)
    assert found[4].connect == ["x.mp4", "y.mp4"]
    # What is told of a video asks for it again.
    (tmp_path / "again.jsonl").write_text("\n".join(json.dumps(asked(one)) for one in found))
    again = one_by_one(command(prompts=str(tmp_path / "again.jsonl")))
    assert [asked(one.config) for one in again] == [asked(one) for one in found]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", "give a .txt file with one prompt in each line, or a .jsonl file"),
        ("a.txt", "\n \n", "has no line"),
        ("a.jsonl", '{"prompt": "a"}\n{', "a.jsonl, line 2 is no JSON"),
        ("a.jsonl", '{"text": "a"}', 'a.jsonl, line 1 must be an object with a "prompt"'),
        ("a.jsonl", '{"prompt": "a", "sed": 1}', "has no use for 'sed'; the nearest is 'seed'"),
        ("a.jsonl", '{"prompt": "a", "seed": "1"}', 'line 1: "1" cannot be seed'),
        ("a.jsonl", '{"prompt": "a", "seed": true}', "true cannot be seed"),
        ("a.jsonl", '{"prompt": "a", "extend": "up"}', '"up" cannot be extend'),
        ("a.jsonl", '{"prompt": "a", "connect": ["a", 1]}', "cannot be connect"),
        (
            "a.jsonl",
            '\n{"prompt": "a" "b"}',
            "a.jsonl, line 2 is no JSON: Expecting ',' delimiter at column 16.",
        ),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1 is no JSON that can be read: maximum recursion depth"),
        (
            "a.jsonl",
            f'{{"prompt": "a", "seed": {"9" * 5000}}}',
            "line 1 is no JSON that can be read: Exceeds",
        ),
        ("a.jsonl", '{"prompt": "a\\ud83d"}', "line 1: 'a\\ud83d' is no text"),
        ("a.jsonl", '{"prompt": "a", "seed": -1}', "line 1: --seed=-1: seeds are from 0 to 4294967295."),
        ("a.jsonl", '{"prompt": "a", "seed": 4294967296}', "seeds are from 0 to 4294967295."),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput) as error:
        one_by_one(command(prompts=str(tmp_path / name)))
    assert message in str(error.value)


def test_lines_end_where_files_say(tmp_path: Path) -> None:
    """Not where Unicode sees a line break; a mark of the byte order is no sign, and a suffix has any case."""
    (tmp_path / "a.TXT").write_bytes("\ufeffa\u2028b\r\nc\x85d\x0be\n".encode())
    found = one_by_one(command(prompts=str(tmp_path / "a.TXT")))
    assert [one.config.prompt[0] for one in found] == ["a\u2028b", "c\x85d\x0be"]
    rows = [{"prompt": "a\u2028b 🎈"}, {"prompt": "c"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "b.JSONL").write_bytes(text.encode("utf-8-sig"))
    found = one_by_one(command(prompts=str(tmp_path / "b.JSONL")))
    assert [one.config.prompt[0] for one in found] == ["a\u2028b 🎈", "c"]


def test_seeds_that_count_on_end_where_those_of_later_pieces_begin() -> None:
    assert one_by_one(command(prompt=["a"], seed=2**32 - 1))[0].config.seed == 2**32 - 1
    for prompts, seed in ((["a", "b"], 2**32 - 1), (["a"], 2**32), (["a"], -1)):
        with pytest.raises(BadInput, match="seeds are from 0 to 4294967295"):
            one_by_one(command(prompt=prompts, seed=seed))


def test_something_must_be_asked_for() -> None:
    with pytest.raises(BadInput, match="there is no prompt"):
        one_by_one(command())
    with pytest.raises(BadInput, match=r"--upsample\.variants=0"):
        one_by_one(command(prompt=["a"], upsample=UpsampleConfig(variants=0)))


def test_lists_are_gathered_as_they_stand() -> None:
    args = ["--seed=1", "--prompt", "a, b", "--connect", "a b.mp4", "c,d.mp4", "--out=x", "--prompt=c=d"]
    assert gather_lists(args) == [
        "--seed=1", '--connect=["a b.mp4", "c,d.mp4"]', "--out=x", '--prompt=["a, b", "c=d"]'
    ]  # fmt: skip
    assert gather_lists(["--help"]) == ["--help"]
    # No list takes the flags behind it.
    assert gather_lists(["--connect", "a.mp4", "--frames=3"]) == ['--connect=["a.mp4"]', "--frames=3"]
    assert gather_lists(["--connect", "a", "--prompt", "x", "b"]) == [
        '--connect=["a"]',
        "b",
        '--prompt=["x"]',
    ]
    assert gather_lists(["--prompt", "--out", "x"]) == ["--prompt", "--out", "x"]
    assert gather_lists(["--prompt", "a", "--prompt"]) == ["--prompt", '--prompt=["a"]']


#: Signs beyond U+FFFF, what YAML forbids or takes for the end of a line, and its own signs.
SIGNS = [
    "a 🎈 and a 🦊",
    "\x7f\x80\x85\u2028\u2029\ufeff\ufffe",
    "tab\tnew\nline",
    "\"'\\ {}[]:,#&*!|>%@`",
    "日本語",
]


def test_every_sign_reaches_the_command() -> None:
    given = [arg for sign in SIGNS for arg in ("--prompt", sign)]
    args = gather_lists([*given, "--connect", *SIGNS[:2], "--checkpoint=x", "--out=y"])
    found = parse(SampleCommand, args, name="sample")
    assert found.prompt == SIGNS
    assert found.connect == SIGNS[:2]


def test_every_sign_comes_back(tmp_path: Path) -> None:
    """The whole command: prompts and the names of files."""
    checkpoint = write_checkpoint(tmp_path)
    ends = [film(tmp_path / name, 5, 30) for name in ("a 🦊.mp4", "b \u2028.mp4")]
    told = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--sampler.steps=1", "--device=cpu"]
    prompts = [arg for sign in SIGNS for arg in ("--prompt", sign)]
    assert main([*told, *prompts, "--connect", *ends, "--frames=3"]) == 0
    rows = json.loads((tmp_path / "out" / "prompts.json").read_text(encoding="utf-8"))
    assert [row["original"] for row in rows] == SIGNS
    assert all(row["asked"]["connect"] == ends for row in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--connect", "a.mp4", "--frames=3"], "--connect needs two videos, not 1"),
        (["--connect", "a.mp4", "--prompt", "x", "b.mp4"], "'b.mp4' belongs to no option"),
        (["--connect"], "--connect needs two videos, not 0"),
        (["--connect", "a", "b", "c"], "--connect needs two videos, not 3"),
        (["--prompt", "--seed=1"], "--prompt"),
        (["--prompt", "a", "--prompt"], "--prompt"),
        (["--prompt", "a\udc80"], "--prompt="),
    ],
)
def test_lists_that_are_not_whole_are_one_line(
    args: list[str], message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--checkpoint=x", f"--out={tmp_path / 'out'}", *args]) == 2
    told = capfd.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("solver", ["heun", "unipc"])
def test_a_video_is_made_again_from_what_is_told_of_it(tmp_path: Path, solver: str) -> None:
    """From the same lines the same bytes."""
    checkpoint = write_checkpoint(tmp_path)
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    lines = [
        {"prompt": "a star 🎈\u2028", "frames": 9},
        {"prompt": "a red disc", "image": str(tmp_path / "red.png"), "frames": 22, "width": 64, "height": 32},
        {"prompt": "", "loop": True, "seed": 77},
    ]
    lines[2]["image"] = str(tmp_path / "red.png")
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sampler = [f"--sampler.solver={solver}", "--sampler.steps=3", "--sampler.rescale=0.5"]
    told = [f"--checkpoint={checkpoint}", *sampler, "--device=cpu"]
    assert main([*told, f"--prompts={tmp_path / 'prompts.jsonl'}", f"--out={tmp_path / 'a'}", "--gif"]) == 0
    rows = json.loads((tmp_path / "a" / "prompts.json").read_text())
    assert [row["mode"] for row in rows] == ["text", "image", "loop"]
    assert [row["frames"] for row in rows] == [9, 22, 17 + 15]
    assert rows[0]["sampler"]["solver"] == solver
    assert rows[0]["model"]["checkpoint"] == str(checkpoint)
    assert rows[0]["model"]["vae"].startswith("tiny-4x8x8-")
    assert rows[1]["asked"] == {**lines[1], "seed": 1}
    (tmp_path / "again.jsonl").write_text("\n".join(json.dumps(row["asked"]) for row in rows))
    assert (
        main([*told, f"--prompts={tmp_path / 'again.jsonl'}", f"--out={tmp_path / 'b'}", "--seed=1000"]) == 0
    )
    for number, row in enumerate(rows):
        made = tmp_path / "a" / row["video"]
        assert (tmp_path / "b" / row["video"]).read_bytes() == made.read_bytes()
        with Image.open(made.with_suffix(".gif")) as gif:
            assert (gif.n_frames, gif.size) == (row["frames"], (row["width"], row["height"]))  # type: ignore[attr-defined]
        # Alone, only the last digits of the latents are others.
        (tmp_path / "one.jsonl").write_text(json.dumps(row["asked"]))
        out = tmp_path / f"alone{number}"
        assert main([*told, f"--prompts={tmp_path / 'one.jsonl'}", f"--out={out}"]) == 0
        alone, together = pictures_of(out / "000.mp4"), pictures_of(made)
        assert np.abs(alone.astype(int) - together).mean() < 0.5
    with Image.open(tmp_path / "a" / "strip.png") as strip:
        assert strip.size[0] == 6 * 164 + 4


def pictures_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
