"""A strip of pictures of a clip out of its shard or source, made in a process that can be killed (serve_pictures.py).

The sources table may come from anybody. Its addresses are asked only where they lead to files here or to an object
store, never to a host that the table names; and what comes from there is counted as it comes.
"""

from __future__ import annotations

import os

from curate.errors import BadInput

PIECE = 1 << 20
LOCAL = ("file", "local")
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf")


def check_place(uri: str) -> bool:
    """True for a file on an object store, False for one here. Raises BadInput for any other place."""
    from fsspec.core import split_protocol

    protocol, _ = split_protocol(uri)
    if "::" in uri or (protocol is not None and protocol not in (*LOCAL, *STORES)):
        raise BadInput(
            f"the live view fetches pictures from files here and from {', '.join(STORES)}, not from {uri[:200]!r}; "
            "`reelmill shard` cuts the clip, and then it is seen out of its shard"
        )
    return protocol in STORES


def strip_of_shard(
    dataset: str, parts: tuple[str, ...], start: int, end: int, folder: str, length_s: float
) -> tuple[bytes, int, int, int]:
    """What `report_pictures.strip` makes of the mp4 at bytes `[start, end)` of a file below shards/, by `folder`."""
    from curate.dataset import Dataset
    from pipelines.report_pictures import strip

    film = os.path.join(folder, "clip.mp4")
    with open(film, "wb") as file:
        file.write(Dataset(dataset).read_bytes("shards", *parts, start=start, end=end))
    return strip(film, 0.0, length_s)


def strip_of_source(
    uri: str, folder: str, most_bytes: int, start_s: float, end_s: float
) -> tuple[bytes, int, int, int]:
    """What `report_pictures.strip` makes of the file at `uri`, which is fetched into `folder` if it is not here.

    Raises BadInput for another place than `check_place` lets through, and for more than `most_bytes`.
    """
    from curate.sources import local_copy
    from pipelines.report_pictures import strip

    if check_place(uri):
        return strip(_fetched(uri, folder, most_bytes), start_s, end_s)
    with local_copy(uri) as path:
        return strip(path, start_s, end_s)


def _fetched(uri: str, folder: str, most_bytes: int) -> str:
    import fsspec

    fs, path = fsspec.core.url_to_fs(uri)
    local = os.path.join(folder, "source" + os.path.splitext(path)[1][:8])
    size = 0
    with fs.open(path, "rb", block_size=PIECE) as remote, open(local, "wb") as file:
        while piece := remote.read(PIECE):
            size += len(piece)
            if size > most_bytes:
                raise BadInput(
                    f"more than {most_bytes / 1e6:,.0f} MB at {uri}: too much to fetch for a picture"
                )
            file.write(piece)
    return local
