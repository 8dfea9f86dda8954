"""A dataclass as a command line: flags, YAML, overrides, and one line for every mistake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pytest
import yaml

from curate.errors import BadInput
from curate.stage import Resources
from pipelines.cli import run_command
from pipelines.engine import RayConfig, run_stages
from pipelines.spelling import nearest


@dataclass(frozen=True)
class Split:
    """How shots are found.

    Attributes:
        threshold: difference that makes a cut, in levels of luma.
        kinds: transitions to look for.
    """

    threshold: float = 27.0
    kinds: tuple[str, ...] = ("cut", "fade")

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise BadInput(f"split.threshold is {self.threshold}; give 0 or more.")


@dataclass(frozen=True)
class CurateLike:
    """Find the shots in footage.

    A second paragraph that
    goes on.

    Attributes:
        input: folder of videos.
        size: width and height in pixels.
        seconds: longest clip in seconds; null for no limit.
        engine: where the work runs.
        split: how shots are found
        names: which films to take.
        second: a second pass, off by default
        faults: render faults too.
        labels: free labels.

    Example:
        reelmill curate --input films --split.threshold=30
    """

    input: str
    size: tuple[int, int] = (256, 144)
    seconds: float | None = None
    engine: Literal["local", "ray"] = "ray"
    split: Split = field(default_factory=Split)
    names: list[str] = field(default_factory=list)
    second: Split | None = None
    faults: bool = False
    labels: dict[str, str] = field(default_factory=dict)


def read(*argv: str) -> CurateLike:
    found: list[CurateLike] = []
    assert run_command(CurateLike, found.append, list(argv), name="curate") == 0
    return found[0]


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a wrong command line gets; the command itself must not have run."""

    def must_not_run(config: CurateLike) -> None:
        raise AssertionError(f"ran with {config}")

    assert run_command(CurateLike, must_not_run, list(argv), name="curate") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("reelmill curate: error: ")
    return err


def test_flags_of_every_type() -> None:
    config = read(
        "--input", "my films", "--size=[640,360]", "--seconds", "1e1", "--engine=local", "--names=[a,b]",
        "--split.threshold", "30", "--split.kinds=[cut]", "--second.threshold=5", "--labels={place: sea}",
    )  # fmt: skip
    assert config == CurateLike(
        "my films", (640, 360), 10.0, "local", Split(30.0, ("cut",)), ["a", "b"], Split(5.0), False,
        {"place": "sea"},
    )  # fmt: skip


def test_defaults_are_those_of_the_dataclass() -> None:
    assert read("--input=films") == CurateLike("films")


@pytest.mark.parametrize(
    "argv", [["--faults", "--input=x"], ["--input=x", "--faults"], ["--input=x", "--faults=true"]]
)
def test_a_switch_needs_no_value(argv: list[str]) -> None:
    assert read(*argv).faults is True


def test_yaml_then_overrides(tmp_path) -> None:
    path = tmp_path / "a config.yaml"
    path.write_text("input: films\nsplit:\n  threshold: 3\n  kinds: [fade]\nseconds: 1e-1\n")
    config = read("--config", str(path), "--split.threshold=4")
    assert config == CurateLike("films", seconds=0.1, split=Split(4.0, ("fade",)))


def test_print_config_can_be_read_back(capsys, tmp_path) -> None:
    argv = ["--second.threshold=5", "--split.kinds=[cut]", "--labels={place: sea}", "--print_config"]
    assert run_command(CurateLike, print, argv, name="curate") == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["size"] == [256, 144]
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    assert read("--config", str(path), "--input=films") == CurateLike(
        "films", split=Split(kinds=("cut",)), second=Split(5.0), labels={"place": "sea"}
    )


