"""The loop: it learns, it resumes with the very same numbers, ranks and accumulation change nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_latents import TEXT_WIDTH, random_clips, random_given, with_sentences, write_latents
from small_runs import small_run

from model.attention import head_warning
from model.config import PRESETS, DiTConfig, FlowConfig, SizeConfig
from model.dit import DiT, load_dit
from model.errors import BadInput
from model.sample_config import SampleConfig
from model.sampler import Request, sample
from model.vae import from_pixels, load_vae
from pipelines.demo.weights import embedded
from pipelines.demo.world import draw_scene, render
from train.batch import make_batch
from train.blend import Choice, draw_caption
from train.caption_features import outline
from train.checkpoint import checkpoints
from train.conditions import ClipTable, draw_conditions
from train.config import CaptionBlend, ConditionMix, OptimConfig, PackingConfig, TrainConfig
from train.data import LatentDataset
from train.ema import Ema
from train.flops import train_flops
from train.loop import train
from train.metrics import Metrics
from train.optim import build_optimizer, learning_rate
from train.packing import Cursor, PackPlan
from train.vae_loss import psnr

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = ((3, 4, 4), (3, 6, 2), (1, 4, 4))
    clips = with_sentences(random_clips(23, sizes))
    return write_latents(tmp_path_factory.mktemp("data"), clips, given=random_given(clips))


config_for = partial(
    small_run, steps=14, save_every=4, optim=OptimConfig(lr=1e-2, warmup=3, schedule="cosine", ema=0.9)
)


def plan_of(data: LatentDataset, config: TrainConfig) -> PackPlan:
    """The plan that the loop makes."""
    shape = config.model.config(channels=data.about["channels"], text_width=data.about["text_width"])
    table = ClipTable.of(data.clips, shape)
    return PackPlan(
        lambda epoch: draw_conditions(table, epoch, config).n_tokens,
        config.packing,
        config.seed,
        lambda n_tokens: train_flops(n_tokens, shape),
    )


#: Shares at which every decision about captions is seen within a few steps.
BLEND = CaptionBlend(original=0.2, drop_share=0.2, cut_share=0.7, structured=1.0)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows_of(run)]


def captions(run: Path) -> list[tuple[dict, dict]]:
    return [(row["captions"], row["captions_total"]) for row in rows_of(run)]


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 14 steps without interruption."""
    run = tmp_path_factory.mktemp("whole")
    train(config_for(dataset, run), log=lambda row: None)
    return run


def test_the_run_leaves_its_records(dataset: Path, whole: Path) -> None:
    assert [path.name for path in checkpoints(whole)] == ["step-00000012", "step-00000014"]  # keep=2
    config = config_for(dataset, whole)
    plan, cursor, tokens = plan_of(LatentDataset(config.dataset), config), Cursor(), 0
    rows = rows_of(whole)
    assert [row["step"] for row in rows] == list(range(1, 15))
    for row in rows:
        (pack,), after = plan.step(cursor, 1)
        used = int(plan.n_tokens(cursor.epoch)[pack].sum())
        tokens += used
        assert (row["epoch"], row["tokens"], row["resumed_at"]) == (cursor.epoch, tokens, 0)
        assert row["padding_share"] == pytest.approx(1 - used / 60)
        assert row["tokens_per_s"] == pytest.approx(used * row["steps_per_s"])
        assert row["lr"] == learning_rate(row["step"] - 1, 14, config.optim)
        assert 0 <= row["data_wait_share"] < 1
        assert "note" not in row
        cursor = after
    assert rows[-1]["epoch"] == 3  # 23 clips in 4 packs each


def test_the_loss_is_over_all_generated_tokens_of_a_step(tmp_path: Path) -> None:
    """Of two unequal packs by hand, and the same in one pack: no pack counts as much as the other."""
    clips = random_clips(3, ((2, 6, 6), (3, 4, 4)))
    data = write_latents(tmp_path / "data", clips)
    base = config_for(data, tmp_path / "two", steps=3, accumulate=2, packing=PackingConfig(budget=44))
    train(base, log=lambda row: None)
    two = rows_of(tmp_path / "two")
    read, shape = LatentDataset(str(data)), DiTConfig(width=16, depth=1, heads=1, text_width=TEXT_WIDTH)
    packs, _ = plan_of(read, base).step(Cursor(), 2)
    batches = [make_batch(read, pack, 0, base, shape) for pack in packs]
    sums = [float((b.target.square().mean(dim=1) * b.is_generated).sum()) for b in batches]
    counts = [int(b.is_generated.sum()) for b in batches]
    assert min(counts) < 0.8 * max(counts)
    assert abs(sums[0] / counts[0] - sums[1] / counts[1]) > 0.01
    assert two[0]["loss"] == pytest.approx(sum(sums) / sum(counts), rel=1e-5)  # a new model says 0

    train(
        replace(base, out=str(tmp_path / "one"), accumulate=1, packing=PackingConfig(budget=88)),
        log=lambda row: None,
    )
    one = rows_of(tmp_path / "one")
    assert [row["tokens"] for row in one] == [row["tokens"] for row in two]  # all clips in each step
    for a, b in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_a_rank_without_clips_counts_nothing(tmp_path: Path) -> None:
    """Two clips for three packs: the third has a clip without a loss, which is no data."""
    data = write_latents(tmp_path / "data", random_clips(2, ((3, 4, 4),)))
    config = config_for(
        data, tmp_path / "run", accumulate=3, steps=2, condition=ConditionMix(1, 0, 0, 0, 0, 0)
    )
    train(config, log=lambda row: None)
    assert [row["tokens"] for row in rows_of(tmp_path / "run")] == [24, 48]


