"""Imports go one way: pipelines -> curate, recaption, train -> model; and ray is known to pipelines alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"curate", "recaption", "model", "train", "pipelines"}
RECORDS = {
    "curate.tables",
    "curate.dataset",
    "curate.errors",
    "curate.one_writer",
    "curate.frames",
    "curate.shards",
    "curate.stage",
}

# package -> packages of ours that it may import
ALLOWED = {
    "curate": {"curate"},
    "model": {"model"},
    "recaption": {"recaption", "model", "curate"},
    "train": {"train", "model", "curate"},
    "pipelines": OURS,
}
# What the training machine lacks must not be imported while a module of these packages is loaded.
ABSENT_IN_TRAINING = {"ray", "av", "decord", "cv2", "open_clip", "scenedetect"}
# The commands of the training machine and of the analyst.
LIGHT_COMMANDS = ("train", "sample", "query", "report", "serve", "status")


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Modules imported by a file; those under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text())

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            if top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                yield child.module
            else:
                yield from visit(child)

    return visit(tree)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_one_way(package: str) -> None:
    for path in files(package):
        for module in imports(path):
            top = module.split(".")[0]
            assert top not in OURS or top in ALLOWED[package], f"{path.relative_to(ROOT)} imports {module}"
            if package in ("recaption", "train") and top == "curate":
                assert module in RECORDS, (
                    f"{path.relative_to(ROOT)} imports {module}, which is no record contract"
                )


@pytest.mark.parametrize("package", sorted(set(ALLOWED) - {"pipelines"}))
def test_ray_is_imported_in_pipelines_only(package: str) -> None:
    for path in files(package):
        assert "ray" not in {module.split(".")[0] for module in imports(path)}, path


@pytest.mark.parametrize("package", ["model", "train"])
def test_training_machine_needs_no_video_libraries(package: str) -> None:
    for path in files(package):
        loaded = {module.split(".")[0] for module in imports(path, top_level_only=True)}
        assert not loaded & ABSENT_IN_TRAINING, (
            f"{path.relative_to(ROOT)} imports {loaded & ABSENT_IN_TRAINING}"
        )


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_light_commands_load_no_ray(command: str) -> None:
    loaded = set(imports(ROOT / "pipelines" / f"{command}.py", top_level_only=True))
    assert not {module.split(".")[0] for module in loaded} & ABSENT_IN_TRAINING


def test_the_test_sees_a_forbidden_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f():\n    import ray.data\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av\n"
    )
    assert list(imports(bad)) == ["ray.data", "typing"]
    assert list(imports(bad, top_level_only=True)) == ["typing"]
