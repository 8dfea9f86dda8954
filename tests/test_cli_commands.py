"""`reelmill`: the list of commands is fast and light, and every command in it exists."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "ray", "transformers", "cv2", "av", "duckdb", "pyarrow", "jsonargparse", "numpy"}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_listing_the_commands_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, json; from pipelines.__main__ import main; main(['--help']);"
        "print(json.dumps(sorted(m for m in sys.modules if '.' not in m)), file=sys.stderr)"
    )
    began = time.perf_counter()
    done = run("-c", code)
    seconds = time.perf_counter() - began
    assert HEAVY.isdisjoint(json.loads(done.stderr))
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)
    assert seconds < 3  # 0.05 s on a quiet machine; a loaded one must not fail the suite


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_a_module(name: str) -> None:
    module = f"pipelines.{name.replace('-', '_')}"
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_every_command_loads_no_model_library(name: str) -> None:
    code = (
        f"import sys, json; from pipelines.__main__ import main; code = main([{name!r}, '--help']);"
        "print(json.dumps(sorted(m for m in sys.modules if '.' not in m)), file=sys.stderr); sys.exit(code)"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: reelmill {name}")
    assert "example:" in done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert loaded & {"torch", "ray", "transformers", "open_clip", "matplotlib"} == set()


def test_module_and_command_are_the_same() -> None:
    assert run("-m", "pipelines.query", "--help").stdout == run("-m", "pipelines", "query", "--help").stdout
    assert run("-m", "pipelines.query", "--dataste=x").returncode == 2


@pytest.mark.parametrize(
    ("wrong", "right"), [("qurey", "query"), ("trainvae", "train-vae"), ("caption", "recaption")]
)
def test_a_misspelt_command_names_the_nearest(capsys, wrong: str, right: str) -> None:
    assert main([wrong]) == 2
    assert f"there is no command {wrong!r}; the nearest is {right!r}." in capsys.readouterr().err
