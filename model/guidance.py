"""Classifier-free guidance with one strength for the text and one for given pictures.

    weights = weigh(text=4.0, image=1.5, has_text=True, has_image=True)
    v = guide({"full": v_full, "no_text": v_image, "none": v_none}, weights)

InstructPix2Pix (arXiv:2211.09800), equation 3, for the strengths s_I of the image and s_T of the text:

    v = v(∅, ∅) + s_I·(v(image, ∅) - v(∅, ∅)) + s_T·(v(image, text) - v(image, ∅))

It is a sum of three passes with the weights 1 - s_I, s_I - s_T and s_T; a pass of weight 0 is not computed. With one
strength alone it is Ho & Salimans, arXiv:2207.12598.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from model.sample_config import SampleConfig

#: What a pass of the model is told: all, all but the text, or neither text nor given pictures.
Pass = Literal["full", "no_text", "none"]


def weigh(*, text: float, image: float, has_text: bool, has_image: bool) -> dict[Pass, float]:
    """The passes that are needed and their weights, which add up to 1.

    Without a text, the passes with and without it are one, and so it is with given pictures.
    """
    weights: dict[Pass, float] = {"full": text, "no_text": image - text, "none": 1.0 - image}
    if not has_image:
        weights["no_text"], weights["none"] = 1.0 - text, 0.0
    if not has_text:
        weights["full"], weights["no_text"] = weights["full"] + weights["no_text"], 0.0
        if not has_image:
            weights = {"full": 1.0, "no_text": 0.0, "none": 0.0}
    return {name: weight for name, weight in weights.items() if weight != 0.0} or {"full": 1.0}


def weigh_at(t: float, config: SampleConfig, *, has_text: bool, has_image: bool) -> dict[Pass, float]:
    """`weigh` at noise level t: outside the interval (Kynkäänniemi et al., arXiv:2404.07724) both strengths are 1."""
    least, most = config.guidance_interval
    inside = least <= t <= most
    text, image = (config.guidance, config.image_guidance) if inside else (1.0, 1.0)
    return weigh(text=text, image=image, has_text=has_text, has_image=has_image)


def guide(passes: Mapping[Pass, Tensor], weights: Mapping[Pass, float]) -> Tensor:
    """The sum of the passes by their weights."""
    total: Tensor | None = None
    for name, weight in weights.items():
        part = passes[name] if weight == 1.0 else weight * passes[name]
        total = part if total is None else total + part
    assert total is not None, "no pass has a weight"
    return total


def rescaled(
    guided: Tensor, plain: Tensor, x: Tensor, t: float, share: float, is_generated: Tensor
) -> Tensor:
    """`guided` with the contrast that guidance added taken back by `share` (Lin et al., arXiv:2305.08891).

    The clean clips x - t·v that the velocities point at are compared: σ over all generated values of the guided one
    and of the one without guidance, clean' = clean·(share·σ_plain/σ_guided + 1 - share).

    Args:
        guided, plain: (C, t, h, w) velocities with guidance, and that of the full pass.
        x: (C, t, h, w) the clip at noise level `t`.
        t: noise level, above 0.
        share: 0 leaves `guided` as it is.
        is_generated: (t,) bool, the latent frames that count.
    """
    if share == 0 or not bool(is_generated.any()):
        return guided
    clean, reference = x - t * guided, x - t * plain
    wanted, found = reference[:, is_generated].std(), clean[:, is_generated].std()
    factor = share * wanted / found.clamp(min=torch.finfo(found.dtype).tiny) + (1 - share)
    return (x - factor * clean) / t
