"""Training the VAE: it learns, resumes to the same numbers, stops when it diverges; loss, PSNR and SSIM."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.errors import BadInput
from model.vae import Posterior, VideoVAE, from_pixels, load_vae
from model.vae_config import VAEConfig
from train.vae_loop import learning_rate, measure_latents, train_vae
from train.vae_loss import psnr, ssim, vae_loss
from train.vae_settings import VaeLossConfig, VaeTraining

CONFIG = VAEConfig(name="small", patch=4, widths=(16, 16, 16), encoder_depth=1, decoder_depth=1)
SETTINGS = VaeTraining(steps=6, warmup=2, checkpoint_every=2, validate_every=100)


def discs(step: int) -> torch.Tensor:
    """Two clips (2, 5, 16, 16, 3) of a light disc that drifts over a dark, coloured ground."""
    rng = np.random.default_rng(step)
    y, x = np.mgrid[:16, :16]
    clips = np.empty((2, 5, 16, 16, 3), np.uint8)
    for clip in clips:
        at, drift = rng.uniform(4, 12, 2), rng.uniform(-1, 1, 2)
        clip[:] = rng.integers(0, 100, 3)
        for t, frame in enumerate(clip):
            frame[np.hypot(y - at[0] - drift[0] * t, x - at[1] - drift[1] * t) < 4] = (230, 200, 180)
    return torch.from_numpy(clips)


TYPICAL = [discs(20_000 + i) for i in range(8)]


def test_it_learns_and_its_latents_have_unit_variance(tmp_path) -> None:
    rows: list[dict] = []
    settings = replace(SETTINGS, steps=150, warmup=10, validate_every=50, checkpoint_every=1000, ema=0.9)
    vae = train_vae(
        tmp_path, CONFIG, settings, discs, TYPICAL, [discs(10_000 + i) for i in range(4)], rows.append
    )
    assert [row["step"] for row in rows] == list(range(1, 151))
    found = [row["val_psnr"] for row in rows if "val_psnr" in row]
    assert found == sorted(found)
    assert len(found) == 3
    assert found[-1] > 18.5
    assert 0.5 < rows[-1]["val_ssim"] <= 1.0
    loaded = load_vae(tmp_path / "vae")
    z = torch.cat([vae.encode_latents(from_pixels(discs(20_000 + i))) for i in range(40)])
    spread = z.std(dim=(0, 2, 3, 4))
    used = vae.latent_std > 0.1  # a channel that KL has switched off stays near zero
    assert used.sum() >= 4
    assert ((spread[used] > 0.7) & (spread[used] < 1.4)).all()
    assert torch.equal(loaded.latent_std, vae.latent_std)


def test_a_killed_run_ends_with_the_same_weights(tmp_path) -> None:
    whole = train_vae(tmp_path / "whole", CONFIG, SETTINGS, discs, TYPICAL, [], lambda row: None)

    def power_cut(step: int) -> torch.Tensor:
        if step == 5:
            raise KeyboardInterrupt
        return discs(step)

    with pytest.raises(KeyboardInterrupt):
        train_vae(tmp_path / "cut", CONFIG, SETTINGS, power_cut, TYPICAL, [], lambda row: None)
    (tmp_path / "cut/checkpoints/.step-00000005.tmp").mkdir()  # was being written when the power went
    steps: list[int] = []
    resumed = train_vae(
        tmp_path / "cut", CONFIG, SETTINGS, discs, TYPICAL, [], lambda row: steps.append(row["step"])
    )
    assert steps == [5, 6]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    kept = sorted(mark.parent.name for mark in (tmp_path / "cut/checkpoints").glob("*/COMPLETE"))
    assert kept == ["step-00000004", "step-00000006"]

    with pytest.raises(BadInput, match="begun with other values of lr"):
        train_vae(tmp_path / "cut", CONFIG, replace(SETTINGS, lr=1.0), discs, TYPICAL, [], lambda row: None)


def test_divergence_names_the_step_and_keeps_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    settings = replace(SETTINGS, loss=VaeLossConfig(square=math.nan))
    with pytest.raises(BadInput, match=r"diverged at step 0: loss nan.*there is no checkpoint yet"):
        train_vae(tmp_path / "nan", CONFIG, settings, discs, TYPICAL, [], lambda row: None)

    # Frames are bytes, so that only the weights can blow up: a learning rate of 1e12 sees to it.
    settings = replace(SETTINGS, steps=1000, lr=1e12, warmup=3, checkpoint_every=1)
    with pytest.raises(BadInput, match=r"diverged at step \d+: .*last good checkpoint is .*step-0000000\d"):
        train_vae(tmp_path / "lr", CONFIG, settings, discs, TYPICAL, [], lambda row: None)
    assert not (tmp_path / "lr/vae").exists()


@torch.no_grad()
def test_statistics_make_each_channel_of_unit_variance() -> None:
    torch.manual_seed(0)
    vae = VideoVAE(CONFIG)
    vae.encoder.linear.weight.mul_(7.0)
    vae.encoder.linear.bias.add_(torch.arange(16.0))  # type: ignore[union-attr]
    measure_latents(vae, TYPICAL)
    z = torch.cat([vae.encode_latents(from_pixels(clip)) for clip in TYPICAL])
    torch.testing.assert_close(z.std(dim=(0, 2, 3, 4)), torch.ones(16), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3, 4)), torch.zeros(16), rtol=1e-3, atol=1e-3)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    settings = VaeTraining(steps=110, warmup=10, lr=1.0)
    assert learning_rate(0, settings) == pytest.approx(0.1)
    assert learning_rate(9, settings) == learning_rate(10, settings) == 1.0
    assert learning_rate(60, settings) == pytest.approx(0.5)
    assert learning_rate(109, settings) < 0.001


def test_loss_by_hand() -> None:
    x = torch.zeros(1, 3, 1, 4, 4)
    y = x.clone()
    y[..., ::2] = 0.4  # columns 0.4, 0, 0.4, 0
    posterior = Posterior(torch.full((1, 2, 1, 1, 1), 2.0), torch.zeros(1, 2, 1, 1, 1))
    total, parts = vae_loss(y, x, posterior, VaeLossConfig(square=1.0, gradient=0.5, coarse=0.5, kl=0.1))
    assert parts["l1"].item() == pytest.approx(0.2)
    assert parts["square"].item() == pytest.approx(0.08)
    assert parts["gradient"].item() == pytest.approx(0.2)  # 0 down, 0.4 across; no time axis in one frame
    assert parts["coarse"].item() == pytest.approx(0.2)
    assert parts["kl"].item() == pytest.approx(2.0)
    assert total.item() == pytest.approx(0.2 + 0.08 + 0.1 + 0.1 + 0.2)


def test_psnr_and_ssim_by_hand() -> None:
    x = torch.rand(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[1] += 0.02  # 20 log10(2 / 0.02) = 40 dB
    assert psnr(y, x)[1].item() == pytest.approx(40.0, abs=1e-3)
    assert psnr(y, x)[0].item() == pytest.approx(126.02, abs=0.01)
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0])
    # Two constant pictures a and b: only the first factor is left, (2ab + c1) / (a² + b² + c1), c1 = 0.0004.
    a, b = torch.full((1, 3, 1, 16, 16), 0.1), torch.full((1, 3, 1, 16, 16), 0.3)
    assert ssim(a, b).item() == pytest.approx((0.06 + 0.0004) / (0.1 + 0.0004), rel=1e-3)
