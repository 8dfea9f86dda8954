"""The sampler: guidance algebra, Euler steps, seeds, given frames."""

import pytest
import torch

from model.config import DiTConfig, FlowConfig, SampleConfig
from model.dit import DiT
from model.sampler import Request, guide, sample

SHAPE = DiTConfig(width=32, depth=1, heads=1, ffn=64, text_width=8)
SIZE = (3, 4, 6)


@pytest.fixture(scope="module")
def dit() -> DiT:
    """A model whose gates and outputs are not zero, as after some training."""
    torch.manual_seed(0)
    dit = DiT(SHAPE).eval()
    with torch.no_grad():
        for p in dit.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return dit


def text(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def test_guidance_algebra() -> None:
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert guide(conditional, unconditional, 1.0).tolist() == [1.0, 2.0]
    assert guide(conditional, unconditional, 0.0).tolist() == [0.0, 4.0]
    assert guide(conditional, unconditional, 3.0).tolist() == [3.0, -2.0]


def test_guided_steps_mix_the_runs_with_and_without_text(dit: DiT) -> None:
    """One step is linear in the velocity, so its result obeys the algebra of guidance."""
    one = [SampleConfig(steps=1, guidance=g) for g in (1.0, 2.5)]
    conditional = sample(dit, [Request(SIZE, 16, text(), 3)], one[0], FlowConfig())[0]
    unconditional = sample(dit, [Request(SIZE, 16, None, 3)], one[0], FlowConfig())[0]
    guided = sample(dit, [Request(SIZE, 16, text(), 3)], one[1], FlowConfig())[0]
    torch.testing.assert_close(guided, guide(conditional, unconditional, 2.5), atol=1e-4, rtol=0)
    assert (conditional - unconditional).abs().max() > 1e-2


def test_a_constant_velocity_is_followed_exactly() -> None:
    dit = DiT(SHAPE).eval()  # its outputs are zero but for the bias
    with torch.no_grad():
        dit.head.out.bias.copy_(torch.arange(16.0).repeat_interleave(4))  # channel c has velocity c
    noise = torch.randn(16, *SIZE, generator=torch.Generator().manual_seed(3))
    for steps in (1, 7):
        config = SampleConfig(steps=steps, guidance=4.0)
        found = sample(dit, [Request(SIZE, 16, text(), 3)], config, FlowConfig())[0]
        torch.testing.assert_close(found, noise - torch.arange(16.0)[:, None, None, None], atol=1e-4, rtol=0)


def test_a_result_depends_on_its_seed_and_not_on_its_batch(dit: DiT) -> None:
    config = SampleConfig(steps=4)
    requests = [Request(SIZE, 16, text(i), seed) for i, seed in enumerate((11, 12, 11))]
    requests.append(Request((1, 4, 4), 16, text(4), 5))
    together = sample(dit, requests, config, FlowConfig())
    assert [tuple(x.shape) for x in together] == [(16, *SIZE)] * 3 + [(16, 1, 4, 4)]
    for request, latent in zip(requests, together, strict=True):
        alone = sample(dit, [request], config, FlowConfig())[0]
        torch.testing.assert_close(alone, latent, atol=1e-4, rtol=0)
    few_at_a_time = sample(dit, requests, SampleConfig(steps=4, token_budget=40), FlowConfig())
    for a, b in zip(few_at_a_time, together, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    other = sample(dit, [Request(SIZE, 16, text(0), 99)], config, FlowConfig())[0]
    assert (other - together[0]).abs().max() > 0.1


def test_given_frames_come_back_unchanged(dit: DiT) -> None:
    known = torch.randn(16, *SIZE, generator=torch.Generator().manual_seed(8))
    is_known = torch.tensor([True, False, True])
    request = Request(SIZE, 16, text(), 3, known, is_known)
    found = sample(dit, [request], SampleConfig(steps=5), FlowConfig())[0]
    assert torch.equal(found[:, is_known], known[:, is_known])
    free = sample(dit, [Request(SIZE, 16, text(), 3)], SampleConfig(steps=5), FlowConfig())[0]
    assert (found[:, 1] - free[:, 1]).abs().max() > 1e-2  # the given frames are seen by the others


def test_progress_is_told_per_clip_and_step(dit: DiT) -> None:
    told: list[tuple[int, int]] = []
    requests = [Request((1, 4, 4), 16, text(), seed) for seed in range(3)]
    sample(dit, requests, SampleConfig(steps=2, token_budget=16), FlowConfig(), lambda *a: told.append(a))
    assert told == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert sample(dit, [], SampleConfig(), FlowConfig()) == []
