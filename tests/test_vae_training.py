"""Training the VAE: it learns, resumes to the same numbers, stops when it diverges; loss, PSNR and SSIM."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.errors import BadInput
from model.vae import Posterior, VideoVAE, from_pixels, load_vae
from model.vae_config import VAEConfig
from train import vae_loop
from train.lpips import backbone_shapes, head_shapes
from train.vae_batches import Ahead, Clips, VaeData
from train.vae_loop import learning_rate, train_vae
from train.vae_loss import psnr, ssim, vae_loss
from train.vae_settings import VaeLossConfig, VaeTraining
from train.vae_validate import measure_latents, validate
from train.vae_watch import WINDOW, Watch

CONFIG = VAEConfig(name="small", patch=4, widths=(16, 16, 16), encoder_depth=1, decoder_depth=1)
SETTINGS = VaeTraining(steps=6, warmup=2, checkpoint_every=2, validate_every=100)


def discs(step: int) -> Clips:
    """Two clips (2, 5, 16, 16, 3) of a light disc that drifts over a dark, coloured ground."""
    return Clips(drawn(step), (f"disc {step}a", f"disc {step}b"))


def drawn(step: int) -> torch.Tensor:
    rng = np.random.default_rng(step)
    y, x = np.mgrid[:16, :16]
    clips = np.empty((2, 5, 16, 16, 3), np.uint8)
    for clip in clips:
        at, drift = rng.uniform(4, 12, 2), rng.uniform(-1, 1, 2)
        clip[:] = rng.integers(0, 100, 3)
        for t, frame in enumerate(clip):
            frame[np.hypot(y - at[0] - drift[0] * t, x - at[1] - drift[1] * t) < 4] = (230, 200, 180)
    return torch.from_numpy(clips)


TYPICAL = [drawn(20_000 + i) for i in range(8)]
DATA = VaeData(discs, TYPICAL, [])


def test_it_learns_and_its_latents_have_unit_variance(tmp_path) -> None:
    rows: list[dict] = []
    settings = replace(SETTINGS, steps=150, warmup=10, validate_every=50, checkpoint_every=1000, ema=0.9)
    looked: list[int] = []
    data = replace(DATA, validation=[drawn(10_000 + i) for i in range(4)])
    vae = train_vae(
        tmp_path, CONFIG, settings, data, rows.append, look=lambda average, step: looked.append(step)
    )
    assert looked == [50, 100, 150]
    assert [row["step"] for row in rows] == list(range(1, 151))
    found = [row["val_psnr"] for row in rows if "val_psnr" in row]
    assert found == sorted(found)
    assert len(found) == 3
    assert found[-1] > 18.5
    assert 0.5 < rows[-1]["val_ssim"] <= 1.0
    loaded = load_vae(tmp_path / "vae")
    z = torch.cat([vae.encode_latents(from_pixels(drawn(20_000 + i))) for i in range(40)])
    spread = z.std(dim=(0, 2, 3, 4))
    used = vae.latent_std > 0.1  # a channel that KL has switched off stays near zero
    assert used.sum() >= 4
    assert ((spread[used] > 0.7) & (spread[used] < 1.4)).all()
    assert torch.equal(loaded.latent_std, vae.latent_std)


@pytest.mark.parametrize("adversarial", [0.0, 0.2])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, adversarial: float) -> None:
    loss = VaeLossConfig(adversarial=adversarial, adversarial_from=3)
    settings = replace(SETTINGS, loss=loss, discriminator_width=8, discriminator_depth=2)
    whole = train_vae(tmp_path / "whole", CONFIG, settings, DATA, lambda row: None)

    def power_cut(step: int) -> Clips:
        if step == 5:
            raise KeyboardInterrupt
        return discs(step)

    with pytest.raises(KeyboardInterrupt):
        train_vae(tmp_path / "cut", CONFIG, settings, replace(DATA, batch_at=power_cut), lambda row: None)
    (tmp_path / "cut/checkpoints/.step-00000005.tmp").mkdir()  # was being written when the power went
    steps: list[int] = []
    resumed = train_vae(tmp_path / "cut", CONFIG, settings, DATA, lambda row: steps.append(row["step"]))
    assert steps == [5, 6]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    kept = sorted(mark.parent.name for mark in (tmp_path / "cut/checkpoints").glob("*/COMPLETE"))
    assert kept == ["step-00000004", "step-00000006"]
    for name in ("state.json", "critic.safetensors"):  # the watch and the critic are restored as well
        files = [tmp_path / run / "checkpoints/step-00000006" / name for run in ("whole", "cut")]
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_goes_on_with_other_steps_but_not_with_other_data(tmp_path, caplog) -> None:
    data = replace(DATA, about={"clips": "discs"})
    train_vae(tmp_path, CONFIG, SETTINGS, data, lambda row: None)
    for other, config, settings, named in (
        (replace(data, about={"clips": "squares"}), CONFIG, SETTINGS, r"clips \(discs before, squares now\)"),
        (data, replace(CONFIG, channels=8), SETTINGS, r"channels \(16 before, 8 now\)"),
        (data, CONFIG, replace(SETTINGS, seed=1), r"seed \(0 before, 1 now\)"),
    ):
        with pytest.raises(BadInput, match=f"begun with other values of {named}"):
            train_vae(tmp_path, config, settings, other, lambda row: None)
    steps: list[int] = []
    settings = replace(SETTINGS, steps=8, lr=1e-3, prepare_threads=2)
    train_vae(tmp_path, CONFIG, settings, data, lambda row: steps.append(row["step"]))
    assert steps == [7, 8]
    assert "lr (0.004 before, 0.001 now)" in caplog.text
    assert "steps (6 before, 8 now)" in caplog.text

    before = load_vae(tmp_path / "vae")
    vae = train_vae(tmp_path, CONFIG, settings, data, lambda row: steps.append(row["step"]))
    assert steps == [7, 8]  # a finished run finds nothing to do
    assert all(torch.equal(before.state_dict()[name], tensor) for name, tensor in vae.state_dict().items())


def test_divergence_names_the_step_and_keeps_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    settings = replace(SETTINGS, loss=VaeLossConfig(square=math.nan))
    with pytest.raises(
        BadInput, match=r"diverged at step 0: loss nan.* on disc 0a, disc 0b; there is no checkpoint yet"
    ):
        train_vae(tmp_path / "nan", CONFIG, settings, DATA, lambda row: None)

    # Frames are bytes, so that only the weights can blow up: the fourth step sees to it.
    monkeypatch.setattr(vae_loop, "learning_rate", lambda step, settings: 1e-3 if step < 3 else 1e12)
    settings = replace(SETTINGS, steps=1000, checkpoint_every=1)
    with pytest.raises(BadInput, match=r"diverged at step 4: ") as caught:
        train_vae(tmp_path / "lr", CONFIG, settings, DATA, lambda row: None)
    assert not (tmp_path / "lr/vae").exists()
    # What is called good is: taken as it is, it makes a VAE that shows the clips.
    found = re.search(r"Take it as it is \(--training.steps=(\d+)\)", str(caught.value))
    assert found is not None
    step = int(found[1])
    assert step == 3
    vae = train_vae(tmp_path / "lr", CONFIG, replace(settings, steps=step), DATA, lambda row: None)
    assert validate(vae, [drawn(10_000)])["val_psnr"] > 10


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
    weights = VaeLossConfig(square=1.0, gradient=0.5, gradient_scales=1, coarse=0.5, kl=0.1)
    total, parts = vae_loss(y, x, posterior, weights)
    assert parts["l1"].item() == pytest.approx(0.2)
    assert parts["square"].item() == pytest.approx(0.08)
    assert parts["gradient"].item() == pytest.approx(0.2)  # 0 down, 0.4 across; no time axis in one frame
    assert parts["coarse"].item() == pytest.approx(0.2)
    assert parts["kl"].item() == pytest.approx(2.0)
    assert total.item() == pytest.approx(0.2 + 0.08 + 0.1 + 0.1 + 0.2)
    # Of half the size columns are all 0.2: no difference is left, so the mean over two sizes is half.
    parts = vae_loss(y, x, posterior, replace(weights, gradient_scales=2))[1]
    assert parts["gradient"].item() == pytest.approx(0.1)


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


def test_a_rising_loss_is_divergence_and_nothing_is_kept_on_the_way() -> None:
    watch = Watch(factor=4.0)
    for _ in range(2 * WINDOW):
        assert watch.amiss(0.1, 1.0) is None
    assert watch.calm
    assert watch.amiss(1.0, 1.0) is None  # one bad batch is no divergence
    assert watch.calm
    copied = Watch(factor=4.0)
    copied.load(json.loads(json.dumps(watch.state())))
    for one in (watch, copied):
        steps, kept = 0, 0
        while (reason := one.amiss(1.0, 1.0)) is None:
            steps, kept = steps + 1, kept + one.calm
        assert "times its lowest" in reason
        assert 5 < kept < steps < WINDOW
    assert "gradient norm inf" in (Watch(4.0).amiss(0.1, math.inf) or "")


def test_clips_are_prepared_ahead_in_order_and_their_errors_arrive() -> None:
    asked: list[int] = []

    def batch_at(step: int) -> Clips:
        asked.append(step)
        if step == 8:
            raise BadInput("step 8 is gone")
        return Clips(torch.tensor(step), ())

    ahead, found = Ahead(batch_at, range(3, 12), threads=2), list[int]()

    def train() -> None:
        for clips in ahead:
            found.append(int(clips.frames))
            assert max(asked) <= found[-1] + 3

    with pytest.raises(BadInput, match="step 8 is gone"):
        train()
    assert found == [3, 4, 5, 6, 7]
    assert ahead.waited_s >= 0.0


def test_a_discriminator_joins_after_the_warm_up(tmp_path) -> None:
    rows: list[dict] = []
    loss = VaeLossConfig(adversarial=0.2, adversarial_from=3)
    settings = replace(SETTINGS, loss=loss, discriminator_width=8, discriminator_depth=2)
    train_vae(tmp_path, CONFIG, settings, DATA, rows.append)
    assert ["adversarial" in row for row in rows] == [False] * 3 + [True] * 3
    assert all(math.isfinite(row["balance"]) and row["balance"] > 0 for row in rows[3:])
    assert rows[3]["discriminator"] != rows[5]["discriminator"]


def test_lpips_is_learnt_from_and_validated_by_when_its_weights_are_given(tmp_path) -> None:
    torch.manual_seed(0)
    weights = {key: torch.randn(shape) * 0.05 for key, shape in backbone_shapes().items()}
    heads = {key: torch.rand(shape) for key, shape in head_shapes().items()}
    (tmp_path / "lpips").mkdir()
    save_file(weights, tmp_path / "lpips/vgg16.safetensors")
    save_file(heads, tmp_path / "lpips/heads.safetensors")
    rows: list[dict] = []
    settings = replace(SETTINGS, steps=2, loss=VaeLossConfig(lpips_weights=str(tmp_path / "lpips")))
    data = replace(DATA, validation=[drawn(10_000)])
    train_vae(tmp_path / "run", CONFIG, settings, data, rows.append)
    assert rows[0]["lpips"] > 0
    parts = VaeLossConfig()
    without = rows[0]["l1"] + parts.square * rows[0]["square"] + parts.gradient * rows[0]["gradient"]
    without += parts.coarse * rows[0]["coarse"] + parts.kl * rows[0]["kl"]
    assert rows[0]["loss"] == pytest.approx(without + parts.lpips * rows[0]["lpips"], rel=1e-4)
    assert rows[-1]["val_lpips"] > 0
    assert "val_lpips" not in validate(VideoVAE(CONFIG), data.validation)


def test_what_is_sensitive_stays_in_float32_under_bf16() -> None:
    torch.manual_seed(0)
    vae = VideoVAE(CONFIG)
    x = from_pixels(drawn(0))
    with torch.no_grad():
        vae.encoder.last.weight.zero_()
        vae.encoder.last.bias.zero_()  # type: ignore[union-attr]
        vae.decoder.last.weight.zero_()
        vae.decoder.last.bias.zero_()  # type: ignore[union-attr]
        exact = vae.encode(x)
        pixels = vae.decode(exact.mean)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = vae.encode(x)
            y = vae.decode(rounded.mean)
            loss, parts = vae_loss(y, x, rounded, VaeLossConfig())
            assert vae.decoder.first(rounded.mean).dtype == torch.bfloat16  # autocast is really on
    assert {t.dtype for t in (rounded.mean, rounded.logvar, y, loss, *parts.values())} == {torch.float32}
    assert torch.equal(rounded.mean, exact.mean)  # the path of principal components was not rounded
    assert torch.equal(y, pixels)
    assert torch.equal(loss, vae_loss(y, x, rounded, VaeLossConfig())[0])
