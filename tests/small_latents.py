"""A dataset folder with nothing but cached latents, in the format that `reelmill encode` writes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import Tensor

from model.vae import VideoVAE, save_vae, vae_id
from model.vae_config import VAEConfig
from train.caption_features import outline

CHANNELS, TEXT_WIDTH = 16, 8
VAE_ID = "tiny-4x8x8-00000000"


def random_clips(
    count: int, sizes: tuple[tuple[int, int, int], ...] = ((5, 8, 8), (5, 6, 10), (1, 8, 8))
) -> list[tuple[str, Tensor, dict[str, Tensor]]]:
    """`count` clips (clip_id, latent, features by kind of caption), sizes in turn."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            f"{number:016x}",
            torch.randn(CHANNELS, *sizes[number % len(sizes)], generator=generator),
            {
                "original": torch.randn(3, TEXT_WIDTH, generator=generator),
                "short": torch.randn(6, TEXT_WIDTH, generator=generator),
                "dense": torch.randn(20 + number % 5, TEXT_WIDTH, generator=generator),
            },
        )
        for number in range(count)
    ]


def with_sentences(
    clips: list[tuple[str, Tensor, dict[str, Tensor]]],
) -> list[tuple[str, Tensor, dict[str, Tensor]]]:
    """The same, but every other dense caption has four sentences, and every third clip a structured caption."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number, (clip_id, latent, texts) in enumerate(clips):
        more = dict(texts)
        if number % 2 == 0:
            more["dense.ends"] = torch.tensor([4, 9, 15], dtype=torch.int32)
            more["dense.stops"] = torch.randn(3, TEXT_WIDTH, generator=generator)
        if number % 3 == 0:
            for length, field in enumerate(("subject", "camera", "style", "mood"), start=3):
                more[f"structured/{field}"] = torch.randn(length, TEXT_WIDTH, generator=generator)
        found.append((clip_id, latent, more))
    return found


def random_given(clips: list[tuple[str, Tensor, dict[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    """Clip id -> two keyframes and an ending of three latent frames, but for pictures; shorter clips have less."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for clip_id, latent, _ in clips:
        channels, t, h, w = latent.shape
        if t > 1:
            at = sorted({max(1, (t - 1) // 2), t - 1})
            found[clip_id] = {
                "keyframes": torch.randn(channels, len(at), h, w, generator=generator),
                "keyframe_at": torch.tensor(at, dtype=torch.int32),
                "suffix": torch.randn(channels, min(3, t - 1), h, w, generator=generator),
            }
    return found


def write_latents(
    folder: Path,
    clips: list[tuple[str, Tensor, dict[str, Tensor]]],
    fps: float = 16.0,
    *,
    given: dict[str, dict[str, Tensor]] | None = None,
    **about: object,
) -> Path:
    """Write `clips` as latents/VAE_ID/{latents.json, index.parquet, *.tar} below `folder`, two tars.

    `given` holds what is also there by itself; null writes what `encode` wrote before there was any.
    """
    root = folder / "latents" / VAE_ID
    root.mkdir(parents=True)
    rows = []
    for part in range(2):
        shard = f"1x1_64p_1s__{part:05d}.tar"
        with tarfile.open(root / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for clip_id, latent, texts in clips[part::2]:
                kinds = sorted(outline(texts))
                own = (given or {}).get(clip_id, {})
                latent_at = _add(tar, f"{clip_id}.latent", save(_bf16({"latent": latent, **own})))
                text_at = _add(tar, f"{clip_id}.text", save(_bf16(texts))) if kinds else (None, None)
                _add(tar, f"{clip_id}.json", json.dumps({"clip_id": clip_id}).encode())
                _, t, h, w = latent.shape
                rows.append(
                    {
                        "clip_id": clip_id, "shard": shard, "latent_offset": latent_at[0],
                        "latent_size": latent_at[1], "text_offset": text_at[0], "text_size": text_at[1],
                        "t": t, "h": h, "w": w, "n_tokens": t * h * w // 4, "fps": fps,
                        "caption_kinds": kinds,
                    }
                )  # fmt: skip
                if given is not None:
                    rows[-1]["keyframe_at"] = own["keyframe_at"].tolist() if own else []
                    rows[-1]["suffix"] = own["suffix"].shape[1] if own else 0
    rows.append({**dict.fromkeys(rows[0]), "clip_id": "f" * 16})  # one that could not be encoded
    pq.write_table(pa.Table.from_pylist(rows), root / "index.parquet")
    told = {"vae_id": VAE_ID, "channels": CHANNELS, "text_encoder": "none", "text_width": TEXT_WIDTH}
    (root / "latents.json").write_text(json.dumps(told | about))
    return folder


def write_with_vae(
    folder: Path,
    vae_folder: Path,
    clips: list[tuple[str, Tensor, dict[str, Tensor]]],
    given: dict[str, dict[str, Tensor]] | None = None,
) -> Path:
    """The same as the latents of a small VAE of as many channels, which is written too: its samples can be shown."""
    torch.manual_seed(0)
    save_vae(VideoVAE(VAEConfig(name="small", widths=(8, 8, 8))), vae_folder)
    write_latents(folder, clips, given=given, vae_id=vae_id(vae_folder), vae=str(vae_folder))
    (folder / "latents" / VAE_ID).rename(folder / "latents" / vae_id(vae_folder))
    return folder


def _bf16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.bfloat16() if x.is_floating_point() else x for name, x in tensors.items()}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // 512) * 512, len(data)
