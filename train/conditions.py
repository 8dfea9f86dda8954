"""What of each clip is given beside its text in an epoch, drawn for all clips of a dataset at once.

    table = ClipTable.of(data.clips, shape)
    drawn = draw_conditions(table, epoch, config)
    drawn.n_tokens                       # (N,) tokens of each clip in this epoch, what is given included
    drawn.clip(3)                        # Condition("both_ends", begin=1, keyframes=(1,), suffix=False)

What is given of a beginning lies in the clip's own first latent frames. Single pictures and the ending were encoded by
themselves and come as further tokens (`Span` of model/pack.py), so a clip's draw decides how large it is. The plan of
an epoch must know that of every clip before one is read; so the chances are a hash of (seed, epoch, clip_id) in numpy,
whole columns at a time. Nothing but these three and the clip's own row decides, whatever else is in the dataset.

Where the first picture is among the keyframes, the VAE is not causal: the clip's own first frames know what follows.
The first picture is then given as that keyframe, and `prefix` is what such a clip cannot give.

Where a token holds several latent frames (but for the first one, which is always alone), beginnings are whole tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.config import DiTConfig
from model.patches import grid
from train.config import TrainConfig
from train.data import ClipEntry

#: Ways of asking, in the order of their weights in ConditionMix.
MODES = ("text", "first_frame", "prefix", "suffix", "both_ends", "random")
TEXT, FIRST_FRAME, PREFIX, SUFFIX, BOTH_ENDS, RANDOM = range(6)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Chances = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """What is given of one clip.

    Attributes:
        mode: one of MODES, as it came out: a draw that gives nothing is `text`.
        begin: own latent frames given, from the first.
        keyframes: which of the clip's keyframes are given, ascending; numbers, not places.
        suffix: the ending is given.
    """

    mode: str
    begin: int = 0
    keyframes: tuple[int, ...] = ()
    suffix: bool = False


@dataclass(frozen=True)
class ClipTable:
    """The columns that decide what can be given; N clips with M keyframes in all.

    Attributes:
        keys: (N,) uint64, hashes of the ids.
        frames: (N,) latent frames.
        own: (N,) tokens of the clip itself.
        along: (N,) of these, how many there are along time.
        suffix: (N,) latent frames of the ending that is there by itself; 0 for none.
        has_first: (N,) the first picture is among the keyframes, and its own latent frames are never given.
        has_last: (N,) the last picture is among the keyframes.
        starts: (N + 1,) where each clip's keyframes begin among the M.
        owner: (M,) clip of each keyframe.
        at: (M,) its latent frame.
        tubelet: latent frames in one token.
    """

    keys: NDArray[np.uint64]
    frames: Ints
    own: Ints
    along: Ints
    suffix: Ints
    has_first: Bools
    has_last: Bools
    starts: Ints
    owner: Ints
    at: Ints
    tubelet: int

    @classmethod
    def of(cls, clips: Sequence[ClipEntry], shape: DiTConfig) -> ClipTable:
        """The table of `clips`. Raises BadInput for a latent that the patch does not divide."""
        grids = {size: grid(size, shape.patch) for size in {clip.size for clip in clips}}
        counts = np.array([len(clip.keyframe_at) for clip in clips], np.int64)
        return cls(
            keys=hashed([clip.clip_id for clip in clips]),
            frames=np.array([clip.size[0] for clip in clips], np.int64),
            own=np.array([math.prod(grids[clip.size]) for clip in clips], np.int64),
            along=np.array([grids[clip.size][0] for clip in clips], np.int64),
            suffix=np.array([clip.suffix for clip in clips], np.int64),
            has_first=np.array([clip.keyframe_at[:1] == (0,) for clip in clips], bool),
            has_last=np.array([clip.keyframe_at[-1:] == (clip.size[0] - 1,) for clip in clips], bool),
            starts=np.concatenate([[0], counts.cumsum()]),
            owner=np.repeat(np.arange(len(clips)), counts),
            at=np.array([at for clip in clips for at in clip.keyframe_at], np.int64),
            tubelet=shape.patch[0],
        )

    def chances(self, seed: int, epoch: int, of: int, clip: Ints | slice = slice(None)) -> Chances:
        """A chance in [0, 1) for each clip of `clip`; every `of` is another one."""
        salt = np.zeros(1, np.uint64)
        for number in (seed, epoch, of):
            salt = splitmix((salt + _GOLDEN) ^ np.uint64(number % 2**64))
        return (splitmix(self.keys[clip] + salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Conditions:
    """The draw of an epoch.

    Attributes:
        mode: (N,) numbers into MODES.
        begin: (N,) own latent frames given.
        keyframe: (M,) the keyframe is given.
        suffix: (N,) the ending is given.
        n_tokens: (N,) tokens with all that is given, less those left out.
        starts: (N + 1,) as in ClipTable.
    """

    mode: Ints
    begin: Ints
    keyframe: Bools
    suffix: Bools
    n_tokens: Ints
    starts: Ints

    def clip(self, number: int) -> Condition:
        """What is given of one clip."""
        given = self.keyframe[self.starts[number] : self.starts[number + 1]]
        keyframes = tuple(np.flatnonzero(given).tolist())
        return Condition(
            MODES[self.mode[number]], int(self.begin[number]), keyframes, bool(self.suffix[number])
        )


def draw_conditions(clips: ClipTable, epoch: int, config: TrainConfig) -> Conditions:
    """The draw of `epoch`. A clip that its spans would make larger than the budget of a pack is given none."""

    def chances(of: int, clip: Ints | slice = slice(None)) -> Chances:
        return clips.chances(config.seed, epoch, of, clip)

    mode = _modes(clips, chances(0), config)
    # Beginnings: the first picture, or any number of the tokens along time but all.
    few = 1 + clips.tubelet * (chances(1) * (clips.along - 1)).astype(np.int64)
    coin = np.where(mode == RANDOM, chances(2), 1.0)
    is_first = (mode == FIRST_FRAME) | (mode == BOTH_ENDS) | (coin < 0.25)
    begin = np.where(is_first, 1, np.where((mode == PREFIX) | (coin < 0.5), few, 0))
    begin[clips.has_first] = 0
    # What `random` gives of a beginning is not given again, nor a picture of the ending.
    ending_at = clips.frames - clips.suffix
    suffix = (mode == SUFFIX) | (
        (mode == RANDOM) & (clips.suffix > 0) & (chances(3) < 0.5) & (ending_at >= begin)
    )
    of_clip, at = clips.owner, clips.at
    rank = np.arange(len(at)) - clips.starts[of_clip]  # number of the keyframe within its clip
    shows_last, shows_first = mode == BOTH_ENDS, (mode == BOTH_ENDS) | (mode == FIRST_FRAME)
    keyframe = (shows_last[of_clip] & (at == clips.frames[of_clip] - 1)) | (shows_first[of_clip] & (at == 0))
    free = (at >= begin[of_clip]) & ~(suffix[of_clip] & (at >= ending_at[of_clip]))
    for number in range(int(rank.max(initial=-1)) + 1):
        chosen = np.flatnonzero((rank == number) & (mode[of_clip] == RANDOM) & free)
        keyframe[chosen] = chances(4 + number, of_clip[chosen]) < 0.5

    per_frame = clips.own // clips.along
    of_ending = per_frame * (1 + -(-(clips.suffix - 1) // clips.tubelet))

    def of_spans() -> Ints:
        pictures = np.bincount(of_clip[keyframe], minlength=len(mode))
        return per_frame * pictures + np.where(suffix, of_ending, 0)

    is_large = clips.own + of_spans() > config.packing.budget
    suffix &= ~is_large
    mode = np.where(is_large & (mode == BOTH_ENDS), FIRST_FRAME, mode)
    fits_first = (mode == FIRST_FRAME) & (clips.own + per_frame <= config.packing.budget)
    keyframe &= ~is_large[of_clip] | (fits_first[of_clip] & (at == 0))
    mode = np.where((begin == 0) & (of_spans() == 0), TEXT, mode)
    given = per_frame * ((begin - 1 + clips.tubelet) // clips.tubelet)  # beginnings are whole tokens
    left_out = (config.left_out * (clips.own - given)).astype(np.int64)  # as model/token_drop.py counts them
    return Conditions(mode, begin, keyframe, suffix, clips.own + of_spans() - left_out, clips.starts)


def _modes(clips: ClipTable, choice: Chances, config: TrainConfig) -> Ints:
    """(N,) modes by weight among those that a clip can serve; `text` where none of these has a weight."""
    is_clip = clips.frames > 1
    can = {
        "text": np.ones(len(choice), bool),
        "first_frame": is_clip,
        "prefix": is_clip & ~clips.has_first,
        "suffix": clips.suffix > 0,
        "both_ends": clips.has_last,
        "random": is_clip,
    }
    edges = np.cumsum([can[name] * getattr(config.condition, name) for name in MODES], axis=0)  # (6, N)
    # Rounding must not lift a choice to the last edge itself, behind which there is no mode.
    choice = np.minimum(choice * edges[-1], np.nextafter(edges[-1], 0))
    return np.where(edges[-1] > 0, (choice >= edges).sum(0), TEXT)


def hashed(ids: Sequence[str]) -> NDArray[np.uint64]:
    """(N,) hashes of ids; each depends on its own id only."""
    text = np.array([name.encode() for name in ids], np.bytes_)
    width = -(-text.dtype.itemsize // 8)
    words = text.astype(f"S{8 * width}").view("<u8").reshape(len(ids), width)
    keys = np.zeros(len(ids), np.uint64)
    for word in words.T:  # zeros pad ids that are shorter than the longest: they must change nothing
        keys = np.where(word == 0, keys, splitmix((keys + _GOLDEN) ^ word))
    return keys


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): every bit of x changes half of the bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
