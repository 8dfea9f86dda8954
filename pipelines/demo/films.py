"""Films of the procedural world: several shots, known transitions, known faults, captions for some.

    truth = render_films("FOLDER", n_films=60, seed=0)

writes FOLDER/film_000.mp4 ..., FOLDER/captions.csv (file,caption, for about two films in three) and
FOLDER/truth.json, which is what is returned:

    {"seed": 0, "films": [{"file", "width", "height", "fps", "n_frames", "duration_s", "caption",
        "fault", "box", "duplicate_of",
        "shots": [{"start_s", "end_s", "fault", "scene": {"kind": "disc", ...}}, ...],
        "transitions": [{"kind": "cut" | "dissolve" | "fade", "start_s", "end_s"}, ...]}, ...]}

All times are PTS in seconds. A shot is [start_s, end_s): its frames show nothing of its neighbours. A
transition lies between the end of one shot and the start of the next; of a cut the two are equal.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curate.errors import BadInput
from pipelines.demo.faults import PICTURE_FAULTS, add_bars, burn, letterbox_picture, logo, subtitle
from pipelines.demo.film_plan import FAULTS, Film, film_truth, plan_film
from pipelines.demo.world import render
from pipelines.demo.world_captions import describe_film

FAULTY_EVERY = 3  # one film in three has a fault, in the order of FAULTS
CAPTIONED = 2 / 3
CRF, COPY_CRF, COPY_SCALE = 18, 27, 0.75


def render_films(
    folder: str | Path,
    n_films: int = 60,
    seed: int = 0,
    faults: bool = True,
    on_film: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Render and encode films into a folder.

    The same seed gives the same films, byte for byte with the same libraries, and film i does not depend on
    how many there are.

    Args:
        folder: made if absent; files of the same names are replaced.
        n_films: at least 1. All faults occur from 24 films on.
        seed: decides everything.
        faults: one film in three has a fault (see FAULTS); False for none.
        on_film: called with each film's truth as soon as it is written.

    Returns:
        The truth, as written to truth.json.

    Raises:
        BadInput: n_films is less than 1, or the folder is a file.
    """
    if n_films < 1:
        raise BadInput(f"n_films is {n_films}; ask for at least one film.")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; give a folder for the films.")
    folder.mkdir(parents=True, exist_ok=True)
    films: list[dict[str, Any]] = []
    for index in range(n_films):
        fault = FAULTS[index // FAULTY_EVERY % len(FAULTS)] if index % FAULTY_EVERY == 2 and faults else None
        name = f"film_{index:03d}.mp4"
        if fault == "duplicate":
            entry = _write_copy(folder / name, plan_film(seed, index - 1, None), films[-1])
        else:
            film = plan_film(seed, index, fault)
            encode(folder / name, film_frames(film), fps=film.fps, crf=CRF)
            rng = np.random.default_rng([seed, index, 1])
            caption = describe_film([shot.scene for shot in film.shots], rng)
            entry = {
                "file": name,
                "caption": caption if rng.random() < CAPTIONED else None,
                **film_truth(film),
            }
        films.append(entry)
        if on_film is not None:
            on_film(entry)
    truth = {"seed": seed, "films": films}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    with (folder / "captions.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["file", "caption"])
        rows.writerows([film["file"], film["caption"]] for film in films if film["caption"])
    return truth


def _write_copy(path: Path, film: Film, original: dict[str, Any]) -> dict[str, Any]:
    """A smaller, worse encoding of another film, as the web makes them; returns its truth."""
    size = round(film.width * COPY_SCALE), round(film.height * COPY_SCALE)
    pictures = (
        np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in block])
        for block in film_frames(film)
    )
    encode(path, pictures, fps=film.fps, crf=COPY_CRF)
    return original | {
        "file": path.name,
        "caption": None,
        "width": size[0],
        "height": size[1],
        "fault": "duplicate",
        "duplicate_of": original["file"],
        "shots": [shot | {"fault": "duplicate"} for shot in original["shots"]],
    }


def encode(path: Path, blocks: Iterator[np.ndarray], *, fps: int, crf: int) -> None:
    """Write blocks of pictures (T, H, W, 3) uint8 RGB as H.264 in MP4; frame i has the PTS i / fps."""
    import av

    with av.open(str(path), "w") as out:
        stream = None
        number = 0
        for block in blocks:
            if stream is None:
                stream = out.add_stream("libx264", rate=fps)
                stream.height, stream.width, stream.pix_fmt = block.shape[1], block.shape[2], "yuv420p"
                stream.codec_context.time_base = Fraction(1, fps)
                stream.codec_context.thread_count = 1  # the same bytes on every machine
                stream.options = {"crf": str(crf), "preset": "veryfast"}
            for picture in block:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                out.mux(stream.encode(frame))
                number += 1
        if stream is not None:
            out.mux(stream.encode(None))


def film_frames(film: Film) -> Iterator[np.ndarray]:
    """The pictures of a film in order, a block (T, H, W, 3) uint8 at a time."""
    for block in _joined_shots(film):
        # Bars and overlays were added to the finished film: they stand still over every transition.
        if film.fault == "letterbox":
            yield add_bars(block, film.height)
        elif film.fault == "subtitle":
            yield burn(block, *subtitle(film.width, film.height, film.choice))
        elif film.fault == "logo":
            yield burn(block, *logo(film.width, film.height))
        else:
            yield block


def _joined_shots(film: Film) -> Iterator[np.ndarray]:
    """The shots, and between them the frames in which one goes over into the next."""
    width, height = film.width, film.height
    if film.fault == "letterbox":
        *_, width, height = letterbox_picture(width, height)
    before, tail, kind = 0, np.empty(0), None
    for shot in film.shots:
        n_frames = before + shot.n_frames + shot.overlap
        pictures = render(shot.scene, n_frames=n_frames, fps=film.fps, width=width, height=height)
        if shot.fault in PICTURE_FAULTS:
            pictures = PICTURE_FAULTS[shot.fault](pictures)
        if before:
            old, new = (weight[:, None, None, None] for weight in _mix(kind, before))
            yield (tail * old + pictures[:before] * new + 0.5).astype(np.uint8)
        yield pictures[before : before + shot.n_frames]
        before, tail, kind = shot.overlap, pictures[before + shot.n_frames :], shot.transition


def _mix(kind: str | None, n: int) -> np.ndarray:
    """Weights of the old and the new shot in the frames of a transition, (2, n); none shows one alone."""
    share = np.arange(1, n + 1, dtype=np.float32) / (n + 1)
    if kind == "dissolve":
        return np.stack([1 - share, share])
    return np.clip(np.stack([1 - 2 * share, 2 * share - 1]), 0, 1)  # a fade goes through black
