"""The quantised bottleneck: rounding as in the paper, codes and numbers both ways, a VAE around it that trains."""

import itertools
import json
import math

import pytest
import torch
from test_vae_model import clip, make_vae

from model.errors import BadInput
from model.fsq import FSQ
from model.vae import VideoVAE, load_vae, save_vae, vae_id
from model.vae_config import PRESETS, VAEConfig
from train.vae_loss import vae_loss
from train.vae_settings import VaeLossConfig
from train.vae_start import start_from_principal_components

CODES = VAEConfig(name="codes", channels=4, widths=(8, 8, 8), bottleneck="fsq", levels=(8, 5, 4, 3))


def test_every_level_is_reached_and_no_other() -> None:
    fsq = FSQ((8, 5, 3, 2))
    z = torch.linspace(-12, 12, 4001)[:, None].expand(-1, 4)
    codes = fsq(z)
    for channel, values in enumerate(
        (
            [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75],  # an even number: half a step towards -1
            [-1.0, -0.5, 0.0, 0.5, 1.0],
            [-1.0, 0.0, 1.0],
            [-1.0, 0.0],
        )
    ):
        assert codes[:, channel].unique().tolist() == values
        assert (codes[:, channel].diff() >= 0).all()
    assert fsq(torch.zeros(1, 4)).tolist() == [[0.0] * 4]


