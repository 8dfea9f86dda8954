"""The sampler: guided steps, seeds, batches, and that what is given comes back bit for bit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import DiTConfig, FlowConfig
from model.dit import DiT
from model.errors import BadInput
from model.flow import mix, time_grid
from model.pack import Pack, Span
from model.sample_config import SampleConfig
from model.sampler import Request, batches, n_tokens, sample

SHAPE = DiTConfig(width=32, depth=1, heads=1, ffn=64, text_width=8)
SIZE = (3, 4, 6)
FLOW = FlowConfig()


@pytest.fixture(scope="module")
def dit() -> DiT:
    """A model whose gates and outputs are not zero, as after some training."""
    torch.manual_seed(0)
    dit = DiT(SHAPE).eval()
    with torch.no_grad():
        for p in dit.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return dit


def text(seed: int = 0) -> Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def latent(seed: int, *size: int) -> Tensor:
    return torch.randn(16, *(size or SIZE), generator=torch.Generator().manual_seed(seed))


def beginning(frames: int) -> dict[str, Tensor]:
    return {"known": latent(8), "is_known": torch.arange(SIZE[0]) < frames}


def test_guided_steps_mix_the_runs_with_and_without_text(dit: DiT) -> None:
    """One step is linear in the velocity, so its result obeys the algebra of guidance."""
    one = [SampleConfig(steps=1, guidance=g) for g in (1.0, 2.5)]
    conditional = sample(dit, [Request(SIZE, 16, text(), 3)], one[0], FLOW)[0]
    unconditional = sample(dit, [Request(SIZE, 16, None, 3)], one[0], FLOW)[0]
    guided = sample(dit, [Request(SIZE, 16, text(), 3)], one[1], FLOW)[0]
    expected = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=0)
    assert (conditional - unconditional).abs().max() > 1e-2


def test_text_and_pictures_are_guided_apart(dit: DiT) -> None:
    """Without pictures means that the frames of the beginning are as noisy as all others, and no span is there."""
    span = Span(latent(5, 1, 4, 6), 2)
    full = Request(SIZE, 16, text(), 3, **beginning(1), spans=(span,))
    one = SampleConfig(steps=1, guidance=1)
    both, image = (sample(dit, [r], one, FLOW)[0] for r in (full, replace(full, text=None)))
    # With one step the noise of the beginning is all that the model sees of it.
    none = sample(dit, [Request(SIZE, 16, None, 3)], one, FLOW)[0]
    guided = SampleConfig(steps=1, guidance=4.0, image_guidance=2.0)
    found = sample(dit, [full], guided, FLOW)[0]
    expected = none + 2 * (image - none) + 4 * (both - image)
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], atol=1e-4, rtol=0)
    assert torch.equal(found[:, :1], full.known[:, :1])  # type: ignore[index]
    assert (image - none)[:, 1:].abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({"guidance": 1.0}, [1, 1, 1, 1]),
        ({"guidance": 4.0}, [2, 2, 2, 2]),
        ({"guidance": 4.0, "image_guidance": 2.0}, [3, 3, 3, 3]),
        ({"guidance": 4.0, "guidance_interval": (0.3, 0.8)}, [1, 2, 2, 1]),
    ],
)
def test_each_call_has_the_passes_that_it_needs(
    dit: DiT, changed: dict[str, Any], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = DiT.forward

    def counting(self: DiT, pack: Pack) -> Tensor:
        seen.append(len(pack.lengths))
        return forward(self, pack)

    monkeypatch.setattr(DiT, "forward", counting)
    # 18 tokens shift nothing: the levels are 1, 0.75, 0.5, 0.25.
    request = Request(SIZE, 16, text(), 3, **beginning(1))
    sample(dit, [request], SampleConfig(steps=4, **changed), FLOW)
    assert seen == passes


def test_a_constant_velocity_is_followed_exactly() -> None:
    dit = DiT(SHAPE).eval()  # its outputs are zero but for the bias
    with torch.no_grad():
        dit.head.out.bias.copy_(torch.arange(16.0).repeat_interleave(4))  # channel c has velocity c
    noise = latent(3)
    for solver in ("euler", "heun", "unipc"):
        for steps in (1, 7):
            config = SampleConfig(solver=solver, steps=steps, guidance=4.0)  # type: ignore[arg-type]
            found = sample(dit, [Request(SIZE, 16, text(), 3)], config, FLOW)[0]
            expected = noise - torch.arange(16.0)[:, None, None, None]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def requests_of_all_kinds() -> list[Request]:
    return [
        Request(SIZE, 16, text(0), 11),
        Request(SIZE, 16, None, 12),
        Request(SIZE, 8, text(2), 11, **beginning(2)),
        Request((1, 4, 4), 16, text(4), 5),
        Request((4, 4, 4), 16, text(1), 6, spans=(Span(latent(2, 2, 4, 4), 2),)),
        Request(SIZE, 16, text(3), 7, start=latent(4), strength=0.4),
        Request(SIZE, 16, text(3), 7, start=latent(4), strength=0.0),
    ]


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc"])
def test_a_result_depends_on_its_seed_and_not_on_its_batch(dit: DiT, solver: Any) -> None:
    config = SampleConfig(
        solver=solver, steps=4, image_guidance=2.0, guidance_interval=(0.2, 0.9), rescale=0.7
    )
    requests = requests_of_all_kinds()
    together = sample(dit, requests, config, FLOW)
    assert [tuple(x.shape[1:]) for x in together] == [request.size for request in requests]
    for request, found in zip(requests, together, strict=True):
        alone = sample(dit, [request], config, FLOW)[0]
        torch.testing.assert_close(alone, found, atol=1e-4, rtol=1e-4)
    few_at_a_time = sample(dit, requests, replace(config, token_budget=40), FLOW)
    for a, b in zip(few_at_a_time, together, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    other = sample(dit, [replace(requests[0], seed=99)], config, FLOW)[0]
    assert (other - together[0]).abs().max() > 0.1


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc"])
def test_given_frames_come_back_bit_for_bit(dit: DiT, solver: Any) -> None:
    config = SampleConfig(solver=solver, steps=5, image_guidance=1.5)
    for frames in (1, 2):
        request = Request(SIZE, 16, text(), 3, **beginning(frames))
        found = sample(dit, [request], config, FLOW)[0]
        assert torch.equal(found[:, :frames], latent(8)[:, :frames])
        free = sample(dit, [Request(SIZE, 16, text(), 3)], config, FLOW)[0]
        assert (found[:, frames:] - free[:, frames:]).abs().max() > 1e-2  # they are seen by the others


def test_the_model_is_shown_given_frames_as_they_are(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step, in the passes with pictures; without pictures, noised to the level of the others."""
    packs: list[Pack] = []
    forward = DiT.forward

    def recording(self: DiT, pack: Pack) -> Tensor:
        packs.append(pack)
        return forward(self, pack)

    monkeypatch.setattr(DiT, "forward", recording)
    span = Span(latent(5, 1, 4, 6), 2)
    request = Request(SIZE, 16, text(), 3, **beginning(1), spans=(span,))
    sample(dit, [request], SampleConfig(steps=3, image_guidance=2.0), FLOW)
    from model.patches import patchify

    given, ending = patchify(latent(8)[:, :1], SHAPE.patch), patchify(span.latent, SHAPE.patch)
    noised = patchify(latent(3)[:, :1], SHAPE.patch)
    assert len(packs) == 3
    for pack, t in zip(packs, time_grid(3, 18, FLOW).tolist(), strict=False):
        full, no_text, none = pack.tokens.split(pack.lengths)
        for shown in (full, no_text):
            assert torch.equal(shown[:6], given)
            assert torch.equal(shown[18:], ending)
        assert len(none) == 18
        torch.testing.assert_close(none[:6], mix(given, noised, torch.tensor(t)), atol=1e-5, rtol=0)
        levels = pack.levels[pack.level_index].split(pack.lengths)
        assert levels[0].tolist() == pytest.approx([0.0] * 6 + [t] * 12 + [0.0] * 6)
        assert levels[2].tolist() == pytest.approx([t] * 18)


