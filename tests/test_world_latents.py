"""The training set of the demo's transformer: what it holds, that it goes on, and that processes change nothing."""

from __future__ import annotations

import io
import json
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.errors import BadInput
from pipelines.demo import world_latents
from pipelines.demo.scene import STILL, is_held_out
from pipelines.demo.world_latents import SHAPES, main, world_frames, world_rows, write_latents
from pipelines.demo.world_oracle import parse
from pipelines.encode_frames import fit
from train.data import LatentDataset

CLIPS, PICTURES = 5, 3


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    flags = ["--dataset", str(out), f"--pictures={PICTURES}", f"--clips={CLIPS}", "--processes=1"]
    assert main(flags) == 0
    return out


def test_pictures_and_clips_as_reelmill_train_reads_them(made: Path) -> None:
    data = LatentDataset(str(made))
    assert len(data.clips) == PICTURES + CLIPS
    shapes = {((shape.frames - 1) // 4 + 1, shape.height // 8, shape.width // 8) for shape in SHAPES}
    for number, clip in enumerate(data.clips):
        is_picture = number < PICTURES
        assert clip.kinds == ("dense", "original", "short")
        assert clip.fps == (0.0 if is_picture else world_latents.FPS)
        assert (clip.keyframe_at == ()) == is_picture
        size = next(size for size in shapes if size[1:] == clip.size[1:])
        assert (clip.size in shapes) != is_picture
        assert clip.size[1:] == size[1:]
    assert not (made / "_state").exists()


def test_captions_are_true_and_held_out_combinations_do_not_occur(made: Path) -> None:
    seen = 0
    for path in sorted(made.rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    record = json.load(io.TextIOWrapper(tar.extractfile(member)))  # type: ignore[arg-type]
                    scene = record["scene"]
                    assert not is_held_out(scene["kind"], scene["colour"], scene["background"])
                    assert (scene["direction"] == STILL) == (int(record["clip_id"], 16) < PICTURES)
                    for caption in record["captions"]:
                        named = {k: v for k, v in parse(caption["text"]).items() if v is not None}
                        assert named.items() <= scene.items()
                        assert caption["kind"] == "original" or len(named) == 5
                    seen += 1
    assert seen == PICTURES + CLIPS


def test_a_stopped_run_goes_on_and_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second of two tars and begun again, or made by two processes at once: the same bytes."""
    torch.set_num_threads(2)  # sums in two threads would differ in their last bits
    monkeypatch.setattr(world_latents, "PART_CLIPS", 4)
    monkeypatch.setattr(world_latents, "SHARD_PARTS", 2)
    told: list[int] = []
    settings: dict = {"made_of": ["test"], "frames": world_frames(), "on_clips": told.append}
    rows = partial(world_rows, pictures=8)
    made_of: list[list[int]] = []

    def watched(numbers: list[int], until: int) -> list[dict]:
        if max(numbers) >= until:
            raise KeyboardInterrupt
        made_of.append(list(numbers))
        return rows(numbers)

    with pytest.raises(KeyboardInterrupt):
        write_latents(str(tmp_path / "a"), 15, rows=partial(watched, until=12), **settings)
    assert made_of == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    made_of.clear()
    told.clear()
    write_latents(str(tmp_path / "a"), 15, rows=partial(watched, until=15), **settings)
    assert made_of == [[12, 13, 14]]
    assert sum(told) == 15
    made_of.clear()
    write_latents(str(tmp_path / "a"), 15, rows=partial(watched, until=15), **settings)
    assert not made_of
    write_latents(str(tmp_path / "b"), 15, rows=rows, processes=2, **settings)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert torch.get_num_threads() == 2


def test_films_of_the_demo_are_read_as_the_training_set_is() -> None:
    sizes = {(shape.width, shape.height) for shape in SHAPES}
    assert {fit(*size, world_frames()) for size in ((256, 144), (144, 256), (192, 192))} == sizes


def test_shares_are_of_all_clips() -> None:
    assert sum(SHAPES.values()) == pytest.approx(1.0)
    areas = np.array([shape.height * shape.width for shape in SHAPES])
    assert areas.min() > 0.85 * areas.max()


@pytest.mark.parametrize("flags", [["--pictures=0", "--clips=0"], ["--pictures=-1"], ["--processes=0"]])
def test_numbers_that_make_no_sense(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(tmp_path), *flags]) == 2
    assert "give at least one picture or clip" in capsys.readouterr().err
    with pytest.raises(BadInput):
        world_latents.world_latents(world_latents.WorldLatentsConfig(str(tmp_path), pictures=0, clips=0))