def test_gradients_pass_the_rounding_as_those_of_the_bound() -> None:
    fsq = FSQ((8, 5))
    z = torch.tensor([[0.3, -0.7], [-1.2, 0.1]], requires_grad=True)
    fsq(z).sum().backward()
    # From the paper's formula: d tanh(z + shift)·half / (levels // 2), shift = tan(0.5 / half) for even levels.
    expected = torch.empty(2, 2)
    for channel, levels in enumerate((8, 5)):
        half = (levels - 1) * 0.999 / 2
        shift = math.tan(0.5 / half) if levels % 2 == 0 else 0.0
        slope = 1 - torch.tanh(z.detach()[:, channel] + shift) ** 2
        expected[:, channel] = slope * half / (levels // 2)
    torch.testing.assert_close(z.grad, expected)


def test_codes_and_numbers_both_ways() -> None:
    fsq = FSQ((3, 2, 5))
    assert fsq.size == 30
    codes = fsq.codes(torch.arange(30).view(5, 3, 2))
    assert codes.shape == (5, 3, 3, 2)
    assert torch.equal(fsq.indices(codes), torch.arange(30).view(5, 3, 2))
    # Number 0 is the lowest level everywhere; the first channel counts ones, then the second threes.
    assert fsq.codes(torch.tensor([0, 1, 3, 6])).tolist() == [
        [-1, -1, -1],
        [0, -1, -1],
        [-1, 0, -1],
        [-1, -1, -0.5],
    ]
    every = itertools.product([-1, -0.5, 0, 0.5, 1], [-1, 0], [-1, 0, 1])
    assert fsq.codes(torch.arange(30)).tolist() == [[a, b, c] for c, b, a in every]
    for wrong in (-1, 30):
        with pytest.raises(BadInput, match="indices must be from 0 to 29"):
            fsq.codes(torch.tensor([wrong]))


def test_nearest_codes_of_values_that_were_stored_in_16_bits_or_sampled() -> None:
    fsq = FSQ((8, 7, 5))
    codes = fsq.codes(torch.arange(fsq.size))
    assert torch.equal(fsq.nearest(codes), codes)
    assert torch.equal(fsq.nearest(codes.bfloat16().float()), codes)
    assert fsq.nearest(torch.tensor([[1.3, -9.0, 0.2]])).tolist() == [[0.75, -1.0, 0.0]]


def test_use_of_the_codebook() -> None:
    fsq = FSQ((5, 4))
    even = fsq.utilisation(torch.arange(20).repeat(3))
    assert (even.used, even.per_channel) == (1.0, (1.0, 1.0))
    assert even.perplexity == pytest.approx(20)
    few = fsq.utilisation(torch.tensor([0, 0, 0, 5]))  # lowest of both; lowest and second lowest
    assert (few.used, few.per_channel) == (0.1, (0.2, 0.5))
    assert few.perplexity == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


@torch.no_grad()
def test_latents_of_a_vae_are_codes_before_they_are_normalised() -> None:
    vae = make_vae(CODES)
    assert vae.fsq is not None
    vae.latent_mean.copy_(torch.tensor([0.1, -0.2, 0.0, 0.3]))
    vae.latent_std.copy_(torch.tensor([0.5, 0.7, 0.6, 0.9]))
    x = clip(2, 3, 7, 29, 40)
    posterior = vae.encode(x)
    assert posterior.mean.shape == (2, 4, 3, 4, 5)
    assert posterior.logvar is None
    assert posterior.kl().item() == 0.0
    assert torch.equal(posterior.sample(), posterior.mean)
    numbers = vae.fsq.indices(posterior.mean)
    assert len(numbers.unique()) > 10
    assert torch.equal(vae.fsq.codes(numbers), posterior.mean)

    z = vae.encode_latents(x)
    assert torch.equal(vae.unnormalised(z), posterior.mean)
    y = vae.decode_latents(z, like=x)
    assert torch.equal(y, vae.decode(posterior.mean).clamp(-1, 1)[:, :, :7, :29, :40])
    # What 16 bits or a sampler leave of the latents means the same codes.
    assert torch.equal(vae.decode_latents(z.bfloat16(), like=x), y)
    assert torch.equal(vae.decode_latents(z + 0.02 * torch.randn(z.shape), like=x), y)


@torch.no_grad()
def test_chunks_tiles_and_streams_give_the_same_codes() -> None:
    vae = make_vae(CODES)
    assert vae.fsq is not None
    x = clip(1, 3, 9, 48, 136)
    codes = vae.encode(x).mean
    frames = x.permute(0, 2, 3, 4, 1)
    streamed = torch.cat(list(vae.encode_stream(frames.split(2, dim=1), chunk=1)), dim=2)
    for found in (
        vae.encode(x, chunk=1).mean,
        vae.encode(x, tile=96, overlap=80).mean,
        vae.unnormalised(streamed),
    ):
        # A value halfway between levels may be rounded either way.
        assert (found != codes).float().mean() <= 0.002
    # Where tiles are mixed, what comes out are codes all the same.
    mixed = vae.encode(x, tile=32).mean
    assert torch.equal(vae.fsq.nearest(mixed), mixed)


def test_training_steps_lower_the_loss_without_a_kl_term() -> None:
    torch.manual_seed(0)
    vae = VideoVAE(CODES)
    x = clip(2, 3, 5, 8, 8).repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    start_from_principal_components(vae, [x])
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        y, posterior = vae(x)
        loss, parts = vae_loss(y, x, posterior, VaeLossConfig())
        assert parts["kl"].item() == 0.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_save_load_and_id(tmp_path) -> None:
    vae = make_vae(CODES)
    save_vae(vae, tmp_path)
    loaded = load_vae(tmp_path)
    assert loaded.config == CODES
    assert vae_id(loaded) == vae_id(vae)
    x = clip(1, 3, 5, 16, 16)
    assert torch.equal(loaded.encode_latents(x), vae.encode_latents(x))
    told = json.loads((tmp_path / "config.json").read_text())
    assert (told["bottleneck"], told["levels"]) == ("fsq", [8, 5, 4, 3])
    # Other levels are another VAE, even with the same weights.
    (tmp_path / "config.json").write_text(json.dumps({**told, "levels": [8, 5, 4, 4]}))
    assert vae_id(tmp_path) != vae_id(vae)


def test_configs_and_ids_without_codes_stay_as_they_were(tmp_path) -> None:
    assert not {"bottleneck", "levels"} & set(PRESETS["tiny"].told())
    save_vae(VideoVAE(VAEConfig(widths=(8, 8, 8))), tmp_path)
    assert set(json.loads((tmp_path / "config.json").read_text())) == {
        "name", "channels", "temporal", "spatial", "patch", "widths", "encoder_depth", "decoder_depth",
    }  # fmt: skip


def test_impossible_codebooks_are_refused() -> None:
    with pytest.raises(BadInput, match="2 levels for bottleneck fsq with 16 channels"):
        VAEConfig(bottleneck="fsq", levels=(8, 8))
    with pytest.raises(BadInput, match="1 levels for bottleneck kl"):
        VAEConfig(levels=(8,))
    with pytest.raises(BadInput, match="bottleneck 'vq' is unknown"):
        VAEConfig(bottleneck="vq")  # type: ignore[arg-type]
    for levels in ((8, 1), (), (1 << 31, 1 << 31)):
        with pytest.raises(BadInput, match="make no codebook"):
            FSQ(levels)