def test_the_first_loss_is_that_of_predicting_zero(whole: Path) -> None:
    # A new model says 0; the mean square of noise - x_0 for unit normal latents is 2.
    assert losses(whole)[0][1] == pytest.approx(2.0, abs=0.15)


def killed_and_resumed(config: TrainConfig) -> Path:
    """A run that was stopped before its first checkpoint, and twice between checkpoints; its last checkpoint."""

    class Killed(BaseException):
        pass

    for stop in (3, 6, 9):

        def log(row: dict, stop: int = stop) -> None:
            if row["step"] == stop:
                raise Killed

        with pytest.raises(Killed):
            train(config, log)
    return Path(train(config, log=lambda row: None))


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    for name in ("model", "ema", "optimizer"):
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_killed_and_resumed_gives_identical_losses_and_weights(
    dataset: Path, whole: Path, tmp_path: Path
) -> None:
    last = killed_and_resumed(config_for(dataset, tmp_path))
    assert losses(tmp_path) == losses(whole)
    assert captions(tmp_path) == captions(whole)
    assert_same_tensors(last, checkpoints(whole)[-1])


def test_muon_resumes_as_exactly_and_is_another_optimizer(dataset: Path, whole: Path, tmp_path: Path) -> None:
    optim = OptimConfig(name="muon", lr=1e-2, warmup=3, schedule="cosine", ema=0.9)
    config = config_for(dataset, tmp_path / "killed", optim=optim)
    last = killed_and_resumed(config)
    again = Path(train(replace(config, out=str(tmp_path / "whole")), log=lambda row: None))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole") != losses(whole)
    assert_same_tensors(last, again)


