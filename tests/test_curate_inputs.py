"""Which files are footage: folders, links to folders, loops of links, and folders that cannot be listed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sorted_tables import assert_sorted

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.probe import find_inputs
from pipelines.curate import main as curate


def found(folder: Path) -> list[str]:
    return [os.path.relpath(file.uri, folder) for file in find_inputs(str(folder))]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    films, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    (films / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (films / "a.mp4", films / "deep" / "b.MOV", elsewhere / "c.mkv", films / "notes.txt"):
        path.write_bytes(b"")
    (films / "more").symlink_to(elsewhere)
    (films / "more again").symlink_to(elsewhere)
    (films / "deep" / "back").symlink_to(films)
    (films / "dangling.mp4").symlink_to(tmp_path / "nothing")
    assert found(films) == ["a.mp4", "dangling.mp4", "deep/b.MOV", "more/c.mkv"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"")
    scandir = os.scandir

    def refusing(path: str) -> object:  # the tests may run as root, to whom nothing is closed
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(BadInput, match=r"cannot list .*closed"):
        find_inputs(str(tmp_path))


def test_files_that_cannot_be_opened_come_last_in_the_order_of_their_names(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for name in "fdbace":
        (films / f"{name}.mp4").symlink_to(tmp_path / "nothing")
    (films / "g.mp4").write_bytes(b"no film, but it can be opened")
    dataset = str(tmp_path / "dataset")
    assert curate(["--input", str(films), "--dataset", dataset, "--engine=local", "--clip.model=off"]) == 0
    assert_sorted(Dataset(dataset), "sources")
    names = [Path(uri).stem for uri in Dataset(dataset).read("sources", ["uri"])["uri"].to_pylist()]
    assert names == ["g", "a", "b", "c", "d", "e", "f"]