def test_hyphens_are_read_as_underscores(capsys) -> None:
    assert run_command(CurateLike, print, ["--print-config"], name="curate") == 0
    assert "threshold: 27.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--inptu=x"], "there is no option --inptu; the nearest is --input."),
        (["--inp=x"], "there is no option --inp; the nearest is --input."),
        (["--input=x", "--split.treshold", "3"], "--split.treshold; the nearest is --split.threshold."),
        (["--input=x", "--threshold=3"], "--threshold; the nearest is --split.threshold."),
        (["--input=x", "--second.kind=3"], "--second.kind; the nearest is --second.kinds."),
        (["--input=x", "--split={treshold: 3}"], "'split.treshold'; the nearest is 'split.threshold'."),
        (["--input=x", "--engine=rya"], "--engine=rya is none of local, ray; the nearest is ray."),
        (["--input=x", "--split.threshold=high"], "--split.threshold=high is not a number."),
        (["--input=x", "--seconds=long"], "--seconds=long is not a number or null."),
        (["--input=x", "--names=a"], "Write a list in brackets: --names=[A,B]."),
        (["--input=x", "--size=[1,2,3]"], "--size=[1, 2, 3] is not tuple[int, int]."),
        (["--input=x", "--split.threshold=-1"], "split.threshold is -1.0; give 0 or more."),
        (["--input=x", "films"], "'films' belongs to no option"),
        (["--input"], "--input: expected one argument"),
        ([], "--input must be given (`reelmill curate --help`"),
        (["--config=none.yaml"], "cannot read the configuration file none.yaml: "),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(capsys, argv: list[str], expected: str) -> None:
    assert expected in complaint(capsys, *argv)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inptu: films", "has no use for the key 'inptu'; the nearest is 'input'."),
        ("input: x\nsplit:\n  treshold: 3", "key 'split.treshold'; the nearest is 'split.threshold'."),
        ("input: x\nsecond:\n  kind: []", "key 'second.kind'; the nearest is 'second.kinds'."),
        ("input: 3", "--input=3 is not text."),
        ("input: [3", "Problems parsing config"),
        ("hello", "Unexpected config: hello"),
    ],
)
def test_a_mistake_in_yaml_is_one_line_with_its_remedy(capsys, tmp_path, text: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert expected in complaint(capsys, "--config", str(path))


def test_the_last_part_of_a_key_alone_finds_it() -> None:
    assert (
        nearest("threshold", ["thread", "sources.analysis.shots.threshold"])
        == "sources.analysis.shots.threshold"
    )
    assert nearest("clip.threshold", ["rules.threshold", "clip.batch"]) == "rules.threshold"


def test_help_tells_everything(capsys) -> None:
    assert run_command(CurateLike, print, ["--help"], name="curate") == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: reelmill curate --input INPUT [options]\n")
    assert "Find the shots in footage.\n\nA second paragraph that goes on.\n" in text
    flat = " ".join(text.split())
    assert "--split.* how shots are found: --split.threshold" in flat
    assert "difference that makes a cut, in levels of luma. (type: number, default: 27.0)" in flat
    assert "folder of videos. (required, type: text)" in flat
    assert "null for no limit. (type: number or null, default: null)" in flat
    assert "{local,ray} where the work runs. (default: ray)" in flat
    assert "example:\n  reelmill curate --input films --split.threshold=30\n" in text
    assert "class_path" not in text


def test_a_positional_text() -> None:
    @dataclass(frozen=True)
    class Ask:
        """Ask.

        Attributes:
            dataset: folder.
            sql: the question.
        """

        dataset: str
        sql: str | None = None

    found: list[Ask] = []
    argv = ["--dataset", "d", "SELECT 1 -- one"]
    assert run_command(Ask, found.append, argv, name="query", positional="sql") == 0
    assert run_command(Ask, found.append, ["--dataset=d"], name="query", positional="sql") == 0
    assert found == [Ask("d", "SELECT 1 -- one"), Ask("d")]


def test_what_a_command_raises(capsys) -> None:
    def mendable(_config: CurateLike) -> None:
        raise BadInput("films is empty.\n  Put videos there.")

    def interrupted(_config: CurateLike) -> None:
        raise KeyboardInterrupt

    def broken(_config: CurateLike) -> None:
        raise ZeroDivisionError

    assert run_command(CurateLike, mendable, ["--input=x"], name="curate") == 2
    assert capsys.readouterr().err == "reelmill curate: error: films is empty. Put videos there.\n"
    assert run_command(CurateLike, interrupted, ["--input=x"], name="curate") == 130
    assert capsys.readouterr().err == "reelmill curate: interrupted.\n"
    with pytest.raises(ZeroDivisionError):
        run_command(CurateLike, broken, ["--input=x"], name="curate")
    assert run_command(CurateLike, lambda _config: 1, ["--input=x"], name="curate") == 1


def test_bad_input_of_a_ray_worker_is_told_like_any_other(capsys) -> None:
    class FromWorker(BadInput):  # what ray.exceptions.RayTaskError makes of an exception
        cause = BadInput("films is empty.")

    def remote(_config: CurateLike) -> None:
        raise FromWorker("Traceback (most recent call last): ...")

    assert run_command(CurateLike, remote, ["--input=x"], name="curate") == 2
    assert capsys.readouterr().err == "reelmill curate: error: films is empty.\n"


def test_bad_input_of_a_worker_of_ray_data_is_one_line(ray_cluster: None, capsys) -> None:
    class Refusing:
        output, resources = pa.schema([("number", pa.int64())]), Resources()

        def setup(self) -> None: ...

        def __call__(self, rows: list[dict]) -> list[dict]:
            raise BadInput("the server refused.\nSet a key.")

    def refused(_config: CurateLike) -> None:
        list(run_stages("ray", [{"number": 1}], Refusing.output, [Refusing()], RayConfig()))

    assert run_command(CurateLike, refused, ["--input=x"], name="curate") == 2
    assert capsys.readouterr().err == "reelmill curate: error: the server refused. Set a key.\n"
