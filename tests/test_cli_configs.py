"""The example configurations are read, and what they set arrives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.__main__ import main

CONFIGS = Path(__file__).resolve().parents[1] / "pipelines" / "configs"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("curate", ["--input=a", "--dataset=b"]),
        ("train", ["--dataset=a", "--out=b"]),
        ("train-vae", ["--dataset=a", "--out=b"]),
    ],
)
def test_example_is_read_whole(command: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = CONFIGS / f"{command}.yaml"
    assert main([command, "--config", str(path), *flags, "--print_config"]) == 0
    read = yaml.safe_load(capsys.readouterr().out)

    def contains(whole: object, part: object) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(key in whole and contains(whole[key], value) for key, value in part.items())
        return whole == part

    assert contains(read, yaml.safe_load(path.read_text()))


def test_every_example_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"curate", "train", "train-vae"}


def test_an_override_wins_over_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "curate.yaml")
    flags = ["--input=a", "--dataset=b", "--rules.motion.min=0.7", "--print_config"]
    assert main(["curate", "--config", config, *flags]) == 0
    read = yaml.safe_load(capsys.readouterr().out)
    assert (read["rules"]["motion"]["min"], read["rules"]["motion"]["max"]) == (0.7, 60.0)
