"""What all pieces of a sampled video share: size, frame rate, and how pictures and latent frames count.

form = format_of(config, model)                  # a SampleCommand with one prompt, a Loaded model
form.latents(17), form.pictures(5)               # 5, 17
form.given(12)                                   # 9: of 12 pictures, so many can be encoded as a clip

A VAE makes its first latent frame of one picture and each later one of `temporal` pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.errors import BadInput
from model.patches import grid
from pipelines.encode_frames import FrameConfig, fit
from pipelines.encode_latents import is_causal
from pipelines.sample_pictures import displayed_size

if TYPE_CHECKING:
    from pipelines.sample import SampleCommand
    from pipelines.sample_model import Loaded

#: Frames per second that a video may have, least and most.
LEAST_FPS, MOST_FPS = 0.1, 240.0
#: Frames of a video, and tokens of one piece: beyond them a slip of the hand is likelier than a wish.
MOST_FRAMES, MOST_TOKENS = 1_000_000, 1 << 20
#: Pixels of a side; H.264 has no room for more.
MOST_SIDE = 16_384


@dataclass(frozen=True)
class Format:
    """Sizes and rates of one video.

    Attributes:
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        fps: pictures per second.
        temporal: pictures in a latent frame after the first.
        spatial: pixels in a latent row or column.
        grain: pictures by which a given clip may grow: the VAE needs no padding, and no token is given in part.
        piece_t: latent frames of one piece; longer videos are chains of pieces.
        context: most pictures that a piece goes on from, grain·k+1.
        side: the same where a piece lies between two given ends.
        is_causal: whether a beginning has the same latents with and without the rest. Where not, training showed
            single pictures of it, and a piece goes on from one.
    """

    height: int
    width: int
    fps: float
    temporal: int
    spatial: int
    grain: int
    piece_t: int
    context: int
    side: int
    is_causal: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def piece(self) -> int:
        """Pictures of one piece."""
        return self.pictures(self.piece_t)

    def pictures(self, t: int) -> int:
        """Pictures that `t` latent frames decode to."""
        return self.temporal * (t - 1) + 1

    def latents(self, pictures: int) -> int:
        """Latent frames that so many pictures need."""
        return 1 + -(-(pictures - 1) // self.temporal)

    def latent_size(self, pictures: int) -> tuple[int, int, int]:
        """Latent (t, h, w) of a piece."""
        return self.latents(pictures), self.height // self.spatial, self.width // self.spatial

    def given(self, pictures: int) -> int:
        """The most pictures, grain·k+1 of at least 1, that can be encoded of so many."""
        return (pictures - 1) // self.grain * self.grain + 1

    def before(self, pictures: int) -> int:
        """The most of so many last pictures that a piece can go on from."""
        return self.given(pictures) if self.is_causal else 1


def format_of(config: SampleCommand, model: Loaded) -> Format:
    """The format asked for; what is null is what the model was mostly trained on. Raises BadInput if it cannot be."""
    vae, patch, typical = model.vae, model.dit.config.patch, model.about["typical"]
    time, space = vae.config.temporal, vae.config.spatial
    fps = config.fps if config.fps is not None else typical["fps"] or model.dit.config.reference_fps
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise BadInput(f"--fps={fps}: give {LEAST_FPS:g} to {MOST_FPS:g} pictures per second, such as 16.")
    for name in ("frames", "piece", "context"):
        if (number := getattr(config, name)) is not None and not 1 <= number <= MOST_FRAMES:
            most = "" if number < 1 else f" and at most {MOST_FRAMES:,}"
            raise BadInput(f"--{name}={number}: give at least 1{most}.")
    height, width = _frame_size(config, space, patch, typical["size"])
    piece_t = typical["size"][0] if config.piece is None else 1 + -(-(config.piece - 1) // time)
    grain = math.lcm(model.frame_step, time * patch[0])

    def context(latents: int, most: int) -> int:
        """Pictures of `latents` frames, or those asked for, but of at most `most` latent frames."""
        pictures = time * (max(1, latents) - 1) + 1 if config.context is None else config.context
        return (min(pictures, time * (max(1, most) - 1) + 1) - 1) // grain * grain + 1

    form = Format(
        height,
        width,
        fps,
        time,
        space,
        grain,
        piece_t,
        # At least one latent frame is left to generate, between two ends too.
        context=context(piece_t // 2, piece_t - 1),
        side=context(piece_t // 4, piece_t // 2),
        is_causal=is_causal(vae),
    )
    _check(config, form, patch)
    return form


def _check(config: SampleCommand, form: Format, patch: tuple[int, int, int]) -> None:
    """Raise BadInput for pieces that no machine could draw, and for a context that leaves nothing of one."""
    size = f"{form.width} x {form.height}"
    if max(form.size) > MOST_SIDE:
        raise BadInput(f"{size} pixels are too large for a video: give sides of at most {MOST_SIDE} pixels.")
    source, pictures = given_source(config), form.piece
    if config.frames is not None and not config.loop and not (source and source[1]):
        pictures = min(pictures, config.frames)
    t, h, w = grid(form.latent_size(pictures), patch)
    tokens = t * h * w
    if tokens > MOST_TOKENS:
        raise BadInput(
            f"a piece of {pictures} frames of {size} pixels has {tokens:,} tokens; at most {MOST_TOKENS:,} can be "
            "drawn at a time: give a smaller --piece, --width or --height."
        )
    most = form.pictures(max(1, form.piece_t - 1))
    if config.context is not None and config.context > most:
        raise BadInput(
            f"--context={config.context} leaves nothing to draw of a piece of {form.piece} frames: give at most {most}."
        )


def _frame_size(
    config: SampleCommand, space: int, patch: tuple[int, int, int], typical: list[int]
) -> tuple[int, int]:
    """(height, width) in pixels; of what is given, the aspect ratio is kept as nearly as the model allows."""
    asked = {"height": config.height, "width": config.width}
    steps = {"height": space * patch[1], "width": space * patch[2]}
    for name, pixels in asked.items():
        if pixels is not None and (pixels < 1 or pixels % steps[name]):
            near = max(1, pixels // steps[name]) * steps[name]
            raise BadInput(f"--{name}={pixels} must be a multiple of {steps[name]} pixels, such as {near}.")
    height, width = space * typical[1], space * typical[2]
    if source := given_source(config):
        path, is_video = source
        shown_w, shown_h = displayed_size(path, is_video=is_video)
        if config.height is None and config.width is None:
            step = math.lcm(*steps.values())
            enlarged = -(-max(height, width) // min(shown_w, shown_h))
            area = FrameConfig(pixels=max(height * width, step * step), side=step)
            width, height = fit(shown_w * enlarged, shown_h * enlarged, area)
        elif config.width is None:
            width = _nearest(shown_w * asked["height"] / shown_h, steps["width"])  # type: ignore[operator]
        elif config.height is None:
            height = _nearest(shown_h * asked["width"] / shown_w, steps["height"])  # type: ignore[operator]
    return config.height or height, config.width or width


def given_source(config: SampleCommand) -> tuple[str, bool] | None:
    """The file that tells the aspect ratio, and whether it is a video."""
    if config.image is not None:
        return config.image, False
    video = config.video or config.edit or (config.connect[0] if config.connect else None)
    return None if video is None else (video, True)


def _nearest(pixels: float, step: int) -> int:
    return max(1, round(pixels / step)) * step
