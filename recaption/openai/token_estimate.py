"""How many tokens a request will have, before the server has counted them.

The first guess takes four letters, or 28x28 pixels, to a token (as Qwen2.5-VL does). Each answer that tells its
prompt tokens corrects the guesses after it, so they soon fit the model at hand. Requests with pictures and those of
text alone are corrected apart: how many tokens a picture is says nothing about words.
"""

from __future__ import annotations

import math

from recaption.captioner import CaptionRequest
from recaption.openai.scouting import has_pictures

LETTERS_PER_TOKEN = 4
PIXELS_PER_TOKEN = 28 * 28
CHAT_TEMPLATE_TOKENS = 16


class TokenEstimate:
    """Prompt tokens, guessed; lives in one event loop."""

    def __init__(self) -> None:
        self._guessed = {True: 0.0, False: 0.0}  # by whether there are pictures
        self._told = dict(self._guessed)

    def of(self, request: CaptionRequest) -> int:
        """Prompt tokens to expect of `request`."""
        sort = has_pictures(request)
        ratio = self._told[sort] / self._guessed[sort] if self._guessed[sort] else 1.0
        return math.ceil(_guess(request) * ratio)

    def learn(self, request: CaptionRequest, tokens_in: int) -> None:
        """The server counted `tokens_in` prompt tokens in `request`."""
        self._guessed[has_pictures(request)] += _guess(request)
        self._told[has_pictures(request)] += tokens_in


def _guess(request: CaptionRequest) -> float:
    pixels = request.frames.size / 3  # (T, H, W, 3)
    letters = len(request.prompt)
    return CHAT_TEMPLATE_TOKENS + letters / LETTERS_PER_TOKEN + pixels / PIXELS_PER_TOKEN
