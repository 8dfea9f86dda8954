"""Examples for the captioner out of a dataset: which clips and captions, in which order, and the words in them.

    data = CaptionedData("films.reel", DataConfig(), wanted={"short": 0.5, "dense": 0.5}, seed=0)
    stream = data(1200)                      # examples 1200, 1201, ...: number n is always the same
    data.vocabulary()                        # the words of the captions learnt from
    data.validation(500)                     # examples that are never learnt from

Sources are held out whole, by a hash of their source_id: the next shot of a film shows the same people and rooms, and
says little about new ones. So every stage and every run holds out the same clips.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from curate.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from pipelines.captioner_clips import Clips, Load, Look
    from recaption.coca.training import Example


@dataclass(frozen=True)
class DataConfig:
    """Which clips of a dataset the captioner learns from, and which words.

    Attributes:
        read: shards streams frames and captions out of the WebDataset tars (KEY.mp4, KEY.json); tables takes the
            chosen captions of the captions table and decodes the frames of kept clips from the source files.
        held_out: share of the sources whose clips are never learnt from and serve the validation, by a hash of their
            source_id; at least one source, or of a single source this share of its clips. 0 is none.
        least_count: how often a word must occur in the captions learnt from to be in the vocabulary of a base;
            rarer ones are unknown.
        most_words: size of that vocabulary; the most frequent words are in it.
        shuffle: clips of shards in memory at a time, out of which the next is drawn.
        cache_mib: MiB of decoded frames to keep, so that a small dataset is decoded once.
    """

    read: Literal["shards", "tables"] = "shards"
    held_out: float = 0.1
    least_count: int = 2
    most_words: int = 8000
    shuffle: int = 128
    cache_mib: int = 1024


class CaptionedData:
    """The captioned clips of a dataset as examples without end; call it with how many to skip.

    Attributes:
        kind_shares: shares of the kinds that the dataset has, out of those wanted.
        n_lacking: clips left out for want of a caption of one of these kinds.
    """

    def __init__(
        self, uri: str, config: DataConfig, wanted: dict[str, float], *, seed: int, look: Look | None = None
    ) -> None:
        """Raises BadInput where there are no shards or captions, or none of a kind that is to be learnt."""
        from curate.dataset import Dataset
        from pipelines.captioner_clips import ShardClips, TableClips

        self.config, self.seed = config, seed
        dataset = Dataset(uri)
        self._clips: Clips = (
            ShardClips(dataset, shuffle=config.shuffle, look=look)
            if config.read == "shards"
            else TableClips(dataset, look=look)
        )
        found = self._clips.captions()
        have = Counter(kind for captioned in found.values() for kind in captioned.texts)
        told = ", ".join(f"{have[kind]} {kind}" for kind in sorted(have)) or "none"
        self.kind_shares = {kind: share for kind, share in wanted.items() if share > 0 and have[kind]}
        learnt = [kind for kind in self.kind_shares if kind != "original"]
        if not learnt:
            kinds = [kind for kind in wanted if kind != "original"]
            again = " and then `reelmill shard`" if config.read == "shards" else ""
            raise BadInput(
                f"{uri} has no {' or '.join(kinds)} captions to learn from (its clips have: {told}). Run "
                f"`reelmill recaption --dataset {uri} --kinds=[{','.join(kinds)}]`{again}."
            )
        self.captions = {
            clip_id: _complete(captioned.texts, self.kind_shares, learnt)
            for clip_id, captioned in found.items()
            if all(kind in captioned.texts for kind in learnt)
        }
        self.n_lacking = len(found) - len(self.captions)
        # Of all clips, not only of those with every kind: another stage, with other kinds, holds out the same.
        kept_back = held_out({clip_id: clip.source_id for clip_id, clip in found.items()}, config.held_out)
        self.held_out = sorted(
            kept_back & self.captions.keys(), key=lambda clip_id: (place_of(clip_id), clip_id)
        )
        self.learnt = frozenset(self.captions) - set(self.held_out)
        if not self.learnt or (config.held_out > 0 and not self.held_out):
            raise BadInput(
                f"of the {len(self.captions)} captioned clips of {uri}, {len(self.learnt)} are to be learnt from "
                f"and {len(self.held_out)} held out; change --examples.held_out={config.held_out} (0: none)."
            )
        self._cache: dict[str, np.ndarray] = {}
        self._room = config.cache_mib << 20

    def __call__(self, skip: int) -> Iterator[Example]:
        epoch, skip = divmod(skip, len(self.learnt))
        while True:
            # Skipped clips are read over in their tars, but not decoded.
            for clip_id, load in islice(self._clips.epoch(self.learnt, self.seed, epoch), skip, None):
                yield self._example(clip_id, load)
            epoch, skip = epoch + 1, 0

    def validation(self, n_clips: int) -> list[Example]:
        """The first `n_clips` of the clips held out, in the order of their hashes."""
        return [
            self._example(clip_id, lambda clip_id=clip_id: self._clips.frames(clip_id))  # type: ignore[misc]
            for clip_id in self.held_out[:n_clips]
        ]

    def times(self, clip_id: str) -> tuple[float, ...]:
        """When the frames of a clip are shown, in seconds from its start."""
        return self._clips.times(clip_id)

    def vocabulary(self) -> list[str]:
        """Words and signs of the captions learnt from, the most frequent first, as the configuration caps them."""
        from recaption.coca.tokenizer import words

        counts = Counter(
            word
            for clip_id in self.learnt
            for text in self.captions[clip_id].values()
            for word in words(text)
        )
        enough = [word for word, count in counts.items() if count >= self.config.least_count]
        return sorted(enough, key=lambda word: (-counts[word], word))[: self.config.most_words]

    def identity(self) -> str:
        """Hash of everything that decides which example has which number."""
        from curate.dataset import config_hash

        config = self.config
        return config_hash([config.read, config.held_out, config.shuffle, sorted(self.captions.items())])

    def cut_share(self, context_length: int) -> float:
        """Share of captions that are longer than the model can read: they are learnt without their end."""
        from recaption.coca.tokenizer import words

        texts = [text for clip_id in self.learnt for text in self.captions[clip_id].values()]
        return sum(len(words(text)) > context_length - 3 for text in texts) / len(texts)

    def _example(self, clip_id: str, load: Load) -> Example:
        from recaption.coca.training import Example

        frames = self._cache.get(clip_id)
        if frames is None:
            frames = load()
            if frames.nbytes <= self._room:
                self._cache[clip_id] = frames
                self._room -= frames.nbytes
        return Example(frames, self.captions[clip_id], clip_id)


def held_out(source_of: Mapping[str, str], share: float) -> set[str]:
    """The clip_ids that are never learnt from, out of clip_id -> source_id: those of a `share` of the sources.

    Of few sources it is at least one. A single source is divided by its clips, which tells less.
    """
    sources = sorted(set(source_of.values()), key=lambda source: (place_of(source), source))
    if share <= 0 or not sources:
        return set()
    if len(sources) == 1:
        return {clip_id for clip_id in source_of if place_of(clip_id) < share}
    some = {source for source in sources if place_of(source) < share} or {sources[0]}
    return {clip_id for clip_id, source in source_of.items() if source in some}


def place_of(name: str) -> float:
    """A place in [0, 1) that depends on a clip_id or source_id alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


def _complete(captions: dict[str, str], kinds: dict[str, float], learnt: list[str]) -> dict[str, str]:
    """Captions of `kinds`; a clip without an original one, which not every film has, gives another for it."""
    return {kind: captions.get(kind) or captions[learnt[0]] for kind in kinds}
