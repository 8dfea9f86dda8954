"""Keyframes on their way from the decoder to the models: JPEG bytes beside the clips, opened here."""

from __future__ import annotations

import io
from typing import Any

from curate.errors import BadInput

BROKEN = "a keyframe could not be decoded"


def opened(jpeg: bytes) -> Any:
    """The keyframe as a PIL picture in RGB. Raises BadInput when it is broken."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(jpeg)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(BROKEN) from error
