"""A line for each stage that is at work: on a terminal, in a log, and in the log of a job that Ray runs."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import moving_square, write_video

import pipelines.progress
from pipelines.progress import Board, Line
from pipelines.progress_terminal import Bars, Row, drawn

ROOT = Path(__file__).resolve().parents[1]


class Log:
    """Boards that write into a log, by a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.second, self.stream = 0.0, io.StringIO()
        monkeypatch.setattr(pipelines.progress.time, "monotonic", lambda: 1000.0 + self.second)

    def told(self) -> list[str]:
        """What was written since this was asked last."""
        lines = self.stream.getvalue().splitlines()
        self.stream.truncate(0)
        self.stream.seek(0)
        return lines


@pytest.fixture
def job_log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "line", "told", "ended"),
    [
        (30, Line("curate/analyse", "files", 400, 120, {"ok": 118, "failed": 2}),
         "curate/analyse: 120/400 files, ok 118, failed 2, 4.0 files/s, 1:10 left",
         "curate/analyse: 120/400 files, ok 118, failed 2, done in 0:30"),
        (60, Line("pack", "shards", 40, 2), "pack: 2/40 shards, 2.0 shards/min, 19:00 left",
         "pack: 2/40 shards, done in 1:00"),
        (60, Line("pack", "shards", 400, 0, {"failed": 0}), "pack: 0/400 shards, failed 0",
         "pack: 0/400 shards, failed 0, done in 1:00"),
        (4000, Line("pack", "shards", 8, 8), "pack: 8/8 shards, 0.1 shards/min", "pack: 8/8 shards, done in 1:06:40"),
        (10, Line("pack", "shards", None, 8), "pack: 8 shards, 0.8 shards/s", "pack: 8 shards, done in 0:10"),
    ],
)  # fmt: skip
def test_a_line_tells_all_that_is_known(
    seconds: float, line: Line, told: str, ended: str, job_log: Log
) -> None:
    with Board(job_log.stream) as board:
        board.tell([Line(line.title, line.unit, line.total)])
        job_log.second = seconds
        board.tell([line])
        assert job_log.told() == [told]
    assert job_log.told() == [ended]


def test_stages_with_news_have_their_lines_together_every_few_seconds(job_log: Log) -> None:
    with Board(job_log.stream) as board:
        for second in range(23):
            job_log.second = second
            cut = Line("job/cut", "files", 20, min(second, 16))
            board.tell([cut, Line("job/pack", "shards", 4, int(second > 6) + int(second > 18))])
            assert job_log.told() == {
                5: ["job/cut: 5/20 files, 1.0 files/s, 0:15 left"],  # nothing is packed yet
                10: [
                    "job/cut: 10/20 files, 1.0 files/s, 0:10 left",
                    "job/pack: 1/4 shards, 6.0 shards/min, 0:30 left",
                ],
                15: ["job/cut: 15/20 files, 1.0 files/s, 0:05 left"],
                20: [
                    "job/cut: 16/20 files, 0.8 files/s, 0:05 left",
                    "job/pack: 2/4 shards, 6.0 shards/min, 0:20 left",
                ],
            }.get(second, [])
    assert job_log.told() == ["job/cut: 16/20 files, done in 0:22", "job/pack: 2/4 shards, done in 0:22"]


def test_news_after_a_silence_is_told_at_once(job_log: Log) -> None:
    with Board(job_log.stream) as board:
        for second, done in ((0, 0), (5, 1), (10, 1), (13, 2), (14, 3), (18, 3)):
            job_log.second = second
            board.tell([Line("a", "files", 9, done)])
        assert [line.split(",")[0] for line in job_log.told()] == [
            "a: 1/9 files",
            "a: 2/9 files",
            "a: 3/9 files",
        ]


def test_a_stage_that_is_through_tells_how_fast_it_was(job_log: Log) -> None:
    with Board(job_log.stream) as board:
        for second, done, failed in ((0, 0, 0), (4, 8, 0), (100, 8, 1)):
            job_log.second = second
            board.tell([Line("a", "files", 8, done, {"failed": failed})])
        assert job_log.told() == ["a: 8/8 files, failed 1, 2.0 files/s"]


