"""Runs that are broken off while they pack and finish, two at once in one folder, and one on an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import moving_square
from small_shards import film, write_shards
from sorted_tables import assert_sorted
from test_curate_s3 import bucket  # noqa: F401  # a fixture
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.stage import run_in_process
from model.errors import BadInput as ModelBadInput
from pipelines.encode import EncodeConfig, about_latents, encode, encoding
from pipelines.encode_frames import FrameConfig
from pipelines.encode_pack import PackLatents
from pipelines.encode_plan import plan
from pipelines.encode_store import LatentStore
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)
OTHER = replace(FRAMES, max_frames=5)


def make(folder: Path, shards: int = 2) -> EncodeConfig:
    """A shard of two clips, and one of one clip."""
    films = [
        film(folder, f"{i:012x}", moving_square(17, seed=i), 8, {"kind": "short", "text": "a"})
        for i in range(3)
    ]
    dataset = write_shards(folder / "dataset", [films[:2], films[2:]][:shards])
    return EncodeConfig(dataset.uri, text=str(tiny_folder()), frames=FRAMES, engine="local")


def latents(dataset: Dataset) -> dict[str, bytes]:
    return {name: dataset.read_bytes("latents", name) for name in dataset.files("latents")}


def clips(uri: str) -> tuple[int, tuple[int, ...]]:
    """Settings and sizes of what a trainer finds; it reads all of it."""
    data = LatentDataset(uri)
    return data.about["max_frames"], tuple(data.read(n)[0].shape[1] for n in range(len(data.clips)))


class Killed(BaseException):
    pass


@contextmanager
def killed_at(change: int) -> Iterator[list[str]]:
    """In here a dataset's files stay as they are from its so many-th change on; a list of the changes made."""
    made: list[str] = []

    def stopping(name: str) -> Callable[..., Any]:
        real = getattr(Dataset, name)

        def change_or_stop(self: Dataset, *parts: str) -> Any:
            if len(made) == change:
                raise Killed
            made.append("/".join(parts))
            return real(self, *parts)

        return change_or_stop

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        for name in ("remove", "atomic_writer"):
            patch.setattr(Dataset, name, stopping(name))
        yield made


def found_by_a_trainer(uri: str) -> tuple[int, tuple[int, ...]]:
    """As `clips`, or zeros where it is told to wait for the end of encode."""
    try:
        LatentDataset(uri)
    except ModelBadInput as error:
        if "is not finished" not in str(error):
            raise
        return 0, ()
    return clips(uri)


def test_killed_while_packing_or_finishing(tmp_path: Path) -> None:
    """Other settings replace latents: at each point a trainer finds the old ones, or the new ones, or is told."""
    config = make(tmp_path, shards=1)
    dataset, new = Dataset(config.dataset), replace(config, frames=OTHER)
    about = about_latents(new)
    units, store = plan(dataset, OTHER, about), LatentStore(dataset, about)
    packer = PackLatents(dataset.uri, about["vae_id"])
    encode(new)
    assert_sorted(dataset, "latents")
    after = latents(dataset)
    seen = set()
    for change in range(30):
        encode(config)
        list(run_in_process(store.missing_parts(units), encoding(new, about)))
        with killed_at(change) as made:
            list(run_in_process([unit.pack_row() for unit in units], [packer]))
            store.finish(units)
        seen.add(found_by_a_trainer(dataset.uri))
        encode(new)
        assert latents(dataset) == after
        assert [name.split("/")[-1] for name in dataset.files("_state")] == [f"{units[0].content}.parquet"]
        if len(made) < change:
            break
    assert 8 < change < 29
    assert sorted(seen) == [(0, ()), (5, (2, 2)), (9, (3, 3))]


def test_two_runs_at_once_leave_each_other_whole(tmp_path: Path) -> None:
    config = make(tmp_path)
    dataset = Dataset(config.dataset)
    steps = []
    for frames in (FRAMES, OTHER):
        one = replace(config, frames=frames)
        about = about_latents(one)
        units = plan(dataset, frames, about)
        steps.append((one, about, units, LatentStore(dataset, about)))
    (first, about, units, store), (second, *_) = steps
    # The first has one part, then the second runs from its beginning to its end.
    parts = store.missing_parts(units)
    list(run_in_process(parts[:1], encoding(first, about)))
    encode(second)
    assert clips(dataset.uri) == (5, (2, 2, 2))
    assert store.missing_parts(units) == parts[1:]
    list(run_in_process(parts[1:], encoding(first, about)))
    packer = PackLatents(dataset.uri, about["vae_id"])
    list(run_in_process([unit.pack_row() for unit in units], [packer]))
    assert not [name for name in dataset.files("_state") if "/parts/" in name]
    # The same run once more, which had encoded its parts before they were packed and dropped.
    list(run_in_process([unit.pack_row() for unit in units], [packer]))
    encode(second)  # once more, before the first ends
    store.finish(units)
    assert clips(dataset.uri) == (9, (3, 3, 3))
    assert len(dataset.files("latents", ".tar")) == 2  # those that were replaced are gone
    store.finish(units)
    encode(second)
    with pytest.raises(BadInput, match="another run with other settings ended meanwhile"):
        store.finish(units)
    assert clips(dataset.uri) == (5, (2, 2, 2))


def test_on_an_object_store_as_on_disk(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    local = make(tmp_path)
    Dataset(local.dataset)
    remote = f"{bucket}/encoded"
    store = Dataset(remote)
    for name in Dataset(local.dataset).files("shards"):
        store.write_bytes(Dataset(local.dataset).read_bytes("shards", name), "shards", *name.split("/"))
    lost = Dataset(local.dataset).files("shards", ".tar")[1]
    store.remove("shards", lost)
    encode(local)
    encode(replace(local, dataset=remote))
    assert clips(remote) == (9, (3, 3))
    store.write_bytes(Dataset(local.dataset).read_bytes("shards", lost), "shards", *lost.split("/"))
    encode(replace(local, dataset=remote))
    assert latents(store) == latents(Dataset(local.dataset))
    assert not store.files("_state/tries")