def test_spans_are_seen_and_are_no_part_of_the_result(dit: DiT) -> None:
    config = SampleConfig(steps=3)
    request = Request(SIZE, 16, text(), 3, spans=(Span(latent(5, 2, 4, 6), 1),))
    found = sample(dit, [request], config, FLOW)[0]
    free = sample(dit, [replace(request, spans=())], config, FLOW)[0]
    assert found.shape == free.shape == (16, *SIZE)
    assert (found - free).abs().max() > 1e-2
    moved = sample(dit, [replace(request, spans=(Span(latent(5, 2, 4, 6), 0),))], config, FLOW)[0]
    assert (found - moved).abs().max() > 1e-3  # where they stand matters


def test_an_edit_starts_at_its_level(dit: DiT) -> None:
    """strength 1 is noise alone, 0 returns the start, and between them the steps below that level are left."""
    config, start = SampleConfig(steps=8), latent(4)
    request = Request(SIZE, 16, text(), 3, start=start)
    free = sample(dit, [Request(SIZE, 16, text(), 3)], config, FLOW)[0]
    torch.testing.assert_close(sample(dit, [request], config, FLOW)[0], free, atol=1e-5, rtol=0)
    assert torch.equal(sample(dit, [replace(request, strength=0.0)], config, FLOW)[0], start)
    told: list[tuple[int, int]] = []
    distances = []
    for strength in (0.25, 0.5, 0.75):
        edited = sample(dit, [replace(request, strength=strength)], config, FLOW, lambda *a: told.append(a))
        distances.append(float((edited[0] - start).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] > 1e-3
    # The levels are eighths: from 0.25 there are two steps left, then four, then six.
    assert [total for _, total in told] == [2] * 2 + [4] * 4 + [6] * 6


def test_rescale_takes_contrast_back(dit: DiT) -> None:
    spreads = []
    for rescale in (0.0, 0.5, 1.0):
        config = SampleConfig(steps=6, guidance=12.0, rescale=rescale)
        spreads.append(float(sample(dit, [Request(SIZE, 16, text(), 3)], config, FLOW)[0].std()))
    assert spreads[0] > spreads[1] > spreads[2]


def test_contrast_is_that_of_generated_frames_alone(dit: DiT) -> None:
    """One step ends at the clean clip, whose generated frames then have the spread of those without guidance."""
    given = {**beginning(1), "known": 50 * latent(8)}
    request = Request(SIZE, 16, text(), 3, **given)
    plain = sample(dit, [request], SampleConfig(steps=1, guidance=1.0), FLOW)[0]
    found = sample(dit, [request], SampleConfig(steps=1, guidance=12.0, rescale=1.0), FLOW)[0]
    free = sample(dit, [request], SampleConfig(steps=1, guidance=12.0), FLOW)[0]
    spread = plain[:, 1:].std()
    torch.testing.assert_close(found[:, 1:].std(), spread, atol=0, rtol=1e-4)
    assert free[:, 1:].std() > 1.01 * spread


def test_half_precision_is_near(dit: DiT) -> None:
    request, config = Request(SIZE, 16, text(), 3, **beginning(1)), SampleConfig(steps=4)
    full = sample(dit, [request], config, FLOW)[0]
    half = sample(dit, [request], replace(config, precision="bf16"), FLOW)[0]
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.2
    assert torch.equal(half[:, :1], full[:, :1])


def test_progress_is_told_per_clip_and_call(dit: DiT) -> None:
    told: list[tuple[int, int]] = []
    requests = [Request((1, 4, 4), 16, text(), seed) for seed in range(3)]
    sample(dit, requests, SampleConfig(steps=2, token_budget=16), FLOW, lambda *a: told.append(a))
    assert told == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert sample(dit, [], SampleConfig(), FLOW) == []


def test_batches_fill_the_budget_in_order() -> None:
    assert batches([4, 4, 4, 9, 1, 1], 8) == [[0, 1], [2], [3], [4, 5]]
    assert batches([], 8) == []


def test_tokens_of_a_request_are_those_of_its_largest_pack(dit: DiT) -> None:
    request = Request(SIZE, 16, text(), 0, spans=(Span(latent(5, 1, 4, 6), 2),))
    plain, guided = SampleConfig(guidance=1), SampleConfig(image_guidance=2.0)
    assert n_tokens(request, dit, plain) == 18 + 6
    assert n_tokens(request, dit, guided) == 2 * (18 + 6) + 18
    assert n_tokens(replace(request, spans=()), dit, guided) == 2 * 18


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"known": latent(1, 2, 4, 6), "is_known": torch.ones(2, dtype=torch.bool)}, "`known` is"),
        ({"known": latent(1)}, "give both or none"),
        ({"start": latent(1, 3, 4, 4)}, "`start` is"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"spans": (Span(latent(1, 2, 4, 6), 2),)}, "at latent frame 2 does not lie in a clip"),
    ],
)
def test_requests_whose_parts_do_not_fit_are_refused(dit: DiT, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        sample(dit, [Request(SIZE, 16, None, 0, **changed)], SampleConfig(steps=1), FLOW)
