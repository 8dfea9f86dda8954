"""The shapes that a video VAE can have, as plain data that needs no torch; `tiny` and `base`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from model.errors import BadInput

# Younger than the ids of shipped weights, which must not change.
_OF_CODES = ("bottleneck", "levels")


@dataclass(frozen=True)
class VAEConfig:
    """The shape of a video VAE.

    Attributes:
        name: short name, part of the VAE's id (letters, digits and hyphens).
        channels: latent channels.
        temporal: pictures per latent frame after the first; a power of two.
        spatial: pixels per latent position, in height and in width; a power of two.
        patch: pixels that become channels before the first convolution, in height and in width.
        widths: channels of each level, from pixels to latents; space is halved after the first levels, time
            after the last ones, until the compression is reached.
        encoder_depth: residual blocks per level of the encoder.
        decoder_depth: residual blocks per level of the decoder.
        bottleneck: kl for a normal distribution over latents, fsq for latents rounded to a few levels.
        levels: number of levels of each latent channel, for fsq only; (8, 8, 8, 5, 5, 5) makes 64000 codes.
    """

    name: str = "tiny"
    channels: int = 16
    temporal: int = 4
    spatial: int = 8
    patch: int = 4
    widths: tuple[int, ...] = (48, 96, 128)
    encoder_depth: int = 1
    decoder_depth: int = 2
    bottleneck: Literal["kl", "fsq"] = "kl"
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.bottleneck not in ("kl", "fsq"):
            raise BadInput(f"VAE: bottleneck {self.bottleneck!r} is unknown. Give kl or fsq.")
        wanted = self.channels if self.bottleneck == "fsq" else 0
        if len(self.levels) != wanted:
            raise BadInput(
                f"VAE: {len(self.levels)} levels for bottleneck {self.bottleneck} with {self.channels} channels. "
                f"Give {wanted}: one per channel for fsq (--vae.levels also sets the number of channels), none for kl."
            )

    def told(self) -> dict[str, Any]:
        """The fields as they are stored and hashed; those of quantisation are absent where there is none."""
        fields = asdict(self)
        return fields if self.bottleneck != "kl" else {k: fields[k] for k in fields if k not in _OF_CODES}

    def strides(self) -> list[tuple[int, int]]:
        """(time, space) by which each level is reduced on its way to the next. Raises BadInput."""
        steps = len(self.widths) - 1
        in_time, in_space = math.log2(self.temporal), math.log2(self.spatial / self.patch)
        if not (in_time.is_integer() and in_space.is_integer() and min(in_time, in_space) >= 0):
            raise BadInput(
                f"VAE: temporal {self.temporal} and spatial/patch {self.spatial}/{self.patch} must be powers "
                "of two. Use for example temporal 4, spatial 8, patch 2."
            )
        if max(in_time, in_space) > steps:
            raise BadInput(
                f"VAE: {len(self.widths)} widths allow {steps} halvings, but {int(max(in_time, in_space))} "
                "are needed. Give more widths or a larger patch."
            )
        return [(2 if i >= steps - in_time else 1, 2 if i < in_space else 1) for i in range(steps)]


#: tiny: 1.4 M weights, trained on the procedural world in 19 minutes of two cores; base: Wan 2.1's widths.
PRESETS = {
    "tiny": VAEConfig(),
    "base": VAEConfig(name="base", patch=2, widths=(96, 192, 384), encoder_depth=2, decoder_depth=3),
}


@dataclass(frozen=True)
class VAESizeConfig:
    """Which VAE to train: a preset, and what differs from it.

    Attributes:
        preset: the shape to start from.
        channels: latent channels; null takes the preset's, as in what follows.
        temporal: pictures per latent frame after the first; a power of two.
        spatial: pixels per latent position, in height and in width; a power of two.
        patch: pixels that become channels before the first convolution, in height and in width.
        widths: channels of each level, from pixels to latents.
        encoder_depth: residual blocks per level of the encoder.
        decoder_depth: residual blocks per level of the decoder.
        bottleneck: kl for a normal distribution over latents, fsq for latents rounded to a few levels.
        levels: number of levels of each latent channel, for fsq only; as many as channels.
    """

    preset: Literal["tiny", "base"] = "tiny"
    channels: int | None = None
    temporal: int | None = None
    spatial: int | None = None
    patch: int | None = None
    widths: tuple[int, ...] | None = None
    encoder_depth: int | None = None
    decoder_depth: int | None = None
    bottleneck: Literal["kl", "fsq"] | None = None
    levels: tuple[int, ...] | None = None

    def config(self) -> VAEConfig:
        """The VAE asked for, under the preset's name. Raises BadInput if its parts do not fit."""
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "preset"}
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in told.items() if v is not None
        }
        if "levels" in given:
            given.setdefault("channels", len(given["levels"]))
        found = replace(PRESETS[self.preset], **given)
        found.strides()  # raises where the compression cannot be reached
        return found
