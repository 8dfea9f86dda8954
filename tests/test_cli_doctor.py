"""`reelmill doctor`: each check with a machine that is well and one that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.doctor import (
    GIB,
    Finding,
    cores,
    disk,
    h264,
    main,
    memory,
    memory_bytes,
    packages,
    python_version,
    requirements,
    shared_memory,
    torch_pair,
    weights,
)


def test_this_machine_is_told_line_by_line(capsys) -> None:
    code = main([])
    lines = capsys.readouterr().out.splitlines()
    findings = [line for line in lines if re.match(r"(ok|warn|fail) ", line)]
    assert [line.split()[1] for line in findings if "packages" not in line][:3] == [
        "python",
        "cores",
        "memory",
    ]
    assert code == (1 if any(line.startswith("fail") for line in findings) else 0)
    assert re.fullmatch(r"\d+ failed, \d+ to note\. (Ready|Mend the failures first)\.", lines[-1])


def test_what_a_machine_may_lack() -> None:
    assert python_version((3, 10, 9)).status == "fail"
    assert python_version((3, 11, 0)).status == "ok"
    assert cores(1).status == "warn"
    assert memory(2 * GIB) == Finding(
        "warn", "memory", "2.0 GiB", "Ray, PyTorch and the decoders want 4 GiB; `--engine local` takes less."
    )
    assert memory(8 * GIB).status == "ok"
    assert memory_bytes() > GIB // 4


def test_disk(tmp_path: Path, capsys) -> None:
    assert disk(tmp_path).status in ("ok", "warn")
    assert disk(tmp_path / "none").status == "fail"
    assert shared_memory(tmp_path / "none").status == "ok"


def test_a_missing_folder_makes_exit_code_1(tmp_path: Path, capsys) -> None:
    assert main(["--folder", str(tmp_path / "none")]) == 1
    out = " ".join(capsys.readouterr().out.split())  # lines break where the name of the folder makes them
    assert re.search(r" fail disk there is no folder \S+ -> Create it", out)


def test_paths_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "/" + "very-long-name/" * 5 + "films"
    shown = str(Finding("fail", "disk", f"there is no folder {path}", f"Create {path} first."))
    assert shown.split().count(path) == 2


def test_packages_missing_and_too_old() -> None:
    found = list(
        packages(["numpy>=1", "numpy>=999", "no-such-package-reelmill", "nothing; python_version < '3'"])
    )
    assert [(finding.status, finding.name) for finding in found] == [
        ("fail", "numpy"), ("fail", "no-such-package-reelmill"), ("ok", "packages")
    ]  # fmt: skip
    assert "but >=999 is needed" in found[0].told
    assert found[1].told == "not installed"


def test_the_packages_of_this_project_are_looked_at() -> None:
    assert any(text.startswith("torch") for text in requirements())
    assert any(text.startswith("ray") for text in requirements())
    assert not any("pytest" in text for text in requirements())


def test_video_and_torch_work_here() -> None:
    assert h264().status == "ok"
    assert torch_pair().status == "ok"


def test_weights(tmp_path: Path) -> None:
    assert weights(tmp_path).told.startswith("coca and vae missing")
    for name in ("coca", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"0" * 1_500_000)
    assert weights(tmp_path) == Finding("ok", "demo weights", "coca 1.5 MB, vae 1.5 MB")
