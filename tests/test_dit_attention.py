"""The backends of attention: each is a softmax within its segments, and those that cannot run say so.

The fused kernels need a GPU. Without one, what is around them is tested with a kernel in Python in their place, and the
call itself with what torch tells of its kernel's shapes.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
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
from model.pack import Clip, Pack, Span, make_pack

#: It is not compiled on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

Lengths = tuple[int, ...]
Q_LENGTHS, K_LENGTHS = (3, 5, 3, 1, 5, 140), (4, 2, 6, 3, 2, 150)  # more than one block of FlexAttention

ON_CPU: tuple[AttentionBackend, ...] = ("auto", "grouped", "loop", "flex")


def qkv(q_lengths: Lengths = Q_LENGTHS, k_lengths: Lengths = K_LENGTHS) -> list[Tensor]:
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


def by_starts(
    q: Tensor, k: Tensor, v: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """What varlen_attn and FlashAttention's varlen kernel compute of their arguments, and what they ask of them."""
    assert q.ndim == k.ndim == v.ndim == 3
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    for rows, starts, longest in ((q, cu_seq_q, max_q), (k, cu_seq_k, max_k)):
        assert starts.dtype == torch.int32
        assert (int(starts[0]), int(starts[-1])) == (0, len(rows))
        assert (type(longest), longest) == (int, int(starts.diff().max()))
    done = []
    for i in range(len(cu_seq_q) - 1):
        queries, keys = slice(cu_seq_q[i], cu_seq_q[i + 1]), slice(cu_seq_k[i], cu_seq_k[i + 1])
        scores = torch.einsum("qhd,khd->hqk", q[queries], k[keys]) / q.shape[-1] ** 0.5
        done.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[keys]))
    return torch.cat(done)


@dataclass
class Fused:
    """A backend whose kernel is `by_starts`, and what that was called with."""

    backend: AttentionBackend
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def kernel(self, *args: Any) -> Any:
        self.calls.append(args)
        y = by_starts(*args)
        return (y, y.new_zeros(y.shape[:2])) if self.backend == "fa3" else y  # as some releases do


