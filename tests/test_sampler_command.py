"""`reelmill train` and `reelmill sample` from latents to videos that play, on random weights of the real kinds."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_latents import VAE_ID, random_clips, write_latents
from small_text_encoder import open_clip_text_folder
from torch import nn

from model.dit import DiT
from model.text import TextEncoder, load_text_encoder
from model.vae import VAEConfig, VideoVAE, from_pixels, save_vae, to_pixels, vae_id
from pipelines import sample_model
from pipelines.demo.steps import Places
from pipelines.encode_plan import fingerprint
from pipelines.sample import SampleCommand
from pipelines.sample import main as sample_main
from pipelines.sample_pieces import Piece, encode, to_pictures
from pipelines.train import main as train_main

PROMPTS = ["a small red disc moves left", "a star, [red]: {small}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on latents that name a random VAE and a random text encoder."""
    root = tmp_path_factory.mktemp("root")
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(widths=(8, 8, 8)))
    save_vae(vae, root / "vae")
    coca = open_clip_text_folder(root / "text")
    clips = [
        (key, latent, {kind: torch.randn(4, 24) for kind in texts})
        for key, latent, texts in random_clips(6, ((3, 4, 6), (1, 4, 4), (2, 4, 6)))
    ]
    about = {
        "text_id": fingerprint(str(coca)),
        "vae": str(root / "vae"),
        "vae_id": vae_id(vae),
        "text_encoder": str(coca),
        "text_width": 24,
    }
    latents = write_latents(root / "data", clips, fps=8.0, **about) / "latents"
    (latents / VAE_ID).rename(latents / vae_id(vae))
    code = train_main(
        [
            f"--dataset={root / 'data'}",
            f"--out={root / 'run'}",
            "--steps=2",
            "--packing.budget=64",
            "--device=cpu",
        ]
    )
    assert code == 0
    return root / "run"


def frames_of(path: Path) -> tuple[list[np.ndarray], av.VideoStream]:
    with av.open(str(path)) as video:
        return [f.to_ndarray(format="rgb24") for f in video.decode(video=0)], video.streams.video[0]


def test_videos_open_with_the_frames_asked_for(run: Path, tmp_path: Path) -> None:
    prompts = [f"--prompt={PROMPTS[0]}", "--prompt", PROMPTS[1]]
    size = ["--frames=6", "--width=32", "--height=48", "--fps=12"]
    code = sample_main([f"--checkpoint={run}", f"--out={tmp_path}", *prompts, *size, "--sampler.steps=2"])
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000.mp4",
        "001.mp4",
        "prompts.json",
        "strip.png",
    ]
    told = json.loads((tmp_path / "prompts.json").read_text())
    assert [(row["video"], row["original"], row["text"]) for row in told] == [
        ("000.mp4", PROMPTS[0], PROMPTS[0]),
        ("001.mp4", PROMPTS[1], PROMPTS[1]),
    ]
    for name in ("000.mp4", "001.mp4"):
        frames, stream = frames_of(tmp_path / name)
        assert len(frames) == 6  # the VAE makes 9 of 3 latent frames; the rest is cut off
        assert frames[0].shape == (48, 32, 3)
        assert stream.average_rate == 12
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.name == "h264"
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size[0] == 6 * 164 + 4
        assert strip.size[1] == 2 * (16 + 16 + 240 + 8)  # title, prompt, pictures


def test_defaults_are_what_the_model_was_mostly_trained_on(run: Path, tmp_path: Path) -> None:
    options = [f"--checkpoint={run}", "--prompt=a star", "--sampler.steps=1"]
    assert sample_main([*options, f"--out={tmp_path / 'a'}"]) == 0
    frames, stream = frames_of(tmp_path / "a" / "000.mp4")
    assert len(frames) == 9
    assert frames[0].shape == (32, 48, 3)
    assert stream.average_rate == 8
    # The same seed gives the same video, another seed another one; a checkpoint folder is as good as its run.
    newest = run / "checkpoints" / "step-00000002"
    assert sample_main([f"--checkpoint={newest}", *options[1:], f"--out={tmp_path / 'b'}"]) == 0
    assert sample_main([*options, "--seed=1", f"--out={tmp_path / 'c'}"]) == 0
    again, other = (frames_of(tmp_path / name / "000.mp4")[0] for name in ("b", "c"))
    assert np.array_equal(frames, again)
    assert not np.array_equal(frames, other)


