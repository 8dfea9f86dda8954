"""HunyuanVideo's and CogVideoX's VAEs: a first picture is given in the same way when training and when sampling."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import moving_square
from PIL import Image
from small_pretrained import pretrained_folder
from small_shards import film, write_shards
from small_text_encoder import open_clip_text_folder
from torch import Tensor

import model.sampler as sampler_module
import pipelines.generate as generate_module
from model.any_vae import load_any_vae
from model.config import SizeConfig
from model.pack import Pack
from model.patches import patchify
from model.sampler import Request
from pipelines.encode import EncodeConfig, encode
from pipelines.encode_frames import FrameConfig, Shape, read_clip
from pipelines.sample import SampleCommand, main
from pipelines.sample_format import Format
from pipelines.sample_pieces import Given, Piece, seen_of, to_pictures, to_request
from pipelines.sample_pieces import encode as encode_pictures
from pipelines.sample_plan import Seen, rehearse
from train.batch import make_batch
from train.conditions import Condition
from train.config import ConditionMix, TrainConfig
from train.data import LatentDataset
from train.loop import train

SIDE, FPS, PICTURES = 32, 8.0, 9
FRAMES = FrameConfig(pixels=SIDE * SIDE, side=16, fps=FPS, max_frames=PICTURES)
FIRST_FRAME = ConditionMix(text=0, first_frame=1, prefix=0, suffix=0, both_ends=0, random=0, noise=0)


@dataclass(frozen=True)
class Run:
    """A dataset of one clip of nine pictures, its pictures as `encode` reads them, and a checkpoint trained on it."""

    config: TrainConfig
    vae: Path
    pictures: np.ndarray

    @property
    def data(self) -> LatentDataset:
        return LatentDataset(self.config.dataset)


@pytest.fixture(scope="module", params=["hunyuan", "cogvideox"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp(request.param)
    vae, text = pretrained_folder(root / "vae", request.param), open_clip_text_folder(root / "text")
    caption = {"kind": "short", "text": "a red disc moves left"}
    clip = film(root, "a" * 12, moving_square(PICTURES, width=SIDE, height=SIDE, step=3), int(FPS), caption)
    dataset = write_shards(root / "dataset", [[clip]])
    encode(EncodeConfig(dataset.uri, str(vae), str(text), FRAMES, engine="local"))
    config = TrainConfig(
        dataset=dataset.uri, out=str(root / "run"), steps=1, device="cpu", condition=FIRST_FRAME,
        model=SizeConfig(width=16, depth=1, heads=1),
    )  # fmt: skip
    train(config, log=lambda row: None)
    return Run(config, vae, read_clip(io.BytesIO(clip.mp4), Shape(PICTURES, SIDE, SIDE), fps=FPS))


@dataclass
class Drawn:
    """What was asked of the sampler, and what it showed the model."""

    requests: list[Request]
    packs: list[Pack]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    found, draw, make_pack = Drawn([], []), generate_module.draw, sampler_module.make_pack

    def looking_on(dit: Any, requests: list[Request], *rest: Any) -> list[Tensor]:
        found.requests += requests
        return draw(dit, requests, *rest)

    def packing(*args: Any) -> Pack:
        found.packs.append(make_pack(*args))
        return found.packs[-1]

    monkeypatch.setattr(generate_module, "draw", looking_on)
    monkeypatch.setattr(sampler_module, "make_pack", packing)
    return found


def sample(run: Run, out: Path, *options: str) -> int:
    told = [f"--checkpoint={run.config.out}", f"--out={out}", "--prompt=a red disc", "--device=cpu"]
    # No guidance: one pass, with text and picture.
    return main([*told, "--sampler.steps=1", "--sampler.guidance=1", "--sampler.image_guidance=1", *options])


def test_a_first_picture_is_the_same_when_training_and_when_sampling(
    run: Run, tmp_path: Path, drawn: Drawn
) -> None:
    latent, _, given = run.data.read_given(0)
    stored, frames = given.keyframes[:, :1], latent.shape[1]
    assert given.keyframe_at == (0, 1, 2) == tuple(range(frames))
    assert not torch.allclose(stored, latent[:, :1], rtol=0.01, atol=1e-3)

    shape = run.config.model.config(channels=4, text_width=24)
    batch = make_batch(run.data, [0], 0, run.config, shape)
    assert batch.conditions == (Condition("first_frame", 0, (0,), False),)
    own, per_frame = 3 * 4, 4
    assert (batch.pack.lengths, batch.pack.own_lengths) == ((own + per_frame,), (own,))
    assert torch.equal(batch.pack.tokens[own:], patchify(stored, shape.patch))
    assert not batch.pack.positions[own:, 0].any()
    assert batch.pack.level_index.tolist() == [1] * own + [0] * per_frame  # the clip's own are all noisy
    assert batch.is_generated.tolist() == [True] * own + [False] * per_frame

    Image.fromarray(run.pictures[0]).save(tmp_path / "first.png")
    assert sample(run, tmp_path, f"--image={tmp_path / 'first.png'}") == 0
    (request,), pack = drawn.requests, drawn.packs[0]
    assert request.known is None
    assert request.is_known is None
    (span,) = request.spans
    assert span.at == 0
    assert torch.equal(span.latent.bfloat16(), stored.bfloat16())
    assert (pack.lengths, pack.own_lengths) == (batch.pack.lengths, batch.pack.own_lengths)
    assert torch.equal(pack.tokens[own:].bfloat16(), batch.pack.tokens[own:].bfloat16())
    for name in ("positions", "places", "cells", "level_index"):
        assert torch.equal(getattr(pack, name), getattr(batch.pack, name)), name

    with av.open(str(tmp_path / "000.mp4")) as video:
        found = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(found) == PICTURES
    apart = [np.abs(picture.astype(int) - run.pictures[0]).mean() for picture in found]
    assert apart[0] < 0.3 * min(apart[1:]), apart


def test_what_goes_on_goes_on_from_one_picture(run: Run, tmp_path: Path, drawn: Drawn) -> None:
    """As training shows a first picture, though half a piece is asked for; the beginning keeps its pixels."""
    path = tmp_path / "given.mp4"
    path.write_bytes(film(tmp_path, "b" * 12, run.pictures, int(FPS)).mp4)
    assert sample(run, tmp_path, f"--video={path}", "--extend=forward", "--context=5", "--frames=12") == 0
    assert [[(span.at, span.latent.shape[1]) for span in one.spans] for one in drawn.requests] == [
        [(0, 1)], [(0, 1)]
    ]  # fmt: skip
    assert all(one.known is None for one in drawn.requests)
    assert json.loads((tmp_path / "prompts.json").read_text())[0]["frames"] == PICTURES + 12


@pytest.mark.parametrize("frames", [20, 30, 60])
def test_a_loop_has_the_frames_asked_for(frames: int) -> None:
    """What leads back begins at one picture and ends at five."""
    form = Format(SIDE, SIDE, FPS, 4, 8, 4, piece_t=5, context=5, side=5, is_causal=False)
    plan = rehearse("loop", SampleCommand("run", "out", loop=True, frames=frames), form, {})
    assert plan.frames == frames
    assert Seen(1, 2, False, False) in plan.seen
    assert plan.seen <= {Seen(0, 0, False, False), Seen(1, 0, False, False), Seen(1, 2, False, False)}


def test_what_training_never_showed_is_refused(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(run.pictures[0]).save(tmp_path / "first.png")
    folder = next((Path(run.config.out) / "checkpoints").glob("step-*"))
    about = json.loads((folder / "config.json").read_text())
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("ema.safetensors", "COMPLETE"):
        (changed / name).write_bytes((folder / name).read_bytes())
    for more, message in (
        # A prefix is no first picture here: its share went to the others.
        ({"train": {"condition": {"prefix": 1.0}}}, "condition.first_frame and condition.random are 0"),
        ({"latents": about["latents"] | {"keyframes": 0}}, "never shown a first picture encoded by itself"),
    ):
        (changed / "config.json").write_text(json.dumps(about | more))
        told = [f"--checkpoint={changed}", f"--out={tmp_path / 'out'}", "--prompt=a", "--device=cpu"]
        assert main([*told, f"--image={tmp_path / 'first.png'}"]) == 2
        assert message in capfd.readouterr().err
    # Nothing of the beginning is given.
    assert main([*told, "--sampler.steps=1"]) == 0


def test_of_a_longer_beginning_the_first_and_the_last_picture_are_seen(run: Run) -> None:
    """As `random` shows keyframes; all of its pictures come back."""
    vae = load_any_vae(run.vae)
    form = Format(SIDE, SIDE, FPS, 4, 8, vae.config.frame_step, piece_t=5, context=9, side=1, is_causal=False)
    piece = Piece(17, (Given(0, run.pictures[:7]),))
    assert [(first, count) for _, first, count in seen_of(piece, form)] == [(0, 1), (4, 1)]
    assert Seen.of(piece, form).shown_by == ("random",)
    request = to_request(piece, vae, form, None, seed=0)
    assert request.known is None
    assert [span.at for span in request.spans] == [0, 1]
    for span, number in zip(request.spans, (0, 4), strict=True):
        assert torch.equal(span.latent, encode_pictures(vae, run.pictures[number : number + 1]))
    made = to_pictures(torch.randn(4, *request.size), piece, vae)
    assert np.array_equal(made[:7], run.pictures[:7])
    assert Seen.of(Piece(17, (Given(0, run.pictures[:3]),)), form).shown_by == ("first_frame", "random")
    ends = Piece(17, (Given(0, run.pictures[:1]), Given(16, run.pictures[:1])))
    assert Seen.of(ends, form).shown_by == ("both_ends", "random")
