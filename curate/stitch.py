"""Shots that a cut divides but that look the same are one clip again (Panda-70M, Chen et al., 2024, section 3.1).

    stage = Stitch(StitchConfig(min_similarity=0.9), max_s=20.0)      # between CLIP and the text

The picture at 95 % of one shot is compared with that at 5 % of the next, by the cosine of their CLIP embeddings: the
keyframes must begin and end with those (AnalysisConfig.edge_keyframes). Scores of the parts are joined: shares and
levels by their means over time, areas of overlays and the probability of unsafe content by the largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.analysis import clip_id
from curate.errors import BadInput
from curate.sources import ANALYSED
from curate.stage import Resources

# Columns of clips/ by how a merged clip gets them; `_merged` makes the others.
MEANS = ("motion", "object_motion", "luma", "black_ratio", "static_ratio", "sharpness", "aesthetic")
LARGEST = ("overlay_area", "nsfw")
SAME = ("source_id", "width", "height", "embedding_model", "config_hash")
# PTS of neighbours are equal unless frames between them belong to a gradual transition.
_TOUCHING_S = 1e-6


@dataclass(frozen=True)
class StitchConfig:
    """Which shots are put together again.

    Attributes:
        min_similarity: cosine of the CLIP embeddings on the two sides of a cut from which on it is undone; null
            leaves all shots as they are.
    """

    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise BadInput(f"stitch.min_similarity is {self.min_similarity}; a cosine lies between -1 and 1.")


class Stitch:
    """Merge neighbouring clips of a source, and their keyframes; `features` are used up."""

    output = ANALYSED
    resources = Resources(cpus=0.1)

    def __init__(self, config: StitchConfig, max_s: float) -> None:
        """`max_s`: no merged clip is longer."""
        self.config = config
        self.max_s = max_s

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._stitched(row) for row in rows]

    def _stitched(self, row: dict) -> dict:
        groups: list[list[_Part]] = []
        for clip, jpegs, stored in zip(row["clips"], row["keyframes"], row["features"], strict=True):
            part = _Part(clip, jpegs, unpacked(stored))
            if groups and self._belongs(groups[-1], part):
                groups[-1].append(part)
            else:
                groups.append([part])
        clips = [merged([(part.clip, part.features) for part in group]) for group in groups]
        for index, clip in enumerate(clips):
            clip["index"] = index
        keyframes = [[jpeg for part in group for jpeg in part.jpegs] for group in groups]
        done = row | {"clips": clips, "keyframes": keyframes}
        return {name: done[name] for name in ANALYSED.names}

    def _belongs(self, group: list[_Part], part: _Part) -> bool:
        last, clip = group[-1], part.clip
        return (
            self.config.min_similarity is not None
            and last.clip["transition_out"] == clip["transition_in"] == "cut"
            and abs(last.clip["end_s"] - clip["start_s"]) < _TOUCHING_S
            and clip["end_s"] - group[0].clip["start_s"] <= self.max_s
            and len(last.features) > 0
            and len(part.features) > 0
            and float(last.features[-1] @ part.features[0]) >= self.config.min_similarity
        )


@dataclass
class _Part:
    clip: dict
    jpegs: list[bytes]
    features: np.ndarray


def unpacked(stored: list[bytes]) -> np.ndarray:
    """(frames, D) float32 from the bytes of each frame; (0, 0) if there are none."""
    frames = [np.frombuffer(frame, np.float32) for frame in stored]
    return np.stack(frames) if frames else np.zeros((0, 0), np.float32)


def merged(parts: list[tuple[dict, np.ndarray]]) -> dict:
    """One clip from clips in the order of time, each with the (frames, D) unit embeddings of its keyframes.

    A score that some parts lack is that of the others; its reason is kept only if no part has it.
    """
    clips = [clip for clip, _ in parts]
    first, last = clips[0], clips[-1]
    if len(clips) == 1:
        return dict(first)
    start_s, end_s = first["start_s"], last["end_s"]
    n_frames = sum(clip["n_frames"] for clip in clips)
    joined: dict[str, Any] = {name: first[name] for name in SAME if name in first}
    joined |= {
        "clip_id": clip_id(first["source_id"], start_s, end_s),
        "start_s": start_s,
        "end_s": end_s,
        "n_frames": n_frames,
        "fps": n_frames / (end_s - start_s),
        "transition_in": first["transition_in"],
        "transition_out": last["transition_out"],
        "crop": _union([clip["crop"] for clip in clips if clip.get("crop")]),
        "motion_source": _one_of(clips, "motion_source", "codec"),
        "camera": _one_of(clips, "camera", "mixed"),
        "phash": "-".join(clip["phash"] for clip in clips if clip.get("phash")) or None,
    }
    for name in MEANS:
        known = [
            (clip[name], clip["end_s"] - clip["start_s"]) for clip in clips if clip.get(name) is not None
        ]
        joined[name] = _mean(known)
    for name in LARGEST:
        joined[name] = max((clip[name] for clip in clips if clip.get(name) is not None), default=None)
    joined |= _embedding(parts)
    errors = {name: why for clip in clips for name, why in dict(clip["score_errors"] or ()).items()}
    joined["score_errors"] = [(name, why) for name, why in errors.items() if joined.get(name) is None]
    return joined


def _mean(known: list[tuple[float, float]]) -> float | None:
    """Mean of (value, weight)."""
    weight = sum(w for _, w in known)
    return sum(value * w for value, w in known) / weight if known else None


def _union(boxes: list[dict]) -> dict | None:
    """The smallest box around all."""
    if not boxes:
        return None
    x, y = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = (max(box[at] + box[by] for box in boxes) for at, by in (("x", "w"), ("y", "h")))
    return {"x": x, "y": y, "w": right - x, "h": bottom - y}


def _one_of(clips: list[dict], name: str, several: str) -> str | None:
    """The value that all clips share that have one, else `several`."""
    values = {clip[name] for clip in clips if clip.get(name) is not None}
    return several if len(values) > 1 else next(iter(values), None)


def _embedding(parts: list[tuple[dict, np.ndarray]]) -> dict[str, Any]:
    """Mean embedding, its spread and the cosine to the caption: each part weighs as much as it lasts."""
    known = [(clip, features) for clip, features in parts if len(features)]  # only such parts are merged
    seconds = np.array([clip["end_s"] - clip["start_s"] for clip, _ in known], float)
    seconds /= seconds.sum()
    means = np.array([features.mean(0) for _, features in known])  # not of unit length
    mean = seconds @ means
    length = float(np.linalg.norm(mean))
    sims = [clip.get("clip_text_sim") for clip, _ in known]
    sim = None
    if all(s is not None for s in sims):
        # Cosines are of the parts' unit means: mean @ text = sum of seconds * |part's mean| * its cosine.
        sim = float((seconds * np.linalg.norm(means, axis=1)) @ np.array(sims, float)) / length
    return {
        "embedding": (mean / length).astype(np.float32),
        "embedding_spread": 1 - length,  # the mean of 1 - frame @ mean / length
        "clip_text_sim": sim,
    }