def test_upsampled_prompts_are_what_the_model_is_given(run: Path, tmp_path: Path) -> None:
    # After two steps of training no text moves the model; with random weights every one does.
    checkpoint = tmp_path / "random"
    shutil.copytree(run / "checkpoints" / "step-00000002", checkpoint)
    torch.manual_seed(0)
    weights = load_file(checkpoint / "ema.safetensors")
    save_file({k: w + 0.1 * torch.randn_like(w) for k, w in weights.items()}, checkpoint / "ema.safetensors")
    options = [f"--checkpoint={checkpoint}", "--frames=1", "--sampler.steps=1", "--seed=5"]
    asked = [
        "--prompt=a red disc moves left",
        "--prompt=two dogs",
        "--upsample.backend=world",
        "--upsample.variants=2",
    ]
    assert (
        sample_main([*options, *asked, f"--out={tmp_path / 'a'}", f"--upsample.cache={tmp_path / 'cache'}"])
        == 0
    )
    told = json.loads((tmp_path / "a" / "prompts.json").read_text())
    assert [
        (row["video"], row["seed"], row["original"], row["variant"], row["accepted"]) for row in told
    ] == [
        ("000.png", 5, "a red disc moves left", 0, True),
        ("001.png", 6, "a red disc moves left", 1, True),
        ("002.png", 7, "two dogs", 0, False),
        ("003.png", 8, "two dogs", 1, False),
    ]
    texts = [row["text"] for row in told]
    assert len(texts[0].split()) > 40
    assert texts[0] != texts[1]
    assert texts[2:] == ["two dogs", "two dogs"]
    assert told[2]["reason"] == "the rewrite drops 'two'"
    assert len(list((tmp_path / "cache").iterdir())) == 4
    # The same texts given as prompts make the same videos, and the short prompts others.
    given = [f"--prompt={text}" for text in texts]
    assert sample_main([*options, *given, f"--out={tmp_path / 'b'}"]) == 0
    short = ["--prompt=a red disc moves left"] * 2
    assert sample_main([*options, *short, f"--out={tmp_path / 'c'}"]) == 0
    for name in ("000.png", "001.png", "003.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "000.png").read_bytes() != (tmp_path / "c" / "000.png").read_bytes()


def test_a_failing_upsampler_stops_no_video(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [
        f"--checkpoint={run}",
        "--prompt=a star",
        "--frames=1",
        "--sampler.steps=1",
        f"--out={tmp_path}",
    ]
    server = ["openai.base_url=http://127.0.0.1:9/v1", "openai.model=m", "openai.retries=0"]
    code = sample_main(
        [*options, "--upsample.backend=openai", *(f"--upsample.{option}" for option in server)]
    )
    assert code == 0
    (row,) = json.loads((tmp_path / "prompts.json").read_text())
    assert (row["text"], row["accepted"]) == ("a star", False)
    assert "the backend failed" in row["reason"]
    assert "warning: the prompt 'a star' is used as it stands" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--checkpoint=nowhere", "nowhere holds no finished checkpoint"),
        ("--width=40", "--width=40 must be a multiple of 16 pixels, such as 32"),
        ("--frames=0", "--frames=0: give at least 1"),
        ("--image=missing.png", "cannot read the picture missing.png"),
        ("--vae=missing", "missing is no VAE"),
        ("--text_encoder=missing", "text encoder 'missing' is no folder"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], changed: str, message: str
) -> None:
    options = [f"--checkpoint={run}", "--prompt=a star", f"--out={tmp_path}", changed]
    assert sample_main(options) == 2
    told = capfd.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]


