"""The CLIP that made the clips' embeddings, reading a text that a person typed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """Texts as unit embeddings. Loads the model at the first text, which takes some seconds; only that text waits."""

    def __init__(self, chosen: str | None, *, on_hub: bool = False) -> None:
        """`chosen`: the model to load whatever made the embeddings; `off` for none; None for the one that did.

        `on_hub`: the dataset is read from the Hugging Face Hub, which must not be shut off while a model is loaded.
        """
        self._chosen, self._on_hub = chosen, on_hub
        self._loading, self._reading, self._remembering = Lock(), Lock(), Lock()
        self._towers: dict[str, TextTower] = {}
        self._failures: dict[str, tuple[str, float]] = {}  # model -> why, and when
        self._cache: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def feature(self, text: str, model: str) -> np.ndarray:
        """(D,) float32 of unit length for `text` by `model`, as the clips table names it.

        Raises BadInput where there is no text, or the model cannot be had, and Busy while it is being loaded for
        another text.
        """
        text = " ".join(text.split())
        if not text or len(text) > LONGEST:
            raise BadInput(f"a text to search by has 1 to {LONGEST} characters.")
        with self._remembering:
            if (model, text) in self._cache:
                self._cache.move_to_end((model, text))
                return self._cache[model, text]
        tower = self._tower(model)
        if not self._reading.acquire(timeout=WAIT_S):  # a tokenizer is for one at a time
            raise Busy("CLIP is reading other texts; ask again in a moment.")
        try:
            unit: np.ndarray = tower.embed([text])[0]
        finally:
            self._reading.release()
        with self._remembering:
            self._cache[model, text] = unit
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return unit

    def _tower(self, model: str) -> TextTower:
        if self._chosen == "off":
            raise BadInput("search by text is switched off (--clip=off).")
        self._recall(model)
        if model in self._towers:
            return self._towers[model]
        if not self._loading.acquire(blocking=False):  # a thread that waited would be missing elsewhere
            raise Busy("CLIP is being loaded; ask again in a moment.")
        try:
            self._recall(model)
            if model not in self._towers:
                self._towers[model] = self._loaded(self._chosen or place_of(model))
            return self._towers[model]
        except BadInput as error:
            if model not in self._failures:
                why = (
                    f"the clips' embeddings are by CLIP {model!r}, which cannot be loaded here, so that clips cannot "
                    f"be searched by text; like another clip they can. --clip names a copy of the model. ({error})"
                )
                self._failures[model] = why, time.monotonic()
            raise BadInput(self._failures[model][0]) from error
        finally:
            self._loading.release()

    def _recall(self, model: str) -> None:
        """Raises BadInput where the model could not be had a while ago."""
        why, failed_at = self._failures.get(model, ("", 0.0))
        if why and time.monotonic() - failed_at < FORGET_FAILURE_S:
            raise BadInput(why)
        self._failures.pop(model, None)

    def _loaded(self, place: str) -> TextTower:
        """From this machine where it is here already: without a network the Hub is waited for in vain, for a minute."""
        from recaption.trust.clip_text import load_text_tower

        if not self._on_hub:
            with suppress(BadInput), without_hub():
                return load_text_tower(place)
        return load_text_tower(place)


@contextmanager
def without_hub() -> Iterator[None]:
    """While this lasts nothing is fetched from the Hugging Face Hub, in the whole process."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE  # what its environment variable sets at the start
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


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
