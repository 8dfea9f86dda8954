"""How much of the picture text covers: boxes of RapidOCR's text detector (PP-OCRv4, DB) on a few keyframes.

The detector takes a wheel for an O and a cross for a plus sign, so large boxes are also read (PP-OCRv4, CRNN), and
one that holds a single character is a thing and not lettering. What cannot be read (mirrored, far away) counts.

    stage = ReadText(TextConfig(), DecideConfig())     # after CLIP; drops the keyframes

The detector is the dearest measure on a CPU, so it runs last, on small pictures, and only for clips that the other
rules would keep: a clip that is rejected anyway stays null, with the reason "not read: motion 0.12 < 0.3".
`text_area` is the mean over the frames read of the share of the picture, inside the crop, under the union of the
boxes. Data-Juicer's OCR area ratio sums the boxes' upright hulls at full size instead, and is somewhat larger.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from curate.decide import CopyConfig, DecideConfig, Range, decide, needed
from curate.errors import BadInput
from curate.keyframes import opened
from curate.semantic import SemanticConfig
from curate.sources import UNIT
from curate.stage import Resources
from curate.tables import CLIPS

VERSION = 2  # of what text_area means; another is another run
_MULTIPLE = 32  # sides of the picture that the network wants
_LARGE = 0.02  # share of the picture from which a box that holds one character is a thing


@dataclass(frozen=True)
class TextConfig:
    """How text in the picture is looked for.

    Attributes:
        model: rapidocr (its text detector, on the CPU) or off.
        frames: keyframes read per clip, at most.
        max_side: pixels of the longer side of what is read; a smaller picture is not enlarged.
        actors: workers, one core each.
        cpus: cores that Ray reserves per worker; 0 lets them share with the decoders.
    """

    model: Literal["rapidocr", "off"] = "rapidocr"
    frames: int = 2
    max_side: int = 384
    actors: int = 1
    cpus: float = 0.0


def cheap_rules(rules: DecideConfig) -> DecideConfig:
    """The rules that decide whether a clip is read: all ranges but those over text_area and nsfw."""
    return replace(
        rules,
        text_area=Range(),
        nsfw=Range(),
        copies=CopyConfig(near=False),
        semantic=SemanticConfig(min_similarity=None, balance=False),
    )


class ReadText:
    """Fill text_area of the clips that the rules would keep so far, and drop the keyframes."""

    output = UNIT

    def __init__(self, config: TextConfig, rules: DecideConfig) -> None:
        self.config = config
        self._rules = cheap_rules(rules)
        self.resources = Resources(cpus=config.cpus, actors=config.actors, batch_rows=1)

    def setup(self) -> None:
        self._reader = None if self.config.model == "off" else TextReader()

    def __call__(self, rows: list[dict]) -> list[dict]:
        for row in rows:
            if self._reader is None:
                why: list[str | None] = ["text detection is switched off (--text.model=off)"] * len(
                    row["clips"]
                )
            else:
                why = [f"not read: {reason}" if reason else None for reason in self._rejected(row["clips"])]
            for clip, jpegs, reason in zip(row["clips"], row["keyframes"], why, strict=True):
                self._score(clip, jpegs, reason)
        return [{name: row[name] for name in UNIT.names} for row in rows]

    def _rejected(self, clips: list[dict]) -> list[str | None]:
        """Per clip, the first rule that rejects it by the scores it has, with the figure."""
        wanted = [field for field in CLIPS if field.name in needed(self._rules)]
        rows = [{field.name: clip.get(field.name) for field in wanted} for clip in clips]
        table = pa.Table.from_pylist(rows, schema=pa.schema(wanted))
        return list(decide(table, self._rules)["reason"].to_pylist())

    def _score(self, clip: dict, jpegs: list[bytes], reason: str | None) -> None:
        clip["text_area"] = None
        try:
            if reason is None:
                clip["text_area"] = self._area(clip, jpegs)
        except BadInput as error:
            reason = str(error)
        if reason is not None:
            clip["score_errors"] = [*(clip["score_errors"] or ()), ("text_area", reason)]

    def _area(self, clip: dict, jpegs: list[bytes]) -> float:
        if not jpegs:
            raise BadInput("shot too short: it has no keyframe")
        n = min(self.config.frames, len(jpegs))
        chosen = [jpegs[int((i + 0.5) * len(jpegs) / n)] for i in range(n)]
        size = clip["width"], clip["height"]
        pictures = [
            fitted(np.asarray(opened(jpeg))[..., ::-1], size, clip["crop"], self.config.max_side)
            for jpeg in chosen
        ]
        assert self._reader is not None
        return float(np.mean([self._reader.covered(picture) for picture in pictures]))


class TextReader:
    """RapidOCR's detector and recogniser with the models that its package carries, on one core."""

    def __init__(self) -> None:
        try:
            import rapidocr_onnxruntime
            from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
        except ImportError as error:
            raise BadInput(
                f"text in pictures needs rapidocr-onnxruntime ({error}). Install it, or give --text.model=off."
            ) from error
        self._models = os.path.join(os.path.dirname(rapidocr_onnxruntime.__file__), "models")
        self._detector = TextDetector(
            {
                **self._runtime("ch_PP-OCRv4_det_infer.onnx"),
                # "max" never enlarges; the package's own "min" would enlarge every picture to 736 lines.
                "limit_type": "max",
                "limit_side_len": 960,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "thresh": 0.3,
                "box_thresh": 0.5,
                "unclip_ratio": 1.6,
            }
        )

    def _runtime(self, model: str) -> dict[str, Any]:
        # One thread: the sums, and so the table, must not depend on the machine's cores.
        threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "use_cuda": False, "use_dml": False}
        return {"model_path": os.path.join(self._models, model), **threads}

    @cached_property
    def _recogniser(self) -> Any:
        from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer

        shape = {"rec_img_shape": [3, 48, 320], "rec_batch_num": 6}
        return TextRecognizer(self._runtime("ch_PP-OCRv4_rec_infer.onnx") | shape)

    def covered(self, picture: np.ndarray) -> float:
        """Share of a (H, W, 3) uint8 BGR picture under the union of the boxes of its lettering, 0 to 1."""
        import cv2

        boxes, _ = self._detector(picture)
        boxes = [np.asarray(box, np.float32) for box in (() if boxes is None else boxes)]  # (4, 2) corners
        size = picture.shape[0] * picture.shape[1]
        large = [place for place, box in enumerate(boxes) if cv2.contourArea(box) >= _LARGE * size]
        read = self._recogniser([straightened(picture, boxes[place]) for place in large])[0] if large else ()
        things = {place for place, (text, _) in zip(large, read, strict=True) if len(text.strip()) == 1}
        mask = np.zeros(picture.shape[:2], np.uint8)
        for place, box in enumerate(boxes):
            if place not in things:
                cv2.fillPoly(mask, [np.round(box).astype(np.int32)], 1)
        return float(mask.mean())


