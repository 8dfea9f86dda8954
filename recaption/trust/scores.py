"""How well a caption fits its clip, by CLIP, and which captions belong to another clip.

    texts = embed_captions([row["text"] for row in rows], tower.embed, tower.fits)    # recaption.trust.clip_text
    scores = score(embeddings, clip_of, texts, kinds)                  # clip_score, clip_margin, fit
    wrong = suspects(scores, kinds)                                    # flag suspect_mismatch

A bare cosine says little: pictures and texts lie in two cones, and some captions suit every clip. So a caption is
compared with itself: how much better it fits its own clip than it fits other clips. `clip_margin` is that in
cosines. `fit` is the same as a standard score, after pictures and the texts of each kind have lost their means
(0: like any clip; one in a thousand random clips reaches 3). Measured with 5 % of 1,000 captions of
the procedural world exchanged (2026-11-21, stills, the CoCa of that day): at a precision of 0.95, the bare
cosine finds 0.90 to 0.91 of them, the cosine less the best of other captions for the clip 0.90, less that of other
clips for the caption 0.97 to 0.98, and `fit` 0.99. Where the limit has to be found without knowing the truth, `fit`
comes to 0.96 to 0.99, and `recaption.trust.distance` to 0.99 to 1.00.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.errors import BadInput
from recaption.trust.distance import distances

SUSPECT = "suspect_mismatch"
#: Captions of a kind, per number of the embedding, from which on captions are predicted from pictures.
ENOUGH = 1.5
_BLOCK = 2048  # captions compared with the sample of clips at once


@dataclass(frozen=True)
class TrustConfig:
    """How captions are compared with other clips.

    Attributes:
        sample: clips, drawn at random, that a caption's margin is measured against; means and spreads are over all.
        quantile: of the sampled clips, ordered by how well the caption fits, the one that the margin is against.
        far_fence: a caption is suspect if its distance lies this many times (upper quartile - median) over the upper
            quartile of its kind.
        far_chance: a caption nearer to its clip than this share of random pairs is never suspect.
        fence: of kinds with few captions (under 1.5 per number of the embedding), a caption is suspect if its fit lies
            this many times (median - lower quartile) under the lower quartile.
        chance: of these, one that fits its clip better than this share of random pairs is never suspect.
        least_clips: with fewer clips or captions of a kind, margin and fit stay null and nothing is suspect.
        seed: of the sample.
    """

    sample: int = 4096
    quantile: float = 0.99
    fence: float = 1.8
    chance: float = 0.992
    far_fence: float = 8.0
    far_chance: float = 0.9995
    least_clips: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("quantile", "chance", "far_chance"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(
                    f"trust.{name} is {getattr(self, name)}; it is a share between 0 and 1, such as 0.99."
                )
        if self.sample < 2 or self.least_clips < 3:
            raise BadInput("trust.sample must be at least 2 and trust.least_clips at least 3.")


@dataclass(frozen=True)
class Scores:
    """Per caption, float32; NaN where it is null in the table.

    Attributes:
        clip_score: cosine of the clip's and the caption's embedding.
        clip_margin: clip_score less the quantile (0.99) of the same caption's cosines with other clips.
        fit: standard score of the clip among all clips, for this caption.
        distance: squared distance of the caption from what its clip predicts (`recaption.trust.distance`); NaN also
            where a kind has few captions.
        chance: kind -> the fit that the share `TrustConfig.chance` of its random pairs stays below.
        far_chance: kind -> the distance that the share `TrustConfig.far_chance` of its random pairs lies beyond.
    """

    clip_score: np.ndarray
    clip_margin: np.ndarray
    fit: np.ndarray
    distance: np.ndarray
    chance: dict[str, float]
    far_chance: dict[str, float]


def score(
    clips: np.ndarray,
    clip_of: np.ndarray,
    texts: np.ndarray,
    kinds: Sequence[str],
    config: TrustConfig | None = None,
) -> Scores:
    """Compare each caption with its clip and with other clips; nothing is compared across models.

    Args:
        clips: (N, D) embeddings of clips, all of one model; rows of NaN have none.
        clip_of: (M,) row of each caption's clip in `clips`, -1 where the clip is not there.
        texts: (M, D) embeddings of the captions by the same model; rows of NaN have none.
        kinds: (M,) short, dense, ...: captions are judged among those of their kind.

    Raises BadInput if the two embeddings differ in length: they are not of one model.

    Cost: N D^2 + M D^2 for means, spreads and distances, which are exact, and M times the sample times D for the
    margin.
    """
    config = config or TrustConfig()
    null = np.full(len(texts), np.nan, np.float32)
    found = Scores(null, null.copy(), null.copy(), null.copy(), {}, {})
    if not len(clips) or not len(texts) or not texts.shape[1]:
        return found
    if clips.shape[1] != texts.shape[1]:
        raise BadInput(
            f"the clips' embeddings have {clips.shape[1]} numbers, the captions' {texts.shape[1]}: they are of two "
            "models. Give the CLIP that curated this dataset (clips.embedding_model)."
        )
    place_of = np.full(len(clips) + 1, -1)  # the last place answers for a clip that is not there
    there = np.flatnonzero(_directed(clips))
    place_of[there] = np.arange(len(there))
    own = place_of[clip_of]  # (M,) row in `pictures`
    pictures = _unit(clips[there])
    rows = np.flatnonzero((own >= 0) & _directed(texts))
    said = _unit(texts[rows])
    found.clip_score[rows] = (pictures[own[rows]] * said).sum(1)
    if len(there) < config.least_clips:
        return found
    rng = np.random.default_rng(config.seed)
    others = np.sort(rng.choice(len(there), min(config.sample, len(there)), replace=False))
    bare = _unit(pictures - pictures.mean(0))
    names = np.asarray(kinds, dtype=object)[rows]
    for kind in sorted(set(names)):
        group = np.flatnonzero(names == kind)
        if len(group) < config.least_clips:
            continue
        at, mine = rows[group], own[rows[group]]
        rival = _rival(pictures, said[group], mine, others, config.quantile)
        found.clip_margin[at] = found.clip_score[at] - rival
        texts_bare = without_mean(said[group], [kind] * len(group))
        mean, spread = _moments(bare, texts_bare, mine)
        found.fit[at] = ((bare[mine] * texts_bare).sum(1) - mean) / spread
        found.chance[kind] = _random_fit(bare, texts_bare, mine, config.chance, rng)
        if len(group) >= ENOUGH * texts.shape[1]:
            expected = distances(bare[mine], texts_bare)
            found.distance[at] = expected.own
            found.far_chance[kind] = expected.random(1 - config.far_chance, rng)
    return found


def suspects(scores: Scores, kinds: Sequence[str], config: TrustConfig | None = None) -> np.ndarray:
    """(M,) bool: captions that seem to belong to another clip; null scores never do.

    A suspect lies farther from what its clip predicts than nearly all captions of its kind (Tukey's fence, 1977, by
    the half on the bad side, so that up to a quarter of wrong captions do not move it far), and no nearer than random
    pairs do. Predicting takes many captions: of a kind with few, the fit is judged in the same way. With 5 % of the
    captions of the procedural world exchanged, 0.99 to 1.00 are found of 1,000 at a precision of 0.98 to 1.00, and all
    of 200 at 1.00 (2026-11-21, six sets of clips each).
    """
    config = config or TrustConfig()
    found = np.zeros(len(scores.fit), bool)
    names = np.asarray(kinds, dtype=object)
    for kind in sorted(set(names)):
        rows = np.flatnonzero((names == kind) & np.isfinite(scores.fit))
        if len(rows) < config.least_clips:
            continue
        if kind in scores.far_chance:
            far = scores.distance[rows]
            middle, high = np.quantile(far, (0.5, 0.75))
            found[rows] = far > max(high + config.far_fence * (high - middle), scores.far_chance[kind])
        else:
            fit = scores.fit[rows]
            low, middle = np.quantile(fit, (0.25, 0.5))
            found[rows] = fit < min(low - config.fence * (middle - low), scores.chance[kind])
    return found


def without_mean(texts: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """(M, D) unit vectors of what sets each caption apart from its kind; rows of NaN stay, of the mean are zeros."""
    out = np.full_like(texts, np.nan, dtype=np.float32)
    known = _directed(texts)
    names = np.asarray(kinds, dtype=object)
    for kind in set(names):
        rows = np.flatnonzero((names == kind) & known)
        if len(rows):
            out[rows] = _unit(texts[rows] - texts[rows].mean(0))
    return out


def _rival(
    pictures: np.ndarray, texts: np.ndarray, own: np.ndarray, others: np.ndarray, quantile: float
) -> np.ndarray:
    """(m,) quantile of each caption's cosines with the clips in `others`, its own left out."""
    found = np.empty(len(texts), np.float32)
    sample = pictures[others]  # (S, D)
    rank = int(
        quantile * (len(others) - 1)
    )  # the own clip, if it is in the sample, moves it by one place at most
    for place in range(0, len(texts), _BLOCK):
        block = slice(place, place + _BLOCK)
        cosines = texts[block] @ sample.T  # (B, S)
        cosines[own[block, None] == others[None]] = -np.inf
        found[block] = np.partition(cosines, rank, axis=1)[:, rank]
    return found


def _moments(pictures: np.ndarray, texts: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (m,) each, of every caption's cosines with all clips but its own; exact."""
    n = len(pictures)
    mine = (pictures[own] * texts).sum(1)
    total = texts @ pictures.sum(0) - mine
    squares = ((texts @ (pictures.T @ pictures)) * texts).sum(1) - mine**2
    mean = total / (n - 1)
    return mean, np.sqrt(np.maximum(squares / (n - 1) - mean**2, 1e-12))


def _random_fit(
    pictures: np.ndarray, texts: np.ndarray, own: np.ndarray, share: float, rng: np.random.Generator
) -> float:
    """The fit that `share` of random pairs of a caption and another clip stay below."""
    rows = rng.permutation(len(texts))[:_BLOCK]
    others = rng.permutation(len(pictures))[:_BLOCK]
    mean, spread = _moments(pictures, texts[rows], own[rows])
    fit = (texts[rows] @ pictures[others].T - mean[:, None]) / spread[:, None]
    return float(np.quantile(fit[own[rows, None] != others[None]], share))


def _directed(vectors: np.ndarray) -> np.ndarray:
    """(N,) bool: rows that have a direction."""
    norms = np.linalg.norm(vectors, axis=1)
    return np.isfinite(norms) & (norms > 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
