"""Training the VAE on two ranks: gradients are averaged, validation is shared, divergence stops both by name."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from model.vae_config import VAEConfig
from train.vae_batches import Clips, VaeData
from train.vae_loop import train_vae
from train.vae_settings import VaeTraining

ROOT = Path(__file__).resolve().parents[1]
# Codes have no noise, so that two ranks with the same clips must do what one does.
CONFIG = VAEConfig(
    name="codes", channels=2, patch=4, widths=(8, 8, 8), encoder_depth=1, decoder_depth=1,
    bottleneck="fsq", levels=(5, 5),
)  # fmt: skip
SETTINGS = VaeTraining(steps=4, warmup=2, validate_every=2, checkpoint_every=2, bf16=False)


def clips_of(number: int) -> Clips:
    generator = torch.Generator().manual_seed(number)
    frames = torch.randint(0, 256, (2, 5, 2, 2, 3), generator=generator, dtype=torch.uint8)
    return Clips(frames.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3), (f"clip {number}",) * 2)


def same_on_both(number: int) -> Clips:
    """As `clips_of` for one rank: both have the same clips in a step, and training starts from the same ones."""
    seen = SETTINGS.steps + 1  # the last one by way of proof
    return clips_of(number // 2 if number < 2 * seen else number - seen)


VALIDATION = [clips_of(1000 + i).frames[: 1 + i % 2] for i in range(3)]

# What each rank runs; rank 1 alone diverges where asked to.
WORKER = """
import json, sys
import torch
from dataclasses import replace
from pathlib import Path
from test_vae_ranks import CONFIG, SETTINGS, VALIDATION, clips_of, same_on_both
from model.errors import BadInput
from train.vae_batches import Clips, VaeData
from train.vae_loop import train_vae
out, kind = Path(sys.argv[1]), sys.argv[2]
rows = []
data = VaeData(same_on_both if kind == "same" else clips_of, [clips_of(500).frames], VALIDATION)
if kind == "poison":
    import train.vae_loop as loop
    honest = loop.from_pixels
    bad = clips_of(7).frames
    loop.from_pixels = lambda frames: honest(frames) * (float("nan") if torch.equal(frames, bad) else 1.0)
try:
    train_vae(out, CONFIG, SETTINGS, data, rows.append)
except BadInput as error:
    print(error)
    sys.exit(2)
print(json.dumps(rows))
"""


def run_two(out: Path, kind: str) -> list[tuple[int, str]]:
    """Exit status and output of rank 0 and rank 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": path}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(out), kind],
            env={**os.environ, **meeting, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in ranks]
    return [(process.returncode, text) for process, text in zip(ranks, said, strict=True)]


def test_two_ranks_with_the_same_clips_do_what_one_does(tmp_path) -> None:
    alone: list[dict] = []
    data = VaeData(clips_of, [clips_of(500).frames], VALIDATION)
    torch.set_num_threads(1)
    train_vae(tmp_path / "one", CONFIG, SETTINGS, data, alone.append)
    (status, text), (other_status, other_text) = run_two(tmp_path / "two", "same")
    assert (status, other_status) == (0, 0)
    rows = json.loads(text.splitlines()[-1])
    assert other_text.splitlines()[-1] == "[]"  # rank 1 tells nothing
    for row, expected in zip(rows, alone, strict=True):
        for name in ("loss", "grad_norm", *[name for name in expected if name.startswith("val_")]):
            assert abs(row[name] - expected[name]) <= 1e-5 * abs(expected[name]), name
    one, two = (load_file(tmp_path / name / "vae/model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-3)


def test_ranks_see_other_clips_and_a_bad_one_stops_both_by_name(tmp_path) -> None:
    found = run_two(tmp_path, "poison")  # batch 7 is that of rank 1 at step 3
    assert [status for status, _ in found] == [2, 2]
    for _, text in found:
        assert re.search(r"diverged at step 3: loss nan.* on clip 7, clip 7; the last good", text), text
