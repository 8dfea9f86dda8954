"""A dataset as the live view holds it, which follows the tables when a command changes them.

    with Live(Dataset("films.reel"), author="ann") as live:
        live.now.rows.find(Wanted())
        live.overrule(clip_id, keep=False, note="a watermark")

One thread looks every few seconds whether a table has other files than before, reads what changed anew beside what is
being shown, and puts it in its place at once. No request waits for it. Texts and embeddings are the slow part: they
come after the rest, are kept where their tables have not changed, and are those of before until the new ones are ready.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput
from curate.tables import TABLES
from pipelines.query import connect
from pipelines.serve_clip_text import TextSearch
from pipelines.serve_pictures import Strips
from pipelines.serve_rows import Rows
from pipelines.serve_scratch import Scratch, sweep
from pipelines.serve_search import Captions
from pipelines.serve_sql import Questions
from pipelines.serve_vectors import Vectors
from pipelines.serve_view import Prepared, View, is_same, versions_of
from pipelines.serve_words import Words

if TYPE_CHECKING:
    from curate.dataset import Dataset

LOOK_EVERY_S = 2.0
LOOK_EVERY_REMOTE_S = 20.0  # a look lists every table
#: While a command adds to a table all the time, searches are made anew for at most a sixth of the time.
REST = 5
_SEARCHED = ("sources", "clips", "captions")


class Live:
    """The views of a dataset, one after another, and what people say of its clips."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        author: str,
        clip: str | None = None,
        run: str | None = None,
        look_every_s: float | None = None,
    ) -> None:
        """Raises BadInput where there is no dataset. `clip`: as `TextSearch` takes it; `run`: of a training run."""
        self.run = run
        self.dataset, self.author = dataset, author
        self.texts = TextSearch(clip, on_hub=dataset.uri.startswith("hf://"))
        self._scratch = Scratch()
        self.strips, self.questions = Strips(dataset), Questions(dataset.uri)
        self._every_s = look_every_s or (LOOK_EVERY_S if dataset.is_local else LOOK_EVERY_REMOTE_S)
        self._end = threading.Event()
        self._changing = threading.Lock()
        self._words = Words(dataset)
        self._rest_until = 0.0
        self.trouble: str | None = None
        self.now = self._view(None)
        self._watcher = threading.Thread(target=self._watch, name="serve-watch", daemon=True)

    def __enter__(self) -> Live:
        sweep()
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self.strips.close()
        self.questions.close()
        self._watcher.join(timeout=10)
        self._scratch.close()

    def overrule(
        self, clip_id: str, *, keep: bool | None, note: str | None, author: str | None = None
    ) -> dict[str, Any]:
        """Add somebody's word on a clip to overrides/, show it at once, and return its row."""
        from curate.overrides import put

        row = put(self.dataset, clip_id, keep=keep, author=author or self.author, note=note)
        with self._changing:
            known = self.now.words.setdefault(clip_id, [])
            if all(row["override_id"] != other["override_id"] for other in known):
                known.append(row)
            self.now.rows.say({clip_id: keep})
        return row

    def decide(self) -> None:
        """Decide again by the rules in force, people's words included, and show the decisions."""
        from pipelines.decide import rules_in_force, write_decisions

        with self._changing:
            write_decisions(self.dataset, rules_in_force(self.dataset))
        self.look()

    def look(self) -> None:
        """Show the tables as they are now, where they have changed."""
        with self._changing:
            versions = versions_of(self.dataset)
            if versions != self.now.versions:
                self.now = self._view(self.now)

    def _watch(self) -> None:
        while not self._end.is_set():
            try:
                self._prepare(self.now)
                if self._end.wait(self._every_s):
                    return
                self.look()
                self.trouble = None
            except Exception as error:  # a table half moved, a store that is away: told, and tried again
                self.trouble = f"the tables cannot be read at the moment: {error}"
                if not isinstance(error, BadInput | OSError):
                    traceback.print_exc()
                self._end.wait(self._every_s)

    def _view(self, old: View | None) -> View:
        """A view of the tables as they are. Where only people's words are new, it shares the rest with the old one."""
        versions = versions_of(self.dataset)
        if old is not None and is_same(versions, old.versions, *(t for t in TABLES if t != "overrides")):
            view = replace(old, versions=versions, words=self._words.read(versions["overrides"]))
        else:
            tables = connect(self.dataset)
            view = View(
                number=old.number + 1 if old else 1,
                versions=versions,
                tables=tables,
                rows=Rows(tables),
                words=self._words.read(versions["overrides"]),
                captions=Prepared.after(old.captions if old else None, versions, *_SEARCHED),
                vectors=Prepared.after(old.vectors if old else None, versions, "clips"),
            )
        view.rows.say({clip_id: told[-1]["keep"] for clip_id, told in view.words.items()})
        return view

    def _prepare(self, view: View) -> None:
        """Make the searches of a view that it lacks, or has for older files only."""
        for prepared, make in ((view.captions, Captions), (view.vectors, Vectors)):
            is_made = prepared.value is not None and not prepared.is_old
            if is_made or self._end.is_set() or (prepared.is_old and time.monotonic() < self._rest_until):
                continue
            began = time.monotonic()
            prepared.told = "being prepared"
            folder = self._scratch.folder("search-")
            with connect(self.dataset) as tables:
                more = (partial(self._told, prepared),) if make is Captions else ()
                prepared.value = make(tables, Path(folder.name), *more)
            prepared.folder, prepared.told, prepared.is_old = folder, "ready", False
            self._rest_until = time.monotonic() + REST * (time.monotonic() - began)

    def _told(self, prepared: Prepared, done: int) -> None:
        prepared.told = f"{done:,} captions read"
        if self._end.is_set():
            raise InterruptedError("the server ends")
