"""Streams through the VAE: the latents and pixels of the whole clip, whatever the parts, in constant memory."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.errors import BadInput
from model.vae import VideoVAE, from_pixels, load_vae
from model.vae_config import VAEConfig
from model.vae_stream import cut_anew
from pipelines.demo.weights import embedded

ROOT = Path(__file__).resolve().parents[1]

# How a clip of 23 frames may come: 23 = 4·5 + 3, so one frame is repeated at the end.
LENGTHS = [[23], [1] * 23, [5, 0, 2, 11, 5], [1, 22], [22, 1], [4, 4, 4, 4, 4, 3]]


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


def film(frames: int, height: int = 40, width: int = 29) -> Tensor:
    """(1, T, H, W, 3) uint8: coloured waves that move."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(0.3 * x + 0.5 * t), torch.cos(0.2 * y - 0.3 * t), torch.sin(0.1 * (x + y) + t)]
    return ((torch.stack(waves, dim=-1) + 1) * 127).to(torch.uint8)[None]


def assert_same(found: Tensor, whole: Tensor) -> None:
    """Equal to 1e-5 of the largest value: latents of odd pictures reach 16, where floats are 1e-6 apart."""
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * max(1.0, whole.abs().max().item()))


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_parts_of_any_length_give_the_latents_and_pixels_of_the_whole(
    vae: VideoVAE, lengths: list[int]
) -> None:
    frames = film(23)
    x = from_pixels(frames)
    with torch.no_grad():
        z = vae.encode_latents(x)
        y = vae.decode_latents(z, like=x)
    for parts in (frames.split(lengths, dim=1), (frames.float() / 127.5 - 1.0).split(lengths, dim=1)):
        found = list(vae.encode_stream(parts, chunk=2))
        assert [part.shape[2] for part in found] == [1, 2, 2, 2]
        assert_same(torch.cat(found, dim=2), z)
    shown = list(vae.decode_stream(z.split([1, 3, 1, 2], dim=2), chunk=2, like=(23, 40, 29)))
    assert [part.shape[2] for part in shown] == [5, 8, 8, 2]
    assert_same(torch.cat(shown, dim=2), y)


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 9, 16, 17, 18])
def test_the_last_frame_is_repeated_at_the_end_of_any_length(vae: VideoVAE, frames: int) -> None:
    clip = film(frames)
    whole = vae.encode_latents(from_pixels(clip))
    assert whole.shape[2] == -(-(frames - 1) // 4) + 1
    for chunk in (1, 3):
        found = torch.cat(list(vae.encode_stream(clip.split(2, dim=1), chunk)), dim=2)
        assert_same(found, whole)


def test_tiles_and_chunks_together(vae: VideoVAE) -> None:
    frames = film(11, height=100, width=131)
    x = from_pixels(frames)
    with torch.no_grad():
        z = vae.encode_latents(x)
        y = vae.decode_latents(z, like=x)
    found = torch.cat(list(vae.encode_stream(frames.split(3, dim=1), 1, tile=96, overlap=80)), dim=2)
    assert_same(found, z)
    shown = torch.cat(list(vae.decode_stream([z], 1, tile=120, overlap=112, like=(11, 100, 131))), dim=2)
    assert_same(shown, y)


def test_results_come_before_the_stream_ends(vae: VideoVAE) -> None:
    taken = 0

    def endless() -> Iterator[Tensor]:
        nonlocal taken
        while True:
            taken += 1
            yield film(1)

    found = list(itertools.islice(vae.encode_stream(endless(), chunk=1), 3))
    assert [part.shape[2] for part in found] == [1, 1, 1]
    assert taken == 9
    assert not any(part.requires_grad for part in found)


@torch.no_grad()
def test_later_frames_leave_earlier_latents_equal_to_the_bit(vae: VideoVAE) -> None:
    x = from_pixels(film(17))
    z = vae.encode_latents(x)
    for latent in range(4):
        other = x.clone()
        other[:, :, 4 * latent + 1 :] = other[:, :, 4 * latent + 1 :].flip(3) * -0.5
        changed = vae.encode_latents(other)
        assert torch.equal(changed[:, :, : latent + 1], z[:, :, : latent + 1])
        assert (changed[:, :, latent + 1 :] - z[:, :, latent + 1 :]).abs().max() > 0.1
        pixels, changed_pixels = vae.decode_latents(z), vae.decode_latents(changed)
        assert torch.equal(changed_pixels[:, :, : 4 * latent + 1], pixels[:, :, : 4 * latent + 1])


def test_frames_are_cut_anew_without_keeping_what_is_done() -> None:
    parts = [torch.arange(a, b)[None] for a, b in ((0, 3), (3, 3), (3, 13), (13, 14))]
    assert [part[0].tolist() for part in cut_anew(parts, 1, 1, 5)] == [
        [0],
        [1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10],
        [11, 12, 13],
    ]
    part = torch.zeros(1, 1000)
    for chunk in cut_anew([part], 1, 1, 400):
        assert chunk.untyped_storage().nbytes() <= 400 * 4


def test_unusable_streams_tell_what_to_do(vae: VideoVAE) -> None:
    small = VideoVAE(VAEConfig(widths=(8, 8, 8)))
    for parts, message in (
        ([], "has no frames"),
        ([film(2)[:, :0]], "has no frames"),
        ([film(1), film(1, width=16)], r"follows one of \(1, \d, 40, 29, 3\)"),
        ([film(1), film(1).float()], "torch.float32 follows one"),
        ([film(1).long()], "expected frames of uint8 or floats"),
        ([film(1).movedim(4, 1)], r"expected parts of shape \(B, t, H, W, 3\), got \(1, 3, 1, 40, 29\)"),
    ):
        with pytest.raises(BadInput, match=message):
            list(small.encode_stream(parts))
    with pytest.raises(BadInput, match="chunks of 0 latent frames"):
        list(small.encode_stream([film(1)], chunk=0))


PEAK = """
import json, sys
import torch
from model.vae import load_vae, to_pixels
torch.set_num_threads(1)
vae = load_vae(sys.argv[1])
picture = torch.randint(0, 256, (1, 24, 64, 64, 3), dtype=torch.uint8)
for seconds in map(int, sys.argv[2:]):
    n = 0
    for part in vae.decode_stream(vae.encode_stream(picture.roll(i, dims=3) for i in range(seconds))):
        n += to_pixels(part).shape[1]
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(json.dumps({"frames": n, "peak_mb": int(status["VmHWM"].split()[0]) / 1024}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_minute_takes_the_memory_of_four_seconds() -> None:
    """Clips of 64 × 64 at 24 frames per second, encoded and decoded, in a process of its own."""
    words = [sys.executable, "-c", PEAK, str(embedded("vae")), "4", "60"]
    # Larger blocks go back to the system when freed: what is measured is what is held, not the allocator's habits.
    allocator = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    out = subprocess.run(words, check=True, cwd=ROOT, capture_output=True, text=True, env=allocator).stdout
    short, long = map(json.loads, out.splitlines())
    assert (short["frames"], long["frames"]) == (97, 1441)  # 96 and 1440, and the repeated last one
    # A peak never falls. All frames as bytes would be 17 MiB more, as floats 68, all their activations thousands.
    assert long["peak_mb"] <= short["peak_mb"] + 8