def straightened(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """What lies under a box, (4, 2) corners clockwise from the upper left, as an upright line of text."""
    import cv2

    right, down = (
        max(1, round(float(max(np.linalg.norm(box[a] - box[b]), np.linalg.norm(box[c] - box[d])))))
        for a, b, c, d in ((0, 1, 3, 2), (0, 3, 1, 2))
    )
    corners = np.array([[0, 0], [right, 0], [right, down], [0, down]], np.float32)
    turn = cv2.getPerspectiveTransform(box, corners)
    line = cv2.warpPerspective(picture, turn, (right, down), borderMode=cv2.BORDER_REPLICATE)
    # As RapidOCR has it: much higher than wide is written downward.
    return np.ascontiguousarray(np.rot90(line)) if down >= 1.5 * right else line


def fitted(picture: np.ndarray, size: tuple[int, int], crop: dict | None, max_side: int) -> np.ndarray:
    """The part of a keyframe inside `crop`, at most `max_side` pixels long and never larger than it was filmed.

    `size` (width, height) is what the clip is displayed in and `crop` is given in. Enlarged textures look like text
    to the detector, and keyframes of small footage have been enlarged already.
    """
    import cv2

    scale_x, scale_y = picture.shape[1] / size[0], picture.shape[0] / size[1]
    if crop is not None:
        x, y = int(crop["x"] * scale_x), int(crop["y"] * scale_y)
        w, h = round(crop["w"] * scale_x), round(crop["h"] * scale_y)
        picture = picture[y : y + max(1, h), x : x + max(1, w)]
    height, width = picture.shape[:2]
    scale = min(1.0, max_side / max(height, width), 1 / min(scale_x, scale_y))
    lines, columns = (max(_MULTIPLE, round(side * scale)) for side in (height, width))
    return cv2.resize(picture, (columns, lines), interpolation=cv2.INTER_AREA)


def gate(rules: DecideConfig) -> list[tuple[str, dict]]:
    """What of the rules the column depends on, for the hash of a run."""
    cheap = cheap_rules(rules)
    ranges = [(field.name, getattr(cheap, field.name)) for field in fields(cheap)]
    return [(name, asdict(value)) for name, value in ranges if isinstance(value, Range) and value != Range()]
