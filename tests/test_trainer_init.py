"""A run that begins with given weights: its own kind's or Wan's, whole and unchanged, or a clear refusal."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_latents import CHANNELS, TEXT_WIDTH, VAE_ID, random_clips, write_latents
from small_runs import small_run

from model.config import SizeConfig
from model.dit import load_dit
from model.errors import BadInput
from model.wan import load_wan
from train.checkpoint import checkpoints
from train.config import OptimConfig, ValidationConfig
from train.loop import train

STILL = OptimConfig(lr=0.0, warmup=0)  # its last weights are its first


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = random_clips(9, ((3, 4, 4), (1, 4, 4)))
    return write_latents(tmp_path_factory.mktemp("data"), clips, text_id="embedded/aa")


config_for = partial(
    small_run,
    steps=2,
    save_every=1,
    model=SizeConfig(),  # left out, as `init` demands
    optim=STILL,
    validation=ValidationConfig(),
)


@pytest.fixture(scope="module")
def first(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model of no preset's shape, whose averaged weights are not its last ones."""
    run = tmp_path_factory.mktemp("first")
    model = SizeConfig(width=16, depth=3, heads=1, ffn=24, windows=(2, 1, 1))
    optim = OptimConfig(lr=1e-2, warmup=0)
    train(config_for(dataset, run, steps=4, model=model, optim=optim), log=lambda row: None)
    return run


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network: Any = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, in_channels=CHANNELS, out_channels=CHANNELS,
        text_dim=TEXT_WIDTH, ffn_dim=24, num_layers=2,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("wan")
    network.save_pretrained(place)
    return place


def weights(folder: Path | str, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(Path(folder, f"{name}.safetensors"))


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_begins_with_the_averaged_weights_and_the_shape_of_another(
    dataset: Path, first: Path, tmp_path: Path
) -> None:
    newest = checkpoints(first)[-1]
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(newest).values(), weights(newest, "ema").values(), strict=True)
    )
    for number, place in enumerate((first, newest)):
        last = train(config_for(dataset, tmp_path / str(number), init=str(place)), log=lambda row: None)
        assert_same(weights(last), weights(newest, "ema"))
        assert_same(weights(last, "ema"), weights(newest, "ema"))
        assert load_dit(last)[0].config == load_dit(newest)[0].config
    older = checkpoints(first)[0]
    assert older != newest
    last = train(config_for(dataset, tmp_path / "older", init=str(older)), log=lambda row: None)
    assert_same(weights(last), weights(older, "ema"))


def test_all_weights_are_trained_on(dataset: Path, first: Path, tmp_path: Path) -> None:
    optim = OptimConfig(lr=1e-2, warmup=0)
    rows: list[dict] = []
    last = train(config_for(dataset, tmp_path, init=str(first), optim=optim), rows.append)
    moved = {
        name: not torch.equal(x, weights(checkpoints(first)[-1], "ema")[name])
        for name, x in weights(last).items()
    }
    assert all(moved.values()), moved
    assert [row["step"] for row in rows] == [1, 2]  # of its own, from the first


def test_a_run_begins_with_wans_weights(dataset: Path, wan: Path, tmp_path: Path) -> None:
    last = train(config_for(dataset, tmp_path, init=str(wan)), log=lambda row: None)
    assert_same(weights(last), dict(load_wan(wan).state_dict()))
    dit, _ = load_dit(last)
    assert (dit.config, dit.config.text_tokens) == (load_wan(wan).config, 512)
    shutil.copytree(wan, tmp_path / "pipeline" / "transformer")
    inside = config_for(dataset, tmp_path / "again", init=str(tmp_path / "pipeline"))
    assert_same(weights(train(inside, log=lambda row: None)), weights(last))


def test_a_resumed_run_needs_what_it_began_with_no_more(dataset: Path, first: Path, tmp_path: Path) -> None:
    place = shutil.copytree(first, tmp_path / "first")
    optim = OptimConfig(lr=1e-2, warmup=0)
    config = config_for(dataset, tmp_path / "run", init=str(place), optim=optim, steps=1)
    train(config, log=lambda row: None)
    shutil.rmtree(place)
    resumed = train(replace(config, steps=3), log=lambda row: None)
    whole = config_for(dataset, tmp_path / "whole", init=str(first), optim=optim, steps=3)
    assert_same(weights(resumed), weights(train(whole, log=lambda row: None)))
    for other in (None, str(first)):
        with pytest.raises(BadInput, match=r"other settings or data: init \(.*first before, now "):
            train(replace(config, init=other, steps=3), log=lambda row: None)


def test_weights_that_do_not_fit_the_data_are_refused(
    dataset: Path, first: Path, wan: Path, tmp_path: Path
) -> None:
    def refused(data: Path, init: Path, message: str, **changes: Any) -> None:
        with pytest.raises(BadInput, match=message):
            train(config_for(data, tmp_path / "run", init=str(init), **changes), log=lambda row: None)
        assert not (tmp_path / "run").exists()

    def told(place: Path, **latents: Any) -> Path:
        """A copy of the newest checkpoint that was trained on other latents."""
        shutil.copytree(checkpoints(first)[-1], place)
        about = json.loads((place / "config.json").read_text())
        about["latents"] |= latents
        (place / "config.json").write_text(json.dumps(about))
        return place

    refused(
        dataset,
        told(tmp_path / "a", vae_id="other"),
        rf"VAE other, the dataset {VAE_ID}. Encode the dataset with",
    )
    refused(
        dataset,
        told(tmp_path / "b", text_id="t5"),
        r"have text encoder t5, the dataset embedded/aa. .*leave --init out",
    )
    clips = [
        (name, x[:4], {kind: y[:, :5] for kind, y in t.items()})
        for name, x, t in random_clips(3, ((1, 4, 4),))
    ]
    narrow = write_latents(tmp_path / "narrow", clips, channels=4, text_width=5)
    for init in (first, wan):
        refused(narrow, init, "latent channels 16, the dataset 4; features per text token 8, the dataset 5")
    # What nobody told cannot be compared.
    untold = write_latents(tmp_path / "untold", random_clips(3, ((1, 4, 4),)))
    train(config_for(untold, tmp_path / "fits", init=str(first)), log=lambda row: None)


def test_a_shape_that_the_weights_do_not_have_is_refused(dataset: Path, first: Path, tmp_path: Path) -> None:
    def begun(model: SizeConfig) -> Path:
        return train(config_for(dataset, tmp_path, init=str(first), model=model), log=lambda row: None)

    with pytest.raises(BadInput, match=r"it has width 16, not 384; depth 3, not 12; .*Leave --model out"):
        begun(SizeConfig(preset="S"))
    with pytest.raises(BadInput, match=r"another shape .*: it has windows \(2, 1, 1\), not None. Leave"):
        begun(SizeConfig(width=16, depth=3, heads=1, ffn=24))
    begun(SizeConfig(width=16, depth=3, heads=1, ffn=24, windows=(2, 1, 1)))


def test_a_place_without_weights_says_what_to_give(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        with pytest.raises(BadInput, match=rf"{name} holds no weights to start from. Give the --out folder"):
            train(config_for(dataset, tmp_path / "run", init=str(tmp_path / name)), log=lambda row: None)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="no finished checkpoint"):
        train(config_for(dataset, tmp_path / "run", init=str(tmp_path / "empty")), log=lambda row: None)
