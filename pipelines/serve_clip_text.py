"""The CLIP that made the clips' embeddings, reading a text that a person typed."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from curate.errors import BadInput
from pipelines.serve_sql import Busy

if TYPE_CHECKING:
    from recaption.trust.clip_text import TextTower

LONGEST = 500  # characters
FORGET_FAILURE_S = 300.0  # a model that cannot be had is not tried for every text: that takes a minute
WAIT_S = 3.0
_CACHED = 128


class TextSearch:
    """Texts as unit embeddings. Loads the model at the first text, which takes some seconds."""

    def __init__(self, chosen: str | None) -> None:
        """`chosen`: the model to load whatever made the embeddings; `off` for none; None for the one that did."""
        self._chosen = chosen
        self._lock = Lock()
        self._towers: dict[str, TextTower] = {}
        self._failures: dict[str, tuple[str, float]] = {}  # model -> why, and when
        self._cache: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def feature(self, text: str, model: str) -> np.ndarray:
        """(D,) float32 of unit length for `text` by `model`, as the clips table names it.

        Raises BadInput where there is no text, or the model cannot be had, and Busy while it is being loaded.
        """
        text = " ".join(text.split())
        if not text or len(text) > LONGEST:
            raise BadInput(f"a text to search by has 1 to {LONGEST} characters.")
        if not self._lock.acquire(timeout=WAIT_S):
            raise Busy("CLIP is being loaded, or is reading another text; ask again in a moment.")
        try:
            if (model, text) not in self._cache:
                self._cache[model, text] = self._tower(model).embed([text])[0]
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            self._cache.move_to_end((model, text))
            return self._cache[model, text]
        finally:
            self._lock.release()

    def _tower(self, model: str) -> TextTower:
        if model not in self._towers:
            if self._chosen == "off":
                raise BadInput("search by text is switched off (--clip=off).")
            why, failed_at = self._failures.get(model, ("", 0.0))
            if why and time.monotonic() - failed_at < FORGET_FAILURE_S:
                raise BadInput(why)
            from recaption.trust.clip_text import load_text_tower

            try:
                self._towers[model] = load_text_tower(self._chosen or place_of(model))
            except BadInput as error:
                why = (
                    f"the clips' embeddings are by CLIP {model!r}, which cannot be loaded here, so that clips cannot "
                    f"be searched by text; like another clip they can. --clip names a copy of the model. ({error})"
                )
                self._failures[model] = why, time.monotonic()
                raise BadInput(why) from error
        return self._towers[model]


def place_of(model: str) -> str:
    """Where the model lies that the clips table calls so; `embedded/HASH` is the one that ships with the code."""
    if model == "embedded" or model.startswith("embedded/"):
        from pipelines.demo.weights import embedded, embedded_name

        if model != embedded_name("coca"):
            raise BadInput(
                f"the embedded CLIP is {embedded_name('coca')} by now; `reelmill curate` again makes embeddings by it"
            )
        return str(embedded("coca"))
    return model
