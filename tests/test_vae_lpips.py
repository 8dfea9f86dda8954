"""LPIPS against the package that its authors publish, with their heads; what cannot be loaded is told."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import lpips
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.errors import BadInput
from train.lpips import LPIPS, backbone_shapes, load_lpips

HEADS = Path(lpips.__file__).parent / "weights/v0.1/vgg.pth"


def published_heads() -> dict[str, Tensor]:
    return torch.load(HEADS, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def reference() -> lpips.LPIPS:
    """The authors' distance with their heads; VGG16 has random weights, as the real ones are a large download."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it builds VGG16 in torchvision's former way
        return lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def backbone(reference: lpips.LPIPS) -> dict[str, Tensor]:
    """The weights of the reference's VGG16 by torchvision's keys: `slice5.24.bias` is `features.24.bias`."""
    return {f"features.{key.split('.', 1)[1]}": value for key, value in reference.net.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, backbone: dict[str, Tensor]) -> Path:
    """A folder as the docs ask for it, with the classifier that is not needed and a file that is no weights."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.save({**backbone, "classifier.0.weight": torch.zeros(2, 2)}, folder / "vgg16-397923af.pth")
    shutil.copy(HEADS, folder / "vgg.pth")
    (folder / "README.md").write_text("Where these come from.")
    return folder


@pytest.fixture(scope="module")
def distance(whole: Path) -> LPIPS:
    return load_lpips(whole)


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    """The same folder, to be spoiled."""
    for path in whole.iterdir():
        os.symlink(path, tmp_path / path.name)
    return tmp_path


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 48)])
def test_pictures_and_gradients_are_those_of_the_authors_package(reference, distance, size) -> None:
    y, x = pictures(3, 3, *size), pictures(3, 3, *size, seed=2)
    y[2] = x[2] + 0.05 * y[2]  # a near one
    y.requires_grad_()
    theirs = reference(y, x).flatten()
    ours = distance(y, x)
    assert ours.shape == (3,)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    assert ours[2] < 0.5 * ours[:2].min()
    (wanted,) = torch.autograd.grad(theirs.sum(), y)
    (found,) = torch.autograd.grad(ours.sum(), y)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_a_video_is_as_far_as_its_frames_on_average(reference, distance) -> None:
    y, x = pictures(2, 3, 5, 32, 32), pictures(2, 3, 5, 32, 32, seed=2)
    with torch.no_grad():
        frames = [
            [reference(y[b : b + 1, :, t], x[b : b + 1, :, t]).item() for t in range(5)] for b in range(2)
        ]
    assert distance(y, x).tolist() == pytest.approx([sum(row) / 5 for row in frames], rel=1e-5)


def test_nothing_is_zero_apart_from_itself_and_the_backbone_stays_frozen(distance) -> None:
    x = pictures(1, 3, 2, 32, 32)
    assert distance(x, x).tolist() == [0.0]
    y = x.clone().requires_grad_()
    distance(y, pictures(1, 3, 2, 32, 32, seed=3)).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert (y.grad != 0).float().mean() > 0.9
    assert not any(p.requires_grad or p.grad is not None for p in distance.parameters())
    assert not distance.training


def test_it_draws_a_blurred_clip_towards_the_sharp_one(distance) -> None:
    x = pictures(1, 3, 1, 32, 32)
    y = torch.nn.functional.avg_pool3d(x, (1, 5, 5), 1, (0, 2, 2)).requires_grad_()
    steps = torch.optim.Adam([y], lr=0.03)
    found = []
    for _ in range(8):
        loss = distance(y, x).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        found.append(loss.item())
    assert found[-1] < 0.8 * found[0]


def test_under_autocast_differences_stay_in_float32(distance) -> None:
    y, x = pictures(2, 3, 32, 32), pictures(2, 3, 32, 32, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(y, x)
        same = distance(x, x)
        features = [[(z - distance.shift) / distance.scale] for z in (y, x)]
        for stage in distance.stages:
            for rows in features:
                rows.append(stage(rows[-1]))
    assert features[0][1].dtype == torch.bfloat16
    wanted = 0.0
    for a, b, (key, head) in zip(features[0][1:], features[1][1:], published_heads().items(), strict=True):
        units = [z.double() / z.double().square().sum(1, keepdim=True).sqrt() for z in (a, b)]
        assert key.startswith("lin")
        wanted += ((units[0] - units[1]).square() * head).sum(1).mean((1, 2))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert found.tolist() == pytest.approx(distance(y, x).tolist(), rel=0.02)
    assert same.tolist() == [0.0, 0.0]


def test_gradients_are_finite_where_channels_hardly_respond(backbone) -> None:
    faint = {k: torch.full_like(v, 1e-25 if k.endswith("bias") else 0.0) for k, v in backbone.items()}
    distance = LPIPS(faint, published_heads())
    y = pictures(1, 3, 16, 16).requires_grad_()
    distance(y, pictures(1, 3, 16, 16, seed=2)).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == torch.zeros_like(y).tolist()


def test_safetensors_of_half_precision_and_old_files_load_as_well(tmp_path, backbone, distance) -> None:
    save_file({key: value.half() for key, value in backbone.items()}, tmp_path / "any_name.safetensors")
    torch.save(published_heads(), tmp_path / "heads.pt", _use_new_zipfile_serialization=False)
    y, x = pictures(1, 3, 32, 32), pictures(1, 3, 32, 32, seed=2)
    loaded = load_lpips(str(tmp_path))
    assert loaded(y, x).dtype == torch.float32
    assert loaded(y, x).item() == pytest.approx(distance(y, x).item(), rel=1e-3)


def test_loading_draws_no_random_numbers(whole) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    load_lpips(whole)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize(
    ("y", "x", "cause"),
    [
        ((1, 3, 2, 32, 32), (1, 3, 3, 32, 32), "of one shape, got"),
        ((1, 4, 32, 32), (1, 4, 32, 32), "expected two videos"),
        ((3, 32, 32), (3, 32, 32), "expected two videos"),
        ((1, 3, 0, 32, 32), (1, 3, 0, 32, 32), "expected two videos"),
        ((1, 3, 2, 15, 32), (1, 3, 2, 15, 32), "15×32 pixels are too small"),
    ],
)
def test_other_shapes_are_refused(distance, y, x, cause) -> None:
    with pytest.raises(BadInput, match=cause):
        distance(torch.zeros(y), torch.zeros(x))


# What cannot be loaded: each spoils the whole folder in one way. ------------------------------


def edited(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        heads = published_heads()
        change(heads)
        (folder / "vgg.pth").unlink()
        torch.save(heads, folder / "vgg.pth")

    return spoil


def shortened(folder: Path) -> None:
    (folder / "vgg.pth").unlink()
    (folder / "vgg.pth").write_bytes(HEADS.read_bytes()[:3000])


def of_another_kind(folder: Path) -> None:
    (folder / "notes.pt").write_text("hello there")


def with_a_cut_backbone(folder: Path) -> None:
    (folder / "vgg16-397923af.pth").unlink()
    (folder / "vgg16.safetensors").write_bytes(b"\x10\x00\x00\x00")


def with_other_heads(folder: Path) -> None:
    (folder / "vgg.pth").unlink()
    shutil.copy(HEADS.with_name("alex.pth"), folder)


def with_another_network(folder: Path) -> None:
    (folder / "vgg16-397923af.pth").unlink()
    shapes = backbone_shapes()
    shapes["features.2.weight"] = (64, 32, 3, 3)
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / "vgg16.pth")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (shutil.rmtree, "is no folder"),
        (
            lambda f: (f / "vgg.pth").unlink(),
            "holds the linear heads for VGG16: none has a key like lin0.model",
        ),
        (
            lambda f: (f / "vgg16-397923af.pth").unlink(),
            "holds the weights of VGG16: none has a key like features.0",
        ),
        (
            with_other_heads,
            r"in alex.pth lin1.model.1.weight has the shape \(1, 192, 1, 1\), not \(1, 128, 1, 1\)",
        ),
        (with_another_network, r"in vgg16.pth features.2.weight has the shape \(64, 32, 3, 3\)"),
        (edited(lambda heads: heads.pop("lin4.model.1.weight")), "in vgg.pth lin4.model.1.weight is missing"),
        (edited(lambda heads: heads["lin2.model.1.weight"].fill_(torch.nan)), "lin2.* no finite decimals"),
        (
            edited(lambda heads: heads["lin3.model.1.weight"][0, 7].neg_()),
            "lin3.model.1.weight in .* is negative",
        ),
        (shortened, r"vgg.pth cannot be read \(\w+\)"),
        (of_another_kind, r"notes.pt cannot be read \(\w+\)"),
        (with_a_cut_backbone, r"vgg16.safetensors cannot be read \(\w+\)"),
    ],
)
def test_what_is_amiss_in_the_folder_is_told_with_the_remedy(folder, spoil, cause) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=cause) as caught:
        load_lpips(folder)
    assert "vgg16-397923af.pth, the ImageNet weights of VGG16 that torchvision publishes" in str(caught.value)
    assert "weights/v0.1 of the Python package lpips" in str(caught.value)


def test_the_package_s_other_heads_may_lie_beside_but_not_the_same_twice(folder) -> None:
    for name in ("alex.pth", "squeeze.pth"):
        shutil.copy(HEADS.with_name(name), folder)
    load_lpips(folder)
    shutil.copy(HEADS, folder / "vgg_old.pth")
    with pytest.raises(BadInput, match=r"vgg.pth and vgg_old.pth in .* all hold the linear heads"):
        load_lpips(folder)
