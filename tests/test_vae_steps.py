"""A step of the VAE's training, looked at closely: noise, precision, discriminator, clipping, average, start."""

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_vae_training import CONFIG, DATA, SETTINGS, drawn

from model.vae import VideoVAE, from_pixels
from model.vae_config import VAEConfig
from train.ranks import Ranks
from train.vae_loop import _average_gradients, _forward, train_vae
from train.vae_settings import VaeLossConfig, VaeTraining
from train.vae_start import start_from_principal_components
from train.vae_state import VaeState
from train.vae_validate import ALONE, validate
from train.vae_watch import Watch

X = from_pixels(drawn(0))
CODES = VAEConfig(
    name="codes", channels=6, patch=4, widths=(16, 16, 16), encoder_depth=1, decoder_depth=1,
    bottleneck="fsq", levels=(8, 8, 8, 5, 5, 5),
)  # fmt: skip


def begun(settings: VaeTraining, config: VAEConfig = CONFIG) -> VaeState:
    state = VaeState.new(config, settings, torch.device("cpu"))
    start_from_principal_components(state.vae, [from_pixels(drawn(i)) for i in range(8)])
    state.average.load_state_dict(state.vae.state_dict())
    return state


def gradient(state: VaeState, settings: VaeTraining) -> torch.Tensor:
    _forward(state, X, settings, None, 0)
    found = state.vae.decoder.last.weight.grad
    assert found is not None
    return found.clone()


def test_noise_on_the_latents_is_that_of_the_batch() -> None:
    state = begun(SETTINGS)
    with torch.no_grad():
        state.vae.encoder.last.bias[CONFIG.channels :] = 0.0  # type: ignore[index]  # much noise
    pictures = [_forward(state, X, SETTINGS, None, number)[0].detach() for number in (0, 0, 1)]
    assert torch.equal(pictures[0], pictures[1])
    assert (pictures[0] - pictures[2]).abs().mean() > 0.05


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_convolutions_are_computed_in_bf16_where_asked(bf16: bool, dtype: torch.dtype) -> None:
    state, seen = begun(SETTINGS), list[torch.dtype]()
    state.vae.encoder.first.register_forward_hook(lambda module, given, found: seen.append(found.dtype))
    _forward(state, X, replace(SETTINGS, bf16=bf16), None, 0)
    assert seen == [dtype]


def test_the_discriminator_has_its_share_of_the_gradient() -> None:
    loss = VaeLossConfig(adversarial=0.3, adversarial_from=0)
    settings = replace(SETTINGS, loss=loss, bf16=False, discriminator_width=8, discriminator_depth=2)
    state = begun(settings)
    alone = gradient(state, replace(settings, loss=replace(loss, adversarial_from=5)))
    both = gradient(state, settings)
    assert float((both - alone).norm() / alone.norm()) == pytest.approx(0.3, rel=1e-3)


def test_gradients_are_shortened() -> None:
    vae = VideoVAE(CONFIG)
    for weight in vae.parameters():
        weight.grad = torch.ones_like(weight)
    count = sum(weight.numel() for weight in vae.parameters())
    own, norm = _average_gradients(vae, replace(SETTINGS, grad_clip=0.5), ALONE)
    assert own == norm == pytest.approx(count**0.5, rel=1e-4)
    left = torch.nn.utils.get_total_norm([w.grad for w in vae.parameters() if w.grad is not None])
    assert float(left) == pytest.approx(0.5, rel=1e-3)
    assert Ranks(0, 1, torch.device("cpu")) == ALONE


def test_the_average_follows_the_weights_and_is_what_is_validated(tmp_path) -> None:
    rows: list[dict] = []
    clips = [drawn(10_000)]
    settings = replace(SETTINGS, steps=3, ema=0.5, lr=0.05, warmup=1)
    train_vae(tmp_path, CONFIG, settings, replace(DATA, validation=clips), rows.append)
    kept = {}
    for name in ("model", "ema"):
        kept[name] = VideoVAE(CONFIG)
        kept[name].load_state_dict(load_file(tmp_path / f"checkpoints/step-00000003/{name}.safetensors"))
    found = {name: validate(vae, clips)["val_psnr"] for name, vae in kept.items()}
    assert rows[-1]["val_psnr"] == pytest.approx(found["ema"], abs=1e-3)
    assert abs(found["ema"] - found["model"]) > 0.01

    state = begun(settings)
    weight = state.vae.decoder.first.weight
    before, state.step = weight.detach().clone(), 1
    with torch.no_grad():
        weight.add_(1.0)
    state.follow(0.999)  # in the beginning it follows faster: (1 + 1) / (10 + 1)
    torch.testing.assert_close(state.average.decoder.first.weight, before + 9 / 11)


def test_principal_components_stay_unless_latents_are_rounded() -> None:
    for config, learns in ((CONFIG, False), (CODES, True)):
        state = begun(SETTINGS, config)
        assert state.vae.encoder.linear.weight.requires_grad is learns
        assert state.vae.decoder.linear.expand.weight.requires_grad is learns


@torch.no_grad()
def test_codes_start_from_the_best_linear_decoder() -> None:
    vae = begun(SETTINGS, CODES).vae
    clips = [from_pixels(drawn(i)) for i in range(8)]

    def error() -> float:
        return sum(float((vae.decode(vae.encode(x).mean) - x).square().mean()) for x in clips)

    best, up = error(), vae.decoder.linear.expand
    for change in (0.97, 1.03):
        up.weight.mul_(change)
        assert error() > best
        up.weight.div_(change)
    up.bias.add_(0.02)  # type: ignore[union-attr]
    assert error() > best


def test_no_checkpoint_is_kept_while_the_loss_rises(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(Watch, "calm", property(lambda watch: False))
    with caplog.at_level(logging.WARNING):
        train_vae(tmp_path, CONFIG, SETTINGS, DATA, lambda row: None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]
    assert "step 2: the loss has risen, so no checkpoint is kept" in caplog.text
