"""Looks on while `reelmill sample` draws: what the model is shown, what is decoded, what is written before coding.

    drawn = watch(monkeypatch)
    main(["--checkpoint=...", "--video=film.mp4", "--extend=both", ...])
    found = drawn.shown(out / "000.mp4")         # (T, H, W, 3), as handed to the file

Whatever the mode, what is given must stand unchanged before the model at each of its calls, must still be there when
all steps are done, and must be in the pictures with its own pixels. That is asserted whenever this looks on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

import model.sampler as sampler_module
import pipelines.generate as generate_module
from model.config import DiTConfig
from model.pack import Clip, Pack
from model.patches import patchify
from model.sampler import Request
from pipelines.sample_files import Mp4File
from pipelines.sample_pieces import Piece


@dataclass
class Drawn:
    """What was asked of the sampler, one video at a time, and what came of it.

    Attributes:
        requests: what each piece was asked for with.
        latents: what was drawn of it, (C, t, h, w).
        calls: how often the model was called for it.
        pictures: what it became, (T, H, W, 3) uint8.
        written: by file, the pictures that were handed to it.
    """

    requests: list[Request] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    written: dict[Path, list[np.ndarray]] = field(default_factory=dict)

    def shown(self, path: Path) -> np.ndarray:
        """The pictures of an mp4 before coding. Those in the file are the same but for that, each at its number."""
        written = np.concatenate(self.written[path])
        found = pictures_of(path).astype(int)
        assert found.shape == written.shape
        apart, moved, back = (
            np.abs(found - np.roll(written, by, 0)).mean(axis=(1, 2, 3)) for by in (0, 1, -1)
        )
        assert apart.max() < 8
        assert (apart < np.minimum(moved, back)).all()
        return written


def watch(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Look on at all that the command draws until the test ends."""
    drawn = Drawn()
    draw, make_pack, to_pictures = generate_module.draw, sampler_module.make_pack, generate_module.to_pictures

    def drawing(dit: Any, requests: list[Request], *rest: Any) -> list[Tensor]:
        (request,) = requests
        before = [tensor.clone() for tensor in given_latents(request)]
        drawn.requests.append(request)
        drawn.calls.append(0)
        (latent,) = draw(dit, requests, *rest)
        for was, now in zip(before, given_latents(request), strict=True):
            assert torch.equal(now, was)
        assert tuple(latent.shape[1:]) == request.size
        if request.known is not None and request.is_known is not None:
            assert torch.equal(latent[:, request.is_known], request.known[:, request.is_known])
        drawn.latents.append(latent)
        return [latent]

    def packing(clips: list[Clip], config: DiTConfig) -> Pack:
        pack = make_pack(clips, config)
        assert_shows_what_is_given(pack, drawn.requests[-1], config)
        drawn.calls[-1] += 1
        return pack

    def decoding(latent: Tensor, piece: Piece, *rest: Any) -> np.ndarray:
        assert torch.equal(latent, drawn.latents[-1])
        pictures = to_pictures(latent, piece, *rest)
        for given in piece.given:
            end = given.at + len(given.pictures)
            assert np.array_equal(pictures[given.at : end], given.pictures[: piece.frames - given.at])
        drawn.pictures.append(pictures.copy())
        return pictures

    class Watched(Mp4File):
        def write(self, pictures: np.ndarray) -> None:
            drawn.written.setdefault(self.path, []).append(pictures.copy())
            super().write(pictures)

    monkeypatch.setattr(generate_module, "draw", drawing)
    monkeypatch.setattr(sampler_module, "make_pack", packing)
    monkeypatch.setattr(generate_module, "to_pictures", decoding)
    monkeypatch.setattr(generate_module, "Mp4File", Watched)
    return drawn


def given_latents(request: Request) -> list[Tensor]:
    """The latents that a request gives: of its beginning, and of later places in their order."""
    known = [] if request.known is None or request.is_known is None else [request.known[:, request.is_known]]
    return [*known, *(span.latent for span in request.spans)]


def assert_shows_what_is_given(pack: Pack, request: Request, config: DiTConfig) -> None:
    """The tokens of level 0 are the given latents bit for bit, at their times, in each clip of a pack."""
    pt = config.patch[0]
    rows, times, seconds = [torch.empty(0, config.token_width)], [], []
    starts = [0] * (request.known is not None) + [span.at for span in request.spans]
    for latent, first in zip(given_latents(request), starts, strict=True):
        rows.append(patchify(latent, config.patch))
        per_time = latent.shape[2] * latent.shape[3] // (config.patch[1] * config.patch[2])
        for number in range(len(rows[-1])):
            times.append(-(-first // pt) + number // per_time)
            seconds.append((first + pt * (number // per_time)) / request.fps)
    assert float(pack.levels[0]) == 0
    assert bool((pack.levels[1:] > 0).all())
    by_token = pack.level_index, pack.tokens, pack.cells[:, 0], pack.positions[:, 0] / config.reference_fps
    by_clip = zip(*(values.split(pack.lengths) for values in by_token), strict=True)
    for number, (index, tokens, found_times, found_seconds) in enumerate(by_clip, start=1):
        is_given = index == 0
        assert bool((index[~is_given] == number).all())
        assert torch.equal(tokens[is_given], torch.cat(rows))
        assert found_times[is_given].tolist() == times
        assert found_seconds[is_given].tolist() == pytest.approx(seconds)


def pictures_of(path: Path) -> np.ndarray:
    """All pictures of a video file, (T, H, W, 3) uint8 RGB."""
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