def test_muon_decays_the_matrices_of_linear_layers_alone() -> None:
    model = DiT(DiTConfig(width=16, depth=1, heads=1, ffn=16, text_width=8, channels=2))
    torch.nn.init.ones_(model.blocks[0].table)
    optimizer = build_optimizer(model, OptimConfig(name="muon", lr=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        share = 0.95 if p.ndim == 2 and name.endswith("weight") else 1.0
        torch.testing.assert_close(p.detach(), before[name] * share)


def test_the_ratios_logged_are_those_of_the_captions_drawn(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path, captions=BLEND, log_every=2)
    train(config, log=lambda row: None)
    data = LatentDataset(config.dataset)
    plan = plan_of(data, config)
    cursor, drawn = Cursor(), list[list[Choice]]()
    for _ in range(14):
        (pack,), after = plan.step(cursor, 1)
        drawn.append([])
        for number in pack:
            clip, texts = data.clips[number], data.read(number)[1]
            about = {"seed": config.seed, "clip_id": clip.clip_id, "epoch": cursor.epoch}
            drawn[-1].append(draw_caption(outline(texts), **about, config=BLEND))
        cursor = after

    def expected(choices: list[Choice]) -> dict:
        shown = [choice for choice in choices if choice.kind]
        fields = [len(choice.fields) for choice in shown if choice.kind == "structured"]
        kinds = ("dense", "original", "short", "structured")
        return {
            "clips": len(choices),
            "dropped": sum(choice.is_dropped for choice in choices) / len(choices),
            "no_caption": 0.0,
            "kinds": {kind: sum(c.kind == kind for c in shown) / len(shown) for kind in kinds},
            "cut": sum(choice.is_cut for choice in shown) / len(shown),
            "fields": sum(fields) / len(fields) if fields else None,
        }

    assert len(captions(tmp_path)) == 7
    for row, (since, total) in enumerate(captions(tmp_path)):
        assert since == expected(drawn[2 * row] + drawn[2 * row + 1])
        assert total == expected([choice for step in drawn[: 2 * row + 2] for choice in step])
    assert all(total[name] > 0 for name in ("dropped", "cut", "fields"))
    assert all(total["kinds"].values())


def test_a_row_goes_on_from_a_checkpoint_between_two_rows(dataset: Path, tmp_path: Path) -> None:
    """Logged every 3 steps, saved every 4: what was seen in step 4 stands in the checkpoint alone."""
    configs = [config_for(dataset, tmp_path / n, captions=BLEND, log_every=3, steps=9) for n in ("a", "b")]
    train(configs[0], log=lambda row: None)

    class Killed(BaseException):
        pass

    def log(row: dict) -> None:
        if row["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        train(configs[1], log)
    train(configs[1], log=lambda row: None)
    whole, resumed = (rows_of(tmp_path / name) for name in ("a", "b"))
    for key in ("loss", "loss_by_level", "conditions", "captions", "captions_total"):
        assert [row[key] for row in resumed] == [row[key] for row in whole]
    assert resumed[1]["resumed_at"] == 4


def run_command(dataset: Path, out: Path, kill_after: int | None = None) -> None:
    """`reelmill train` in a process of its own, killed when so many rows of the metrics are there."""
    options = ["--steps=400", "--save_every=7", "--log_every=3", "--device=cpu", "--packing.budget=60"]
    options += ["--model.width=16", "--model.depth=1", "--model.heads=1", "--optim.ema=0.9"]
    options += ["--optim.lr=0.001", "--optim.warmup=3", "--validation.every=50", "--validation.samples=0"]
    command = [sys.executable, "-m", "pipelines.train", f"--dataset={dataset}", f"--out={out}", *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = out / "metrics.jsonl"

    def rows() -> int:
        return len(metrics.read_text().splitlines()) if metrics.is_file() else 0

    while process.poll() is None and (kill_after is None or rows() < kill_after):
        time.sleep(0.002)
    if kill_after is not None:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == (0 if kill_after is None else -signal.SIGKILL), errors


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_give_the_very_same_run(dataset: Path, tmp_path: Path) -> None:
    """Killed before the first checkpoint, while ones are written, and mid-epoch; bit for bit the run of no kill."""
    run_command(dataset, tmp_path / "whole")
    resumed = set()
    for rows in (2, 22, 48, 92):
        run_command(dataset, tmp_path / "killed", kill_after=rows)
        resumed.add(rows_of(tmp_path / "killed")[-1]["resumed_at"])
    run_command(dataset, tmp_path / "killed")
    ours, theirs = rows_of(tmp_path / "killed"), rows_of(tmp_path / "whole")
    assert len(resumed | {ours[-1]["resumed_at"]}) >= 4
    for a, b in zip(ours, theirs, strict=True):
        for key in ("step", "loss", "grad_norm", "epoch", "tokens", "captions_total", "loss_by_level"):
            assert a[key] == b[key]
        assert a.get("validation") == b.get("validation")
    last = [Path(tmp_path, name, "checkpoints", "step-00000400") for name in ("killed", "whole")]
    assert_same_tensors(*last)


def test_a_finished_run_is_left_alone_and_can_be_prolonged(dataset: Path, tmp_path: Path) -> None:
    short = config_for(dataset, tmp_path, steps=3)
    rows: list[dict] = []
    first = train(short, rows.append)
    assert train(short, rows.append) == first
    assert len(rows) == 3
    train(replace(short, steps=5), rows.append)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_half_written_checkpoint_is_not_taken(dataset: Path, tmp_path: Path) -> None:
    train(config_for(dataset, tmp_path, steps=6), log=lambda row: None)
    newest = checkpoints(tmp_path)[-1]
    (newest / "COMPLETE").unlink()
    (newest / "model.safetensors").write_bytes(b"half")
    rows: list[dict] = []
    train(config_for(dataset, tmp_path, steps=6), rows.append)
    assert [row["step"] for row in rows] == [5, 6]  # from the checkpoint of step 4
    with pytest.raises(BadInput, match="no finished checkpoint"):
        load_dit(tmp_path)


def test_another_configuration_in_the_same_folder_is_refused(dataset: Path, tmp_path: Path) -> None:
    train(config_for(dataset, tmp_path, steps=1), log=lambda row: None)
    with pytest.raises(BadInput, match=r"seed \(0 before, now 1\)"):
        train(config_for(dataset, tmp_path, seed=1), log=lambda row: None)


def test_a_diverging_run_stops_with_the_step(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path, optim=OptimConfig(lr=1e30, warmup=0))
    with pytest.raises(BadInput, match=r"step \d+: loss .* diverged"):
        train(config, log=lambda row: None)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_two_ranks_equal_one_that_accumulates(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Literal["adamw", "muon"]
) -> None:
    """The same packs on two processes (gloo) and on one in two parts: the same losses to 1e-6.

    With Muon, whose half precision makes more of the last digit, to 1e-3: the ranks orthogonalise in turns.
    """
    optim = replace(config_for(dataset, tmp_path).optim, name=name)
    train(config_for(dataset, tmp_path / "one", accumulate=2, steps=6, optim=optim), log=lambda row: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # what torchrun sets
    config = config_for(dataset, tmp_path / "two", steps=6, optim=optim)
    code = "from model.config import *; from train.config import *; from train.loop import train; "
    code += f"train({config!r}, print)"
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **meeting, "RANK": "1"}
    )
    for name, value in {**meeting, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    train(config, log=lambda row: None)
    assert other.wait() == 0
    assert captions(tmp_path / "one") == captions(tmp_path / "two")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == 6
    near = 1e-6 if name == "adamw" else 1e-3
    assert all(a == pytest.approx(b, rel=near, abs=near) for a, b in zip(one, two, strict=True))


def test_overfits_one_clip_of_the_world(tmp_path: Path) -> None:
    """Trained on one rendered clip, the sampler gives it back from its averaged weights: 30 dB and more in pixels."""
    vae = load_vae(embedded("vae"))
    scene = draw_scene(np.random.default_rng(7), duration_s=5 / 6)
    video = from_pixels(torch.from_numpy(render(scene, n_frames=5, fps=6, width=48, height=48))[None])
    latent = vae.encode_latents(video)[0]  # (16, 2, 6, 6)
    ((_, _, texts),) = random_clips(1, ((2, 6, 6),))
    copies = [(f"{number:016x}", latent, texts) for number in range(8)]
    config = config_for(
        write_latents(tmp_path / "data", copies), tmp_path / "run", steps=300, save_every=300, log_every=50,
        model=SizeConfig(width=96, depth=2, heads=2), condition=ConditionMix(1, 0, 0, 0, 0, 0),
        packing=PackingConfig(budget=144), optim=OptimConfig(lr=5e-3, warmup=20, schedule="cosine", ema=0.95),
    )  # fmt: skip
    dit, _ = load_dit(train(config, log=lambda row: None))
    request = Request((2, 6, 6), 16.0, texts["dense"], seed=5)
    found = sample(dit, [request], SampleConfig(steps=20, guidance=1.0), FlowConfig())[0]
    pixels, wanted = (vae.decode_latents(x[None]) for x in (found, latent))
    # What the VAE makes of the clip's own latents is the best that any sample can be.
    assert psnr(pixels, wanted).item() > 30


def test_learning_rate() -> None:
    constant = OptimConfig(lr=1.0, warmup=4)
    assert [learning_rate(s, 100, constant) for s in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = replace(constant, schedule="cosine")
    assert learning_rate(4, 104, cosine) == 1.0
    assert learning_rate(54, 104, cosine) == pytest.approx(0.05 + 0.95 / 2)
    assert learning_rate(104, 104, cosine) == pytest.approx(0.05)


def test_ema_by_hand() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    ema = Ema(layer, decay=0.2)
    layer.weight.data.fill_(2.0)
    ema.update(layer)  # decay (1 + 0) / (10 + 0)
    assert ema.average["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    layer.weight.data.fill_(3.0)
    ema.update(layer)  # decay 2 / 11
    assert ema.average["weight"].item() == pytest.approx(2 / 11 * 1.9 + 9 / 11 * 3)
    for _ in range(9):
        ema.update(layer)
    before = ema.average["weight"].item()
    layer.weight.data.fill_(8.0)
    ema.update(layer)  # the ramp has passed 0.2
    assert ema.average["weight"].item() == pytest.approx(0.2 * before + 0.8 * 8)


def test_weight_decay_spares_biases_norms_and_tables() -> None:
    dit = DiT(DiTConfig(width=16, heads=1, depth=1, ffn=32, text_width=8))
    decayed, spared = (group["params"] for group in build_optimizer(dit, OptimConfig()).param_groups)
    names = {id(p): name for name, p in dit.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed)
    assert {"blocks.0.table", "head.table", "null_text", "patch_in.bias"} <= {names[id(p)] for p in spared}
    assert len(decayed) + len(spared) == len(names)


def test_metrics_drop_what_a_resumed_run_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    metrics = Metrics(path, step=2)
    metrics.write({"step": 3, "loss": 1.0})
    metrics.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": 1.0}\n'


def test_heads_of_other_sizes_than_kernels_are_made_for_are_warned_of() -> None:
    assert head_warning(PRESETS["S"]) is None
    assert head_warning(PRESETS["1.3B"]) is None
    told = head_warning(PRESETS["tiny"])
    assert told is not None
    assert told.startswith("heads of 32 features (width 64, 2 heads)")
