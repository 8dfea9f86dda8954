"""The backends of attention: each is a softmax within its segments, and those that cannot run say so."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.attention import attention, chosen
from model.config import AttentionBackend, DiTConfig
from model.dit import DiT
from model.errors import BadInput
from model.layout import Layout
from model.pack import Clip, Span, make_pack

#: It is not compiled on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

Q_LENGTHS, K_LENGTHS = (3, 5, 3, 1, 5, 140), (4, 2, 6, 3, 2, 150)  # more than one block of FlexAttention

ON_CPU: tuple[AttentionBackend, ...] = ("auto", "grouped", "loop", "flex")


def qkv(q_lengths: tuple[int, ...] = Q_LENGTHS, k_lengths: tuple[int, ...] = K_LENGTHS) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(sum(n), 2, 16) for n in (q_lengths, k_lengths, k_lengths)]


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = zip(q.split(Q_LENGTHS), k.split(K_LENGTHS), v.split(K_LENGTHS), strict=True)
    return torch.cat([
        torch.einsum("hqk,khd->qhd", torch.softmax(torch.einsum("qhd,khd->hqk", a, b) / 4, -1), c)
        for a, b, c in parts
    ])  # fmt: skip


@pytest.mark.parametrize("backend", ON_CPU)
def test_attention_is_a_softmax_within_each_segment(backend: AttentionBackend) -> None:
    q, k, v = qkv()
    found = attention(q, k, v, Layout(Q_LENGTHS, K_LENGTHS, backend=backend))
    torch.testing.assert_close(found, by_hand(q, k, v), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ON_CPU)
def test_rows_that_do_not_follow_each_other(backend: AttentionBackend) -> None:
    q, k, v = qkv(K_LENGTHS, K_LENGTHS)
    order = torch.randperm(len(q), generator=torch.Generator().manual_seed(3))
    straight = attention(q[order], k[order], v[order], Layout(K_LENGTHS, K_LENGTHS, backend="loop"))
    found = attention(q, k, v, Layout(K_LENGTHS, K_LENGTHS, backend=backend, order=order))
    torch.testing.assert_close(found[order], straight, atol=1e-5, rtol=0)


def test_gradients_agree() -> None:
    grads = {}
    for backend in ("grouped", "loop"):
        leaves = [x.requires_grad_() for x in qkv()]
        attention(*leaves, Layout(Q_LENGTHS, K_LENGTHS, backend=backend)).square().sum().backward()
        grads[backend] = torch.cat([x.grad.flatten() for x in leaves])  # type: ignore[union-attr]
    torch.testing.assert_close(grads["grouped"], grads["loop"], atol=1e-5, rtol=0)


def test_half_precision_on_cpus_agrees_with_the_loop_forward_and_gradient() -> None:
    """Where gradients are wanted, CPUs compute it without their fused kernel, whose backward pass is slow."""
    found = {}
    for backend in ("grouped", "loop"):
        leaves = [x.bfloat16().requires_grad_() for x in qkv()]
        y = attention(*leaves, Layout(Q_LENGTHS, K_LENGTHS, backend=backend))
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        found[backend] = torch.cat([x.flatten() for x in (y, *(x.grad for x in leaves))]).float()  # type: ignore[union-attr]
    torch.testing.assert_close(found["grouped"], found["loop"], atol=0.03, rtol=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fused kernels need CUDA")
@pytest.mark.parametrize("backend", ["auto", "varlen", "fa3", "flex"])
def test_fused_kernels_agree_with_the_loop(backend: AttentionBackend) -> None:
    torch.manual_seed(2)
    lengths, texts = (300, 17, 128, 1, 5), (4, 200, 6, 3, 2)
    order = torch.randperm(sum(lengths))
    for keys, rows in ((texts, None), (lengths, order)):
        q, k, v = (torch.randn(sum(n), 2, 64).cuda().bfloat16() for n in (lengths, keys, keys))
        try:
            chosen(backend, q)
        except BadInput as reason:
            pytest.skip(str(reason))
        found = {}
        for name in (backend, "loop"):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            y = attention(*leaves, layout=Layout(lengths, keys, "cuda", name, rows))  # type: ignore[misc]
            y.float().square().sum().backward()
            found[name] = [y, *(x.grad for x in leaves)]
        for a, b in zip(found[backend], found["loop"], strict=True):
            torch.testing.assert_close(a, b, atol=3e-2, rtol=3e-2)


def test_a_model_gives_the_same_with_each_backend() -> None:
    torch.manual_seed(0)
    shape = DiTConfig(width=48, depth=4, heads=2, ffn=96, text_width=12)
    for windows in (None, (2, 1, 2)):
        dit = DiT(replace(shape, windows=windows))
        for p in dit.parameters():
            p.data += 0.1 * torch.randn_like(p)
        clips = [
            Clip(torch.randn(16, 5, 4, 6), 24.0, torch.randn(7, 12), 0.3, None, (Span(torch.randn(16, 1, 4, 6), 4),)),
            Clip(torch.randn(16, 1, 4, 4), None, None, 0.9),
        ]  # fmt: skip
        pack = make_pack(clips, dit.config)
        found = {}
        for backend in ON_CPU:
            dit.backend = backend
            with torch.no_grad():
                found[backend] = dit(pack)
        for backend in ON_CPU:
            torch.testing.assert_close(found[backend], found["loop"], atol=1e-5, rtol=0)


def test_what_cannot_run_says_so_and_auto_takes_what_can() -> None:
    q, k, v = (x.bfloat16() for x in qkv())
    for backend in ("varlen", "fa3"):
        with pytest.raises(
            BadInput, match=rf"'{backend}' cannot run .*needs half .*bfloat16 on cpu. Choose auto"
        ):
            attention(q, k, v, Layout(Q_LENGTHS, K_LENGTHS, backend=backend))
    with pytest.raises(BadInput, match=r"'flex' cannot run here: on cpu it has no gradients"):
        attention(q.requires_grad_(), k, v, Layout(Q_LENGTHS, K_LENGTHS, backend="flex"))
    with pytest.raises(
        BadInput, match=r"no attention backend 'flesh': choose auto or one of varlen, fa3, flex"
    ):
        attention(q, k, v, Layout(Q_LENGTHS, K_LENGTHS, backend="flesh"))  # type: ignore[arg-type]
    assert chosen("auto", q) == "grouped"


@pytest.mark.parametrize(
    ("width", "kernel"),
    [(8, "varlen"), (64, "varlen"), (256, "varlen"), (12, "grouped"), (100, "grouped"), (264, "grouped")],
)
def test_fused_kernels_take_heads_of_a_multiple_of_8_up_to_256(
    width: int, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, as far as the choice looks at one: it decides by what a tensor says of itself."""
    monkeypatch.setattr("model.attention._varlen", lambda: print)
    monkeypatch.setattr("model.attention._fa3", lambda: None)
    q: Any = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, shape=(5, 2, width), requires_grad=True)
    assert chosen("auto", q) == kernel
    if kernel == "grouped":
        with pytest.raises(
            BadInput, match=f"multiple of 8 up to 256 features, and these have {width}. Choose auto"
        ):
            chosen("varlen", q)


def test_lengths_of_0_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Layout((3, 0), (1, 1))
