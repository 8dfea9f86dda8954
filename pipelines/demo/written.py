"""What a captioner writes of videos, as `reelmill recaption` cleans it.

texts = written(videos, "short", fps, CocaCaptioner(embedded("coca")))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from recaption.captioner import Captioner


def written(videos: Sequence[np.ndarray], kind: str, fps: float, captioner: Captioner) -> list[str | None]:
    """Cleaned captions of one kind in the order of the videos; None where nothing of a caption can stand."""
    from recaption.captioner import CaptionRequest
    from recaption.cleaning.clean import clean

    requests = [
        CaptionRequest(str(n), kind, video, tuple(i / fps for i in range(len(video))))
        for n, video in enumerate(videos)
    ]
    texts = {
        result.clip_id: clean(result.text_raw, truncated=result.status == "truncated").text
        for result in captioner.caption(requests)
        if result.text_raw is not None
    }
    return [texts.get(request.clip_id) for request in requests]
