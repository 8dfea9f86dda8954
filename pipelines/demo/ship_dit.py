"""Make a checkpoint of the transformer small enough to ship: its averaged weights alone, in half precision.

    python -m pipelines.demo.ship_dit --checkpoint runs/dit --out pipelines/demo/weights/dit

What comes out is a checkpoint for `sample`, `evaluate` and `train --init`; no run can go on with it. The names of
folders on the machine that trained it are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ShipConfig:
    """Write the averaged weights of a checkpoint in half precision, with what sampling needs to know.

    Attributes:
        checkpoint: a run, of which the newest checkpoint is taken, or one checkpoint.
        out: the folder to write; other files in it stay.
    """

    checkpoint: str
    out: str


def ship(config: ShipConfig) -> None:
    """Raises BadInput where there is no checkpoint."""
    import torch
    from safetensors.torch import save_file

    from model.dit import load_dit
    from model.pieces import Pieces
    from pipelines.sample_model import newest

    folder, out = newest(config.checkpoint), Path(config.out)
    _, about = load_dit(folder)
    state = json.loads((folder / "state.json").read_text())
    train = about["train"]
    told = {"dataset": "runs/world", "out": "runs/dit", "init": train["init"] and "runs/pictures"}
    about["train"] = {**train, **told, "validation": {**train["validation"], "vae": None}}
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: x.to(torch.float16) for name, x in Pieces(str(folder), "ema").whole().items()}
    save_file(weights, out / "ema.safetensors")
    (out / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    (out / "state.json").write_text(json.dumps({name: state[name] for name in ("step", "tokens")}) + "\n")
    (out / "COMPLETE").write_text("")
    size = (out / "ema.safetensors").stat().st_size
    print(f"{out}: {sum(x.numel() for x in weights.values()):,} weights, {size / 2**20:.1f} MiB")


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(ShipConfig, ship, argv, name="python -m pipelines.demo.ship_dit")


if __name__ == "__main__":
    raise SystemExit(main())
