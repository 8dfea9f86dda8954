"""The VAE: quality, speed and memory, beside diffusers' Wan VAE of equal width on the same machine.

    python -m tests.bench.vae --json out.json                                        # the embedded tiny, and base
    python -m tests.bench.vae --trained-only --vae runs/vae/vae --sizes 64x64        # a quick look
    python -m tests.bench.vae --device cuda --json out.json                          # 256p, 480p and 720p

Quality: PSNR and SSIM of unseen clips of the procedural world (see `vae_quality`); base and Wan have random weights
and so none. Speed: frames per second of encoding and decoding, whole clips for ours and Wan's own chunks of four
frames for Wan, both with the same width (see `vae_networks`), precision and threads. They take turns, and the
median of the rounds after the first counts. Memory: the peak above what there was before the first pass, in a
process of its own (see `vae_worker`). Pieces: the same clip whole, in chunks and in tiles, at two lengths, and the
largest difference of any value from the whole; small tiles miss what lies beyond them, which trained weights
hardly heed and random ones do. What a device cannot do is null, with the reason.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model.vae import load_vae
from model.vae_config import PRESETS
from pipelines.demo.weights import embedded
from tests.bench.record import machine, print_table
from tests.bench.vae_networks import DIRECTIONS, Ours, Setup, build, facts, wan_config
from tests.bench.vae_quality import figures
from tests.bench.vae_turns import take_turns
from tests.bench.vae_worker import Clip

SIZES = {"cpu": "256x144", "cuda": "456x256,832x480,1280x720"}
FRAMES = {"cpu": 17, "cuda": 33}
CHUNK = 4  # latent frames
RANDOM = "its weights are random"


def wan_of(name: str) -> str:
    return f"Wan of {name}'s width"


def ratio(rows: dict[str, Any], direction: str, figure: str, ours: str, theirs: str) -> float | None:
    """Ours divided by theirs; null if one of them is missing."""
    one, other = rows[ours][direction][figure], rows[theirs][direction][figure]
    return one / other if one is not None and other else None


def speed(ours: Mapping[str, Setup], clips: list[Clip], repeats: int, threads: int | None) -> list[dict]:
    """Each network of ours and Wan of its width, at each size."""
    found = []
    for clip in clips:
        for name, setup in ours.items():
            other = wan_of(name)
            rows = take_turns(
                {name: setup, other: replace(setup, is_wan=True, folder=None)}, clip, repeats, threads
            )
            ratios = {
                f"{d}_{figure}": ratio(rows, d, figure, name, other)
                for d in DIRECTIONS
                for figure in ("frames_per_s", "peak_mb")
            }
            found.append({**_size(clip), "rows": rows, "ours_by_wan": ratios})
            print_speed(clip, rows, ratios)
    return found


def pieces(
    ours: Mapping[str, Setup], clips: list[Clip], tiles: list[int], repeats: int, threads: int | None
) -> list[dict]:
    """Each network of ours on whole clips, in chunks and in tiles, at each length."""
    manners: dict[str, dict[str, Any]] = {
        "whole": {},
        f"chunks of {CHUNK}": {"chunk": CHUNK},
        **{f"tiles of {tile}": {"tile": tile} for tile in tiles},
    }
    found = []
    for name, setup in ours.items():
        for clip in clips:
            setups = {manner: replace(setup, **words) for manner, words in manners.items()}
            rows = take_turns(setups, clip, repeats, threads)
            found.append({"network": name, **_size(clip), "rows": rows})
            print_pieces(name, clip, rows)
    return found


def print_speed(clip: Clip, rows: dict[str, Any], ratios: dict[str, float | None]) -> None:
    header = ["", "encode frames/s", "decode frames/s", "encode peak MB", "decode peak MB"]
    table = [
        [name, *(row[d][figure] for figure in ("frames_per_s", "peak_mb") for d in DIRECTIONS)]
        for name, row in rows.items()
    ]
    table.append(
        [
            "ours / Wan",
            *(ratios[f"{d}_{figure}"] for figure in ("frames_per_s", "peak_mb") for d in DIRECTIONS),
        ]
    )
    print_table(f"{clip.width}x{clip.height}, {clip.frames} frames", header, table)
    print_reasons(rows)


def print_pieces(name: str, clip: Clip, rows: dict[str, Any]) -> None:
    header = ["", *(f"{d} {what}" for d in DIRECTIONS for what in ("frames/s", "peak MB", "differs by"))]
    table = []
    for manner, row in rows.items():
        cells: list[object] = [manner]
        for d in DIRECTIONS:
            largest = row[d].get("difference", {}).get("largest")
            cells += [
                row[d]["frames_per_s"],
                row[d]["peak_mb"],
                None if largest is None else f"{largest:.1e}",
            ]
        table.append(cells)
    print_table(f"{name} in pieces, {clip.width}x{clip.height}, {clip.frames} frames", header, table)
    print_reasons(rows)


def print_reasons(rows: dict[str, Any]) -> None:
    for name, row in rows.items():
        for direction in DIRECTIONS:
            if row[direction]["reason"]:
                print(f"  {name}, {direction}: {row[direction]['reason']}")


def _size(clip: Clip) -> dict[str, int]:
    return {"width": clip.width, "height": clip.height, "frames": clip.frames}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of both; bf16 on cuda, else fp32")
    parser.add_argument(
        "--vae", type=Path, help="folder of a trained VAE of ours; the embedded one if left out"
    )
    parser.add_argument(
        "--trained-only", action="store_true", help="leave out base, which takes minutes on a CPU"
    )
    parser.add_argument("--sizes", help="WIDTHxHEIGHT in multiples of 8, with commas")
    parser.add_argument("--frames", type=int, help="4k+1; 17, on cuda 33")
    parser.add_argument(
        "--lengths", default="17,65", help="frames of the clips in pieces, at the first of the sizes"
    )
    parser.add_argument("--tiles", default="128,224", help="pixels; from 224 on tiny and base are exact")
    parser.add_argument("--clips", type=int, default=30, help="for quality")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="for each network; what the environment says if left out")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    flags.precision = flags.precision or ("bf16" if flags.device == "cuda" else "fp32")
    flags.sizes = flags.sizes or SIZES[flags.device]
    flags.frames = flags.frames or FRAMES[flags.device]
    lengths = [int(length) for length in flags.lengths.split(",")]
    tiles = [int(tile) for tile in flags.tiles.split(",")]
    sizes = [tuple(int(side) for side in size.split("x")) for size in flags.sizes.split(",")]
    if any(n % 4 != 1 for n in (flags.frames, *lengths)) or any(s % 8 for size in sizes for s in size):
        parser.error("frames must be 4k+1, and sizes multiples of 8: others are padded, and not by all alike")
    if flags.repeats < 1:
        parser.error("--repeats must be at least 1")
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch can use")
    if flags.threads:
        torch.set_num_threads(flags.threads)

    folder = flags.vae or Path(embedded("vae"))
    trained = Setup(load_vae(folder).config, str(folder), device=flags.device, precision=flags.precision)
    ours = {trained.config.name: trained}
    if not flags.trained_only:
        ours.setdefault("base", replace(trained, config=PRESETS["base"], folder=None))
    for setup in ours.values():
        wan_config(setup.config)  # say at once that there is no Wan of that shape

    width, height = sizes[0]
    networks = {}
    for name, setup in ours.items():
        for label, one in ((name, setup), (wan_of(name), replace(setup, is_wan=True))):
            networks[label] = facts(one, flags.frames, height, width)
    header = ["", "widths", "M parameters", "encode GFLOP/frame", "decode GFLOP/frame"]
    rows = [
        [
            name,
            " ".join(map(str, row["widths"])),
            row["parameters"] / 1e6,
            *(row[f"{d}_gflop_per_frame"] for d in DIRECTIONS),
        ]
        for name, row in networks.items()
    ]
    print_table(f"Networks, at {width}x{height}, {flags.frames} frames", header, rows)

    quality = judge(ours, flags.clips)
    told = {
        **machine(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "gpu": torch.cuda.get_device_name() if flags.device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "settings": vars(flags) | {"json": None, "vae": flags.vae.name if flags.vae else "embedded"},
        "networks": networks,
        "quality": quality,
        "speed": speed(ours, [Clip(flags.frames, h, w) for w, h in sizes], flags.repeats, flags.threads),
        "pieces": pieces(
            ours, [Clip(n, height, width) for n in lengths], tiles, flags.repeats, flags.threads
        ),
    }
    if flags.json:
        flags.json.write_text(json.dumps(told, indent=2) + "\n")


def judge(ours: Mapping[str, Setup], clips: int) -> dict[str, Any]:
    """PSNR and SSIM of the networks that are trained, printed as well."""
    none = {"psnr_db": None, "psnr_db_least": None, "ssim": None, "clips": 0, "reason": RANDOM}
    found: dict[str, Any] = {}
    for name, setup in ours.items():
        if setup.folder is None:
            found[name] = {"footage": none, "encode": none}
        else:
            coder = build(setup)
            assert isinstance(coder, Ours)
            found[name] = figures(coder, clips)
        found[wan_of(name)] = {"footage": none, "encode": none}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the networks to come need the device for themselves
    rows = [
        [f"{name}, {kind}", row["psnr_db"], row["psnr_db_least"], row["ssim"], row["reason"]]
        for name, by_kind in found.items()
        for kind, row in by_kind.items()
    ]
    print_table(
        f"Quality, {clips} unseen clips", ["", "PSNR dB", "least of a clip", "SSIM", "reason for none"], rows
    )
    return found


if __name__ == "__main__":
    main()
