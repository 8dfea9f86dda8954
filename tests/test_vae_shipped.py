"""The VAE that ships with the code: how well it shows unseen clips of the procedural world."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_video

from model.vae import VideoVAE, from_pixels, load_vae
from pipelines.demo.weights import embedded
from pipelines.demo.world import draw_scene, render
from pipelines.encode_frames import FrameConfig, Shape, fit, read_clip, timing
from pipelines.vae_world import WorldConfig, WorldCrops
from train.vae_loss import psnr, ssim


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


def unseen(number: int, n_frames: int, fps: float, width: int, height: int) -> np.ndarray:
    """A clip of a combination of attributes that training never shows."""
    rng = np.random.default_rng((20261121, number))
    scene = draw_scene(rng, held_out=True, duration_s=n_frames / fps)
    return render(scene, n_frames=n_frames, fps=fps, width=width, height=height)


def figures(vae: VideoVAE, clips: list[np.ndarray]) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of reconstructions, in range and of the same size as the clips."""
    quality, likeness = [], []
    for clip in clips:
        x = from_pixels(torch.from_numpy(clip)[None])
        y = vae.decode_latents(vae.encode_latents(x), like=x)
        assert y.shape == x.shape
        assert y.abs().max() <= 1.0
        quality.append(psnr(y, x).item())
        likeness.append(ssim(y, x).item())
    return float(np.mean(quality)), float(np.mean(likeness))


@torch.no_grad()
def test_unseen_films_of_the_world(vae: VideoVAE) -> None:
    world = WorldCrops(WorldConfig(frames=17), batch=1, seed=0)
    quality, likeness = figures(vae, [batch[0].numpy() for batch in world.validation(16)])
    assert quality >= 32.0
    assert likeness >= 0.93


@torch.no_grad()
def test_clips_that_come_from_mp4_as_encode_reads_them(vae: VideoVAE, tmp_path: Path) -> None:
    config = FrameConfig()
    clips = []
    for number, (width, height) in enumerate([(256, 144), (144, 256), (192, 192)] * 3):
        film = unseen(number, n_frames=60, fps=24, width=width, height=height)
        data = write_video(tmp_path / "clip.mp4", film, fps=24, options={"crf": "20"}).read_bytes()
        frames, fps = timing(60, 24.0, config, temporal=4)
        encoded_width, encoded_height = fit(width, height, config)
        assert (frames, fps, encoded_width * encoded_height) in [(17, 8.0, 3840), (17, 8.0, 4096)]
        clips.append(read_clip(io.BytesIO(data), Shape(frames, encoded_height, encoded_width), fps))
    quality, likeness = figures(vae, clips)
    assert quality >= 25.0
    assert likeness >= 0.75


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "width", "height"), [(1, 64, 64), (17, 96, 96), (33, 64, 64), (17, 112, 32), (10, 75, 53)]
)
def test_pictures_longer_clips_and_other_shapes(vae: VideoVAE, frames: int, width: int, height: int) -> None:
    quality, _ = figures(vae, [unseen(100 + i, frames, 8.0, width, height) for i in range(4)])
    assert quality >= 25.0


@torch.no_grad()
def test_latents_have_unit_variance(vae: VideoVAE) -> None:
    clips = np.stack([unseen(200 + i, 17, 8.0, 64, 64) for i in range(24)])
    z = vae.encode_latents(from_pixels(torch.from_numpy(clips)))
    assert z.shape == (24, 16, 5, 8, 8)
    assert z.mean(dim=(0, 2, 3, 4)).abs().max() < 0.4
    spread = z.std(dim=(0, 2, 3, 4))
    assert ((spread > 0.7) & (spread < 1.4)).all()
    assert vae.latent_std.min() > 0.3  # no channel is dead
