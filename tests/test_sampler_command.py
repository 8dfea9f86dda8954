"""`reelmill train` and `reelmill sample` from latents to videos that play, on random weights of the real kinds."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_latents import VAE_ID, random_clips, write_latents
from small_text_encoder import open_clip_text_folder

from model.vae import VAEConfig, VideoVAE, save_vae, vae_id
from pipelines.encode_plan import fingerprint
from pipelines.sample import main as sample_main
from pipelines.sample_files import GifFile, Mp4File, PngFile, VideoFile, write_mp4
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
        assert strip.size[1] == 2 * (16 + 240 + 8)


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


def test_an_mp4_shows_the_frames_it_was_given(tmp_path: Path) -> None:
    frames = np.stack([np.full((33, 48, 3), level, np.uint8) for level in (20, 90, 160, 230)])
    write_mp4(tmp_path / "grey.mp4", frames, 29.97)
    found, stream = frames_of(tmp_path / "grey.mp4")
    assert [round(float(frame.mean()) / 10) * 10 for frame in found] == [20, 90, 160, 230]
    assert found[0].shape == (32, 48, 3)  # yuv420p has even sides
    assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)


def test_a_gif_shows_the_frames_it_was_given_at_their_rate(tmp_path: Path) -> None:
    frames = np.zeros((6, 33, 48, 3), np.uint8)
    frames[..., 0], frames[:, :16, :, 1] = 40 * np.arange(6)[:, None, None], 200
    with GifFile(tmp_path / "a.gif", (33, 48), 8.0) as file:
        file.write(frames[:2])
        file.write(frames[2:])
        assert not (tmp_path / "a.gif").exists()  # it appears whole
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (6, (48, 33), 0)  # type: ignore[attr-defined]
        total_ms = 0
        for number, frame in enumerate(frames):
            gif.seek(number)
            total_ms += gif.info["duration"]
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() <= 2
    assert total_ms == pytest.approx(750, abs=20)  # GIF counts in hundredths of a second


def test_a_file_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    def begin(kind: type[VideoFile]) -> None:
        with kind(tmp_path / f"a{kind.suffix}", (32, 48), 8.0) as file:
            file.write(np.zeros((2, 32, 48, 3), np.uint8))
            raise KeyError

    for kind in (Mp4File, GifFile, PngFile):
        with pytest.raises(KeyError):
            begin(kind)
    assert not list(tmp_path.iterdir())


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
