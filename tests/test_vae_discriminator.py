"""The VAE's discriminator and its losses: shapes, figures by hand, gradients, and that it tells blur from detail."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import BadInput
from model.vae import VideoVAE
from model.vae_config import VAEConfig
from train.vae_discriminator import PatchDiscriminator3D, adaptive_weight, discriminator_loss, generator_loss


def clips(count: int, seed: int, shape: tuple[int, int, int] = (5, 32, 32)) -> Tensor:
    """Stripes of random colours, directions and speeds: (B, 3, T, H, W) in [-1, 1]."""
    draw = torch.Generator().manual_seed(seed)
    t, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    speed, down, right = (torch.rand((3, count, 3, 1, 1, 1), generator=draw) * 2 - 1) * 1.5
    return torch.sign(torch.sin(speed * t + down * y + right * x + 6 * speed))


def blurred(x: Tensor) -> Tensor:
    return F.avg_pool3d(F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), 1)


@pytest.mark.parametrize(
    ("depth", "shape", "logits"),
    [
        (3, (1, 32, 32), (1, 2, 2)),  # a picture
        (3, (5, 32, 32), (1, 2, 2)),
        (3, (17, 64, 48), (3, 6, 4)),
        (3, (8, 24, 33), (1, 1, 2)),
        (2, (2, 33, 47), (1, 6, 9)),
        (1, (7, 6, 9), (4, 1, 2)),
    ],
)
def test_any_number_of_frames_and_odd_sizes(depth, shape, logits) -> None:
    discriminator = PatchDiscriminator3D(8, depth)
    found = discriminator(clips(2, 0, shape))
    assert found.shape == (2, 1, *logits)
    assert found.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    discriminator = PatchDiscriminator3D(8, 3)
    with pytest.raises(BadInput, match=r"32×23 pixels are too small for its depth; give 24×24 or more"):
        discriminator(torch.zeros(1, 3, 5, 32, 23))
    with pytest.raises(BadInput, match="expected a video"):
        discriminator(torch.zeros(1, 3, 32, 32))
    with pytest.raises(BadInput, match="multiple of 8, not 12"):
        PatchDiscriminator3D(12)
    with pytest.raises(BadInput, match="depth must be 1 or more, not 0"):
        PatchDiscriminator3D(8, 0)


def test_a_clip_is_judged_by_itself_and_the_same_in_every_mode() -> None:
    discriminator = PatchDiscriminator3D(8)
    x = clips(3, 0)
    together = discriminator(x)
    alone = torch.cat([discriminator(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert torch.equal(discriminator(x), together)
    assert torch.equal(discriminator.eval()(x), together)
    assert not list(discriminator.buffers())


def test_every_frame_and_pixel_is_judged() -> None:
    x = clips(1, 0, (17, 32, 32)).requires_grad_()
    PatchDiscriminator3D(8)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().amax(dim=0).min() > 0


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    # real: 0, 0.5, 2; fake: 0, 0.5, 2
    assert discriminator_loss(real, fake).item() == pytest.approx((2.5 / 3 + 2.5 / 3) / 2)
    assert discriminator_loss(real, torch.zeros(4)).item() == pytest.approx((2.5 / 3 + 1.0) / 2)
    assert discriminator_loss(torch.ones(2), -torch.ones(2)).item() == 0.0
    assert discriminator_loss(torch.zeros(2), torch.zeros(2)).item() == 1.0
    assert generator_loss(fake).item() == pytest.approx(2.5 / 3)
    # In bfloat16 the sums below would be 1.
    small = torch.tensor([2.0**-12]).bfloat16()
    assert discriminator_loss(small, small).item() == 1.0
    assert discriminator_loss(small, torch.tensor([-1.0])).item() == (1.0 - 2.0**-12) / 2
    assert discriminator_loss(torch.tensor([1.0]), -small).item() == (1.0 - 2.0**-12) / 2
    assert generator_loss(torch.tensor([1.0, 2.0**-12]).bfloat16()).item() == -(1.0 + 2.0**-12) / 2


def test_adaptive_weight_by_hand() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    other = nn.Parameter(torch.tensor(5.0))
    reconstruction = (layer * torch.tensor([3.0, 4.0])).sum() * other  # gradient (15, 20), norm 25
    adversarial = (layer * torch.tensor([0.0, -2.0])).sum()  # norm 2
    weight = adaptive_weight(reconstruction, adversarial, layer)
    assert weight.item() == pytest.approx(12.5)
    assert weight.shape == ()
    assert not weight.requires_grad
    assert layer.grad is None
    assert other.grad is None
    assert adaptive_weight(reconstruction, adversarial, layer, most=10.0).item() == 10.0
    assert adaptive_weight(reconstruction, 1e-9 * adversarial, layer).item() == pytest.approx(1e4)
    none = 0.0 * layer.sum()
    assert adaptive_weight(none, none, layer).item() == 0.0
    assert adaptive_weight(none, adversarial, layer).item() == 0.0
    assert adaptive_weight(reconstruction, none, layer).item() == pytest.approx(1e4)
    (reconstruction + weight * adversarial).backward()  # the graphs are still there
    assert layer.grad is not None
    assert layer.grad.tolist() == pytest.approx([15.0, 20.0 - 25.0])


def test_adaptive_weight_evens_out_the_gradients_of_a_vae_in_bfloat16() -> None:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(name="small", patch=4, widths=(16, 16, 16), encoder_depth=1, decoder_depth=1))
    discriminator = PatchDiscriminator3D(8, 2).requires_grad_(False)
    x = clips(1, 0)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = vae(x)
        adversarial = generator_loss(discriminator(y))
        reconstruction = (y.float() - x).abs().mean()
        last = vae.decoder.last.weight
        weight = adaptive_weight(reconstruction, adversarial, last)
    assert weight.dtype == torch.float32
    assert 0.0 < weight.item() < 1e4
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm().item()
        for loss in (reconstruction, weight * adversarial)
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


def test_gradients_reach_the_generator_only_when_wanted() -> None:
    discriminator = PatchDiscriminator3D(8)
    generator = nn.Conv3d(3, 3, 1)
    x = clips(1, 0)
    y = generator(x)

    discriminator.requires_grad_(False)
    generator_loss(discriminator(y)).backward()
    assert generator.weight.grad is not None
    assert generator.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in discriminator.parameters())

    generator.zero_grad()
    discriminator.requires_grad_(True)
    discriminator_loss(discriminator(x), discriminator(y.detach())).backward()
    assert generator.weight.grad is None
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert name.endswith("bias") or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("frames", [1, 5])
def test_it_learns_to_tell_blurred_clips_from_sharp_ones(frames) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator3D(16, 2)
    steps = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    shape = (frames, 32, 32)
    for step in range(40):
        x = clips(4, step, shape)
        loss = discriminator_loss(discriminator(x), discriminator(blurred(x)))
        steps.zero_grad()
        loss.backward()
        steps.step()
    with torch.no_grad():
        x = clips(16, 1000, shape)  # unseen
        sharp, soft = (discriminator(one).mean(dim=(1, 2, 3, 4)) for one in (x, blurred(x)))
        assert discriminator_loss(discriminator(x), discriminator(blurred(x))).item() < 0.6
    assert (sharp > soft).float().mean().item() >= 0.9


@pytest.mark.parametrize(("width", "depth", "side"), [(8, 2, 16), (64, 3, 64)])
def test_gradients_are_the_same_each_time_under_autocast(width: int, depth: int, side: int) -> None:
    torch.manual_seed(0)
    net, x = PatchDiscriminator3D(width, depth), torch.rand(2, 3, 5, side, side) * 2 - 1
    found = []
    for _ in range(2):
        # What the allocator hands out next: memory that is not written would show.
        junk = [torch.full((1 << k,), torch.nan) for k in range(4, 22)]
        del junk
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = generator_loss(net(x))
        loss.backward()
        found.append([p.grad for p in net.parameters()])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)  # NaN is equal to nothing