@pytest.fixture(params=["varlen", "fa3"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fused:
    found = Fused(request.param)
    monkeypatch.setattr(f"model.attention._{found.backend}", lambda: found.kernel)
    monkeypatch.setattr("model.attention._obstacle", lambda backend, q: None)  # there is no GPU
    return found


def with_gradients(compute: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """What `compute` gives, and the gradients of queries, keys and values."""
    leaves = [x.clone().requires_grad_() for x in leaves]
    y = compute(*leaves)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), *(x.grad for x in leaves)]  # type: ignore[list-item]


def agrees_with_the_loop(backend: AttentionBackend, kind: str, queries: Lengths, keys: Lengths) -> None:
    """Forward and gradients; those of rows that do not follow each other as of rows that were put in order before."""
    keys = keys if kind == "cross" else queries
    order = torch.randperm(sum(queries), generator=torch.Generator().manual_seed(3))
    loop = Layout(queries, keys, backend="loop")

    def straight(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if kind != "reordered":
            return attention(q, k, v, loop)
        return attention(q[order], k[order], v[order], loop)[order.argsort()]

    layout = Layout(queries, keys, backend=backend, order=order if kind == "reordered" else None)
    leaves = qkv(queries, keys)
    found = with_gradients(lambda q, k, v: attention(q, k, v, layout), leaves)
    for a, b in zip(found, with_gradients(straight, leaves), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["cross", "self", "reordered"])
def test_fused_kernels_are_told_where_segments_begin(fused: Fused, kind: str) -> None:
    """With a kernel in Python in the place of theirs."""
    agrees_with_the_loop(fused.backend, kind, Q_LENGTHS, K_LENGTHS)
    assert len(fused.calls) == 1


def test_the_call_fits_the_kernel_that_this_torch_has(fused: Fused) -> None:
    """Its names and their order, and the shapes that torch itself tells of it without computing."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = qkv()
    layout = Layout(Q_LENGTHS, K_LENGTHS, backend=fused.backend)
    attention(q, k, v, layout)
    told = inspect.signature(varlen_attn).bind(*fused.calls[0]).arguments
    assert list(told) == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert all(told[name] is x for name, x in (("query", q), ("key", k), ("value", v)))
    assert told["cu_seq_q"].tolist() == [0, 3, 8, 11, 12, 17, 157]
    assert told["cu_seq_k"].tolist() == [0, 4, 6, 12, 15, 17, 167]
    assert (told["max_q"], told["max_k"]) == (140, 150)

    for name in ("query", "key", "value"):
        told[name] = told[name].to("meta", torch.bfloat16).requires_grad_()
    without_data: list[Any] = [x.to("meta") if isinstance(x, Tensor) else x for x in told.values()]
    y: Any = varlen_attn(*without_data)
    assert (y.shape, y.dtype) == (q.shape, torch.bfloat16)
    y.sum().backward()
    assert [told[name].grad.shape for name in ("query", "key", "value")] == [q.shape, k.shape, v.shape]


LONG_Q, LONG_K = (300, 17, 400, 1), (280, 5, 420, 3)  # 6 x 6 blocks of 128: some all, some in part, some not


def test_flex_leaves_out_what_no_segment_shares_and_nothing_else() -> None:
    """Its mask, element by element, and the blocks that it takes whole, behind the mask, or not at all."""
    mask: Any = Layout(LONG_Q, LONG_K).block_mask
    expected = torch.block_diag(*(torch.ones(q, k) for q, k in zip(LONG_Q, LONG_K, strict=True))).bool()
    i, j = torch.arange(sum(LONG_Q)), torch.arange(sum(LONG_K))
    zero = torch.tensor(0)
    assert torch.equal(mask.mask_mod(zero, zero, i[:, None], j), expected)

    padded = torch.zeros(768, 768, dtype=torch.bool)
    padded[: len(i), : len(j)] = expected
    share = padded.view(6, 128, 6, 128).float().mean(dim=(1, 3))
    kinds = {"whole": share == 1, "masked": (share > 0) & (share < 1)}
    assert [int(blocks.sum()) for blocks in kinds.values()] == [8, 16]  # of 36
    for name, counts, indices in (
        ("whole", mask.full_kv_num_blocks, mask.full_kv_indices),
        ("masked", mask.kv_num_blocks, mask.kv_indices),
    ):
        taken = [set(row[:n].tolist()) for row, n in zip(indices[0, 0], counts[0, 0].tolist(), strict=True)]
        assert taken == [set(row.nonzero().flatten().tolist()) for row in kinds[name]], name


@pytest.mark.parametrize("kind", ["cross", "self", "reordered"])
def test_gradients_of_flex_agree_with_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its compiled form has none on CPUs, so torch refuses them; without that check it has those of the other form."""
    check = "torch.nn.attention.flex_attention._validate_device"
    try:
        monkeypatch.setattr(check, lambda *tensors: None)
    except AttributeError:
        pytest.skip(f"torch {torch.__version__} has no {check}")
    monkeypatch.setattr("model.attention._obstacle", lambda backend, q: None)
    agrees_with_the_loop("flex", kind, LONG_Q, LONG_K)


@pytest.mark.parametrize("windows", [None, (2, 1, 2)])
def test_a_model_gives_the_same_with_fused_kernels(
    fused: Fused, windows: tuple[int, int, int] | None
) -> None:
    """Forward and the gradient of every weight; windows make layouts of rows that do not follow each other."""
    dit, pack = dit_and_pack(windows)
    found, expected = (run(dit, pack, backend) for backend in (fused.backend, "loop"))
    assert len(fused.calls) == 2 * 4  # self-attention and cross-attention of each block
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert (x - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


def run(dit: DiT, pack: Pack, backend: Any) -> dict[str, Tensor]:
    """What a model gives for a pack, and the gradient of each of its weights."""
    dit.backend = backend
    dit.zero_grad()
    y = dit(pack)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    grads = {name: p.grad for name, p in dit.named_parameters() if p.grad is not None}
    return {"output": y.detach(), **grads}


def dit_and_pack(windows: tuple[int, int, int] | None) -> tuple[DiT, Pack]:
    """A model without a weight that is zero, and a pack of a film with a given ending and of a picture."""
    torch.manual_seed(0)
    dit = DiT(DiTConfig(width=48, depth=4, heads=2, ffn=96, text_width=12, windows=windows))
    for p in dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    clips = [
        Clip(torch.randn(16, 5, 4, 6), 24.0, torch.randn(7, 12), 0.3, None, (Span(torch.randn(16, 1, 4, 6), 4),)),
        Clip(torch.randn(16, 1, 4, 4), None, None, 0.9),
    ]  # fmt: skip
    pack = make_pack(clips, dit.config)
    return dit, pack


def test_a_model_gives_the_same_with_each_backend() -> None:
    for windows in (None, (2, 1, 2)):
        dit, pack = dit_and_pack(windows)
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
