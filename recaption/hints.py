"""What was measured about a clip, in words: hints for the captioner, or a suffix behind its caption.

    facts = ClipFacts(camera="pan", motion=12.0, text_area=0.0)
    hints(facts)                     # "Measured: the camera pans sideways; motion is moderate; no text can be read."
    hints(facts, duration_s=2.4)     # "Measured: the clip lasts 2.4 seconds; the camera pans sideways; ..."
    suffix(facts)                    # "Camera: pan. Motion: moderate."

Camera, speed and on-screen text are measured by `reelmill curate` and not left to the captioner's imagination,
as Open-Sora does with camera and motion. What was not measured is not mentioned. The suffix tells neither length
nor text: training may show a part of the clip, and to a text encoder "no text" is text.
"""

from __future__ import annotations

from dataclasses import dataclass

CAMERA_WORDS = {
    "static": "the camera does not move",
    "pan": "the camera pans sideways",
    "tilt": "the camera tilts up or down",
    "zoom_in": "the camera zooms in",
    "zoom_out": "the camera zooms out",
    "roll": "the camera rolls",
    "shake": "the camera shakes, as when held in a hand",
    "mixed": "the camera moves in several ways",
}
#: How the camera begins in a suffix.
CAMERA = "Camera: "
#: Columns of the clips table behind ClipFacts, in its order.
FACTS = ("camera", "motion", "text_area")
#: Upper bounds of `clips.motion`, % of the picture's diagonal per second, and the word for what lies below.
#: 0.5 is where `clips.camera` begins to speak of motion; at 60 the picture is crossed in under two seconds.
MOTION_WORDS = ((0.5, "none"), (5.0, "slow"), (20.0, "moderate"), (60.0, "fast"), (float("inf"), "very fast"))
#: Below this share of the picture, `clips.text_area` may be a stray letter as well as writing.
LEAST_TEXT = 0.002


@dataclass(frozen=True)
class ClipFacts:
    """The measured columns of a clip that captions may use; null where nothing was measured.

    Attributes:
        camera: `clips.camera`: static, pan, tilt, ...
        motion: `clips.motion`, % of the diagonal per second.
        text_area: `clips.text_area`, share of the picture under text, 0 to 1.
    """

    camera: str | None = None
    motion: float | None = None
    text_area: float | None = None


def camera_words(facts: ClipFacts, lang: str = "en") -> str | None:
    """The measured camera in words, in English alone; null in other languages and where nothing was measured."""
    return CAMERA_WORDS.get(facts.camera or "") if lang == "en" else None


def motion_word(motion: float) -> str:
    """none, slow, moderate, fast or very fast, for % of the diagonal per second."""
    return next(word for bound, word in MOTION_WORDS if motion < bound)


def hints(facts: ClipFacts, *, duration_s: float | None = None) -> str:
    """One line for a prompt, or an empty text if nothing was measured.

    `duration_s`: length of what is shown, in seconds, for prompts that have no place of their own for it.
    """
    told = [] if duration_s is None else [f"the clip lasts {duration_s:.1f} seconds"]
    if facts.camera in CAMERA_WORDS:
        told.append(CAMERA_WORDS[facts.camera])
    if facts.motion is not None:
        word = motion_word(facts.motion)
        told.append("hardly anything moves" if word == "none" else f"motion is {word}")
    if facts.text_area is not None:
        told.append(_text_words(facts.text_area))
    return f"Measured: {'; '.join(told)}." if told else ""


def _text_words(area: float) -> str:
    if area >= LEAST_TEXT:
        return "text can be read: quote it as it stands"
    return "there is a little text: quote it if it can be read" if area > 0 else "no text can be read"


def suffix(facts: ClipFacts) -> str:
    """Short sentences to put behind a caption, or an empty text if nothing was measured."""
    told = []
    if facts.camera in CAMERA_WORDS:
        told.append(f"{CAMERA}{facts.camera.replace('_', ' ')}.")
    if facts.motion is not None:
        told.append(f"Motion: {motion_word(facts.motion)}.")
    return " ".join(told)
