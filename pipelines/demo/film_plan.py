"""What the demo's films are to show: shots, transitions and faults, drawn from a seed before any picture.

film = plan_film(seed=0, index=7, fault="logo")
film_truth(film)                                  # its entry in truth.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.demo.faults import Box, letterbox_picture, logo, subtitle
from pipelines.demo.scene import BACKGROUNDS, Scene, draw_scene, is_held_out, stand_still, with_path

FRAME_SIZES = ((256, 144), (256, 144), (144, 256), (192, 192), (192, 144))
FRAME_RATES = (24, 25, 30)
FILM_FAULTS = ("letterbox", "subtitle", "logo", "duplicate")  # of a whole film
SHOT_FAULTS = ("static", "dark", "blur", "black")  # of one shot in a film
FAULTS = tuple(fault for pair in zip(FILM_FAULTS, SHOT_FAULTS, strict=True) for fault in pair)
FAULTY_EVERY = 3  # one film in three has a fault, in the order of FAULTS
TRANSITIONS, TRANSITION_S = ("cut", "dissolve", "fade"), 0.5


@dataclass(frozen=True)
class Shot:
    """What one shot shows.

    Attributes:
        scene: the object and its surroundings.
        n_frames: frames that show this shot alone.
        fault: one of FAULTS or None.
        transition: how it goes over into the next: cut, dissolve or fade; None for the last.
        overlap: frames of that transition, 0 for a cut.
    """

    scene: Scene
    n_frames: int
    fault: str | None
    transition: str | None
    overlap: int


@dataclass(frozen=True)
class Film:
    """What one film shows; a pure function of seed and index.

    Attributes:
        width: pixels.
        height: pixels.
        fps: frames per second, constant.
        fault: fault of the film or of one of its shots, or None.
        shots: in order.
        choice: which of several texts a subtitle has.
    """

    width: int
    height: int
    fps: int
    fault: str | None
    shots: tuple[Shot, ...]
    choice: int

    @property
    def box(self) -> Box | None:
        """x, y, w, h: the picture inside the bars of a letterbox; the text of a subtitle; the logo."""
        if self.fault == "letterbox":
            return letterbox_picture(self.width, self.height)
        if self.fault == "subtitle":
            return subtitle(self.width, self.height, self.choice)[1]
        return logo(self.width, self.height)[1] if self.fault == "logo" else None


def plan_film(seed: int, index: int, fault: str | None) -> Film:
    """Draw a film of one object that is seen in three to five places.

    No combination of attributes is a held-out one, so that a model trained on films can be judged on those.
    """
    rng = np.random.default_rng([seed, index])
    width, height = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
    fps = FRAME_RATES[rng.integers(len(FRAME_RATES))]
    hero = draw_scene(rng, held_out=False)
    places = [place for place in BACKGROUNDS if not is_held_out(hero.kind, hero.colour, place)]
    n_shots = int(rng.integers(3, 6))
    faulty = int(rng.integers(n_shots)) if fault in SHOT_FAULTS else None
    shots: list[Shot] = []
    before = 0
    for i, place in enumerate(rng.permutation(places)[:n_shots]):
        own = fault if fault in FILM_FAULTS or i == faulty else None
        n_frames = round(rng.uniform(1.5, 3.0) * fps)
        kind: str | None = str(rng.choice(TRANSITIONS, p=[0.74, 0.16, 0.1]))
        if faulty in (i, i + 1):
            kind = "cut"  # a faulty shot is to be judged by itself, and a fade into black has no end
        if i == n_shots - 1:
            kind = None
        overlap = 0 if kind in (None, "cut") else round(TRANSITION_S * fps)
        scene = replace(draw_scene(rng), kind=hero.kind, colour=hero.colour, background=str(place))
        scene = with_path(scene, rng, duration_s=(before + n_frames + overlap) / fps)
        shots.append(Shot(stand_still(scene) if own == "static" else scene, n_frames, own, kind, overlap))
        before = overlap
    return Film(width, height, fps, fault, tuple(shots), int(rng.integers(1000)))


def film_truth(film: Film) -> dict[str, Any]:
    """What is true of a film, in the form of truth.json, less its file names and caption."""
    shots, transitions = [], []
    frame = 0
    for shot in film.shots:
        end = frame + shot.n_frames
        shots.append(
            {
                "start_s": frame / film.fps,
                "end_s": end / film.fps,
                "fault": shot.fault,
                "scene": asdict(shot.scene),
            }
        )
        frame = end + shot.overlap
        if shot.transition:
            transitions.append(
                {"kind": shot.transition, "start_s": end / film.fps, "end_s": frame / film.fps}
            )
    return {
        "width": film.width,
        "height": film.height,
        "fps": film.fps,
        "n_frames": frame,
        "duration_s": frame / film.fps,
        "fault": film.fault,
        "box": film.box,
        "duplicate_of": None,
        "shots": shots,
        "transitions": transitions,
    }