def test_another_text_encoder_is_refused(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = open_clip_text_folder(tmp_path / "text", seed=1)
    options = [f"--checkpoint={run}", "--prompt=a", f"--out={tmp_path}", f"--text_encoder={other}"]
    assert sample_main(options) == 2
    assert "is not the one that made the text features" in capfd.readouterr().err


def test_a_vae_of_other_weights_is_refused(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    save_vae(VideoVAE(VAEConfig(widths=(8, 8, 8))), tmp_path / "vae")
    code = sample_main(
        [f"--checkpoint={run}", "--prompt=a", f"--out={tmp_path}", f"--vae={tmp_path / 'vae'}"]
    )
    assert code == 2
    assert "the model was trained on latents of tiny-4x8x8-" in capfd.readouterr().err


def test_the_last_weights_are_drawn_from_when_asked_for(run: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "both"
    shutil.copytree(run / "checkpoints" / "step-00000002", checkpoint)
    weights = load_file(checkpoint / "ema.safetensors")
    torch.manual_seed(0)
    moved = {name: w + 0.1 * torch.randn_like(w) for name, w in weights.items()}
    save_file(moved, checkpoint / "model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    save_file(moved, other / "ema.safetensors")
    options = ["--prompt=a star", "--frames=1", "--sampler.steps=1", "--device=cpu"]
    pictures = {}
    for name, folder, choice in (
        ("ema", checkpoint, []),
        ("model", checkpoint, ["--weights=model"]),
        ("moved", other, []),
    ):
        out = tmp_path / name
        assert sample_main([f"--checkpoint={folder}", f"--out={out}", *options, *choice]) == 0
        pictures[name] = (out / "000.png").read_bytes()
        (row,) = json.loads((out / "prompts.json").read_text())
        assert row["model"]["weights"] == ("model" if choice else "ema")
    assert pictures["model"] == pictures["moved"] != pictures["ema"]


def test_an_empty_prompt_is_not_written_out(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to write out, and nothing to warn of; other prompts keep their rewrites."""
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    rows = [{"prompt": ""}, {"prompt": "a red disc moves left"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = [f"--checkpoint={run}", f"--out={tmp_path / 'out'}", "--sampler.steps=1", "--frames=2"]
    options += [f"--image={tmp_path / 'red.png'}", "--upsample.backend=world", "--upsample.variants=2"]
    assert sample_main([*options, f"--prompts={tmp_path / 'prompts.jsonl'}"]) == 0
    assert "as it stands" not in capfd.readouterr().err
    told = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert [(row["original"], row["variant"], row["accepted"]) for row in told] == [
        ("", 0, False),
        ("", 1, False),
        (rows[1]["prompt"], 0, True),
        (rows[1]["prompt"], 1, True),
    ]
    assert sample_main(options) == 0
    assert "as it stands" not in capfd.readouterr().err


def test_the_example_of_the_help_is_the_run_of_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    assert sample_main(["--help"]) == 0
    shown = capfd.readouterr().out + str(sys.modules[SampleCommand.__module__].__doc__)
    checkpoints = set(re.findall(r"--checkpoint (demo\S+)", shown))
    assert checkpoints == {str(Places(Path("demo-run")).run)}


def test_large_pictures_go_through_the_vae_in_tiles(run: Path, tmp_path: Path) -> None:
    """Of 48 x 64 pixels in tiles of 16, both ways: nearly the same pictures, but not to the bit."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "noise.png")
    options = [f"--checkpoint={run}", "--prompt=a", "--sampler.steps=1", "--device=cpu", "--frames=5"]
    options += [f"--image={tmp_path / 'noise.png'}", "--width=64", "--height=48"]
    found = {}
    for name, tile in (("whole", []), ("tiles", ["--tile=16"]), ("large", ["--tile=512"])):
        assert sample_main([*options, *tile, f"--out={tmp_path / name}"]) == 0
        found[name] = np.stack(frames_of(tmp_path / name / "000.mp4")[0])
    assert np.array_equal(found["whole"], found["large"])
    assert not np.array_equal(found["whole"], found["tiles"])


def test_tiles_are_for_encoding_and_for_decoding() -> None:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(widths=(8, 8, 8))).eval()
    pictures = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    whole, tiles = (encode(vae, pictures, tile) for tile in (None, 16))
    with torch.inference_mode():
        assert torch.equal(tiles, vae.encode_latents(from_pixels(torch.from_numpy(pictures)[None]), 8, 16)[0])
        expected = to_pixels(vae.decode_latents(whole[None], chunk=8, tile=16))[0].numpy()
    assert not torch.equal(whole, tiles)
    assert np.array_equal(to_pictures(whole, Piece(5), vae, 16), expected)
    assert not np.array_equal(to_pictures(whole, Piece(5), vae), expected)


def test_everything_is_on_the_device(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text encoder too. There may be no GPU here, so one is made believe: its name is all that is looked at."""
    told = []

    def loading(place: str, device: str = "cpu") -> TextEncoder:
        told.append(device)
        return load_text_encoder(place)

    move = nn.Module.to

    def moving(self: nn.Module, *to: Any, **options: Any) -> nn.Module:
        if to[:1] == ("cuda",) or to[:1] == ("cpu",):
            told.append(to[0])
            return self
        return move(self, *to, **options)

    monkeypatch.setattr(sample_model, "load_text_encoder", loading)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kind in (VideoVAE, DiT):
        monkeypatch.setattr(kind, "to", moving)
    assert sample_model.load_model(str(run), device="cuda").device == "cuda"
    assert told == ["cuda"] * 3
    told.clear()
    sample_model.load_model(str(run), device="cpu")
    assert told == ["cpu"] * 3