def test_stages_may_join_and_what_they_did_before_is_no_rate(job_log: Log) -> None:
    with Board(job_log.stream) as board:
        board.tell([])
        job_log.second = 10
        board.tell([Line("a", "files", 20, 5)])
        assert job_log.told() == ["a: 5/20 files"]
        job_log.second = 20
        board.tell([Line("a", "files", 20, 15), Line("b", "shards", 4)])
        assert job_log.told() == ["a: 15/20 files, 1.0 files/s, 0:05 left"]
    assert job_log.told() == ["a: 15/20 files, done in 0:20", "b: 0/4 shards, done in 0:20"]


def test_after_two_minutes_lines_come_every_half_minute(job_log: Log) -> None:
    seconds = []
    with Board(job_log.stream) as board:
        for second in range(200):
            job_log.second = second
            board.tell([Line("a", "files", 900, second)])
            seconds += [second for _ in job_log.told()]
    assert seconds == [*range(5, 120, 5), 145, 175]
    assert job_log.told() == ["a: 199/900 files, done in 3:19"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_on(width: int, lines: list[Line], clock: Log, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands on a terminal of so many columns once `lines` were told, 587 seconds after they began."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    with Board(stream) as board:
        board.tell([Line(line.title, line.unit, line.total) for line in lines])
        clock.second = 587
        board.tell(lines)
    _, _, last = stream.getvalue().rpartition("\x1b[2K")  # what was drawn before is wiped away
    return [line.rstrip() for line in plain(last) if line.strip()]


CURATE = [
    Line("curate/analyse", "files", 10_000, 1_234, {"ok": 1_200, "failed": 34, "clips": 54_321}),
    Line("curate/clip", "files", 10_000, 1_229, {"clips scored": 53_987, "clips failed": 12}),
    Line("curate/text", "files", 10_000, 5_000, {"clips read": 41_234, "clips rejected": 12_345}),
    Line("curate/commit", "files", 10_000, 0, {"ok": 0, "failed": 0}),
]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, [
            "curate  9:47",
            "  analyse 1,234/10,000 files, …    2.1/s, 1:09:30 left",
            "  clip    1,229/10,000 files, …    2.1/s, 1:09:49 left",
            "  text    5,000/10,000 files, …    8.5/s, 9:47 left",
            "  commit  0/10,000 files, ok 0, …",
        ]),
        (80, [
            "curate  9:47",
            "  analyse 1,234/10,000 files, ok 1,200, failed 34, …  2.1/s, 1:09:30 left",
            "  clip    1,229/10,000 files, clips scored 53,987, …  2.1/s, 1:09:49 left",
            "  text    5,000/10,000 files, clips read 41,234, …    8.5/s, 9:47 left",
            "  commit  0/10,000 files, ok 0, failed 0",
        ]),
        (100, [
            "curate  9:47",
            "  analyse ━───────── 1,234/10,000 files, ok 1,200, failed 34, …  2.1 files/s, 1:09:30 left",
            "  clip    ━───────── 1,229/10,000 files, clips scored 53,987, …  2.1 files/s, 1:09:49 left",
            "  text    ━━━━━───── 5,000/10,000 files, clips read 41,234, …    8.5 files/s, 9:47 left",
            "  commit  ────────── 0/10,000 files, ok 0, failed 0",
        ]),
        (115, [
            "curate  9:47",
            "  analyse ━━─────────────── 1,234/10,000 files, ok 1,200, failed 34, clips 54,321         "
            "2.1 files/s, 1:09:30 left",
            "  clip    ━━─────────────── 1,229/10,000 files, clips scored 53,987, clips failed 12      "
            "2.1 files/s, 1:09:49 left",
            "  text    ━━━━━━━━───────── 5,000/10,000 files, clips read 41,234, clips rejected 12,345  "
            "8.5 files/s, 9:47 left",
            "  commit  ───────────────── 0/10,000 files, ok 0, failed 0",
        ]),
        (140, [
            "curate  9:47",
            "  analyse ━━────────────────── 1,234/10,000 files, ok 1,200, failed 34, clips 54,321         "
            "2.1 files/s, 1:09:30 left",
            "  clip    ━━────────────────── 1,229/10,000 files, clips scored 53,987, clips failed 12      "
            "2.1 files/s, 1:09:49 left",
            "  text    ━━━━━━━━━━────────── 5,000/10,000 files, clips read 41,234, clips rejected 12,345  "
            "8.5 files/s, 9:47 left",
            "  commit  ──────────────────── 0/10,000 files, ok 0, failed 0",
        ]),
    ],
)  # fmt: skip
def test_a_terminal_tells_whose_line_it_is_what_is_done_and_left_on_any_width(
    width: int, expected: list[str], job_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = shown_on(width, CURATE, job_log, monkeypatch)
    assert shown == expected
    assert max(map(len, shown)) <= width


@pytest.mark.parametrize(
    ("width", "line", "expected"),
    [
        (80, Line("recaption/finish", "captions", None, 4_321), "recaption/finish 4,321 captions  7.4/s"),
        (100, Line("recaption/finish", "captions", None, 4_321),
         "recaption/finish 4,321 captions  7.4 captions/s  9:47"),
        (80, Line("train", "steps", 100, 100, {}, {"loss": 0.1234}), "train 100/100 steps, loss 0.1234  10.2/min"),
        (100, Line("train", "steps", 100, 100, {}, {"loss": 0.1234}),
         "train ━━━━━━━━━━━━━━━━━━━━ 100/100 steps, loss 0.1234  10.2 steps/min  9:47"),
        (99, Line("train", "steps", 100, 100), "train 100/100 steps  10.2/min"),
        (100, Line("train", "steps", 100, 120),  # more than was thought
         "train ━━━━━━━━━━━━━━━━━━━━ 120/100 steps  12.3 steps/min, 0:00 left  9:47"),
        (40, CURATE[0], "curate/analyse 1,234/10,000 files  2.1/s"),  # the end is lost, not the counts
    ],
)  # fmt: skip
def test_a_job_of_one_line_has_its_whole_name_in_it(
    width: int, line: Line, expected: str, job_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown_on(width, [line], job_log, monkeypatch) == [expected]


def test_stages_of_several_commands_keep_their_names() -> None:
    lines = drawn(
        [Row(title, ["2 files"], None, 0.0, "files", None) for title in ("a/cut", "b/cut")], 1.0, 80
    )
    assert [line.plain.rstrip() for line in lines] == ["a/cut 2 files", "b/cut 2 files"]


def test_a_terminal_without_unicode_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(stream, "isatty", lambda: True)
    bars = Bars(stream)
    bars.start()
    bars.show([Row("cut", ["1/2 files", "x" * 90], 0.5, 0.0, "files", None)])
    bars.stop()
    stream.seek(0)
    assert re.search(r"cut =====----- 1/2 files, \.\.\.  0:0\d", " ".join(plain(stream.read())))


def plain(shown: str) -> list[str]:
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for i in range(2):
        write_video(folder / f"{i}.mp4", moving_square(30, seed=i))
    (folder / "bad.mp4").write_text("no video")
    return folder


def command(films: Path, dataset: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "pipelines.curate", "--input", str(films), "--dataset", str(dataset),
        "--clip.model=off", *words,
    ]  # fmt: skip


LAST = [
    "curate/analyse: 3/3 files, ok 2, failed 1, clips 2",
    "curate/clip: 3/3 files, clips 2",
    "curate/text: 3/3 files, clips read 2",
    "curate/commit: 3/3 files, ok 2, failed 1, clips 2",
    "curate/decide: 2 clips, kept 2, rejected 0",
]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_last_lines_of_a_job_are_exact(films: Path, tmp_path: Path, engine: str) -> None:
    words = command(films, tmp_path, f"--engine={engine}", "--ray.num_cpus=2", "--ray.object_store_gib=0.1")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    ended = [line.split(", done in")[0] for line in done.stderr.splitlines() if ", done in" in line]
    assert ended == LAST


def test_a_job_on_a_terminal_ends_with_a_line_per_stage(films: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    job = subprocess.Popen(
        command(films, tmp_path, "--engine=local"), cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    assert job.wait() == 0
    lines = [line.strip() for line in plain(shown.decode()) if line.strip()]
    assert any(re.fullmatch(r"curate  0:\d\d", line) for line in lines)
    for told in LAST:
        title, _, rest = told.partition(": ")
        name = title if title == "curate/decide" else title.removeprefix("curate/")
        ended = [line for line in lines if line.startswith(f"{name} ")][-1]
        assert rest in ended


def test_an_error_leaves_the_lines_where_they_stood(films: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "_state").mkdir()
    (tmp_path / "dataset" / "_state" / "curate").write_text("a file where the units should lie")
    done = subprocess.run(
        command(films, tmp_path / "dataset", "--engine=local"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    stopped = [line for line in done.stderr.splitlines() if ", stopped in" in line]
    assert [line.split(":")[0] for line in stopped] == [
        f"curate/{s}" for s in ("analyse", "clip", "text", "commit")
    ]
    assert "commit: 0/3 files, stopped" in stopped[-1]
