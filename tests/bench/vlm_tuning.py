"""LoRA on a tiny vision-language model: from chance to the world's attributes.

    OMP_NUM_THREADS=1 python -m tests.bench.vlm_tuning --out runs/vlm --json out.json

A LLaVA-OneVision of about a million random weights, saved in the hub's format, is tuned on short captions of the
procedural world by `recaption.vlm.tuning` and asked through the `transformers` backend, before and after, about unseen
clips. The language model stays frozen and learns in the added matrices; the vision tower, which knows nothing at the
start, is trained whole (`whole`), as is the projector behind it. Killed and started again with the same settings, it
goes on. A Qwen2.5-VL of the same size named no direction after 1,500 steps: its vision tower knows positions only by
rotation (2026-11-21).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny_vlm

from pipelines.demo.world import ATTRIBUTES, parse
from pipelines.train_captioner_world import accuracy, caption, draw_clip, unseen_clips
from recaption.captioner import CaptionRequest
from recaption.vlm.captioner import TransformersCaptioner
from recaption.vlm.config import TransformersConfig
from recaption.vlm.tuning import TuningExample, tune
from recaption.vlm.tuning_settings import VLMTuning
from tests.bench.record import machine, print_table

PROMPT = "Describe the clip."
SIDE = 64
TIMES = (0.0, 1.0)


def seen(frames: np.ndarray) -> np.ndarray:
    """The first and last of frames (T, H, W, 3) at the size that the model sees."""
    import cv2

    return np.stack([cv2.resize(frames[i], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for i in (0, -1)])


def base(folder: Path) -> Path:
    """A LLaVA-OneVision like that of the tests, with finer patches and more width."""
    import transformers as hf

    rng = np.random.default_rng(0)
    texts = [caption(draw_clip(rng, held_out=False)[0], "short", rng) for _ in range(300)]
    tokenizer = tiny_vlm._tokenizer([PROMPT, *texts * 4])
    words = tiny_vlm._words(tokenizer) | {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.LlavaOnevisionForConditionalGeneration(
            hf.LlavaOnevisionConfig(
                text_config=hf.Qwen2Config(**words),
                vision_config=hf.SiglipVisionConfig(
                    hidden_size=128,
                    intermediate_size=256,
                    num_hidden_layers=3,
                    num_attention_heads=4,
                    patch_size=8,
                    image_size=SIDE,
                    vision_use_head=False,
                ),
                image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
                video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
                image_grid_pinpoints=[[SIDE, SIDE]],
            )
        )
        with torch.no_grad():  # a frozen head of the usual tiny weights could never be sure of a word
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, 1.5 * weight[0].numel() ** -0.5)
    video, image = tiny_vlm._PLACES["llava_onevision"]
    size = {"height": SIDE, "width": SIDE}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[SIDE, SIDE]]),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // 8) ** 2,
        vision_feature_select_strategy="full",
        chat_template=tiny_vlm._TEMPLATE.replace("VIDEO", video).replace("IMAGE", image),
    )
    ends = [tiny_vlm.END, "<|endoftext|>"]
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def examples(skip: int) -> Iterator[TuningExample]:
    number = skip
    while True:
        rng = np.random.default_rng((7, number))
        scene, frames = draw_clip(rng, held_out=False)
        yield TuningExample(seen(frames), TIMES, PROMPT, caption(scene, "short", rng))
        number += 1


def judged(captioner: TransformersCaptioner, n_clips: int) -> dict[str, float]:
    """`accuracy` of captions of unseen clips of trained-on combinations; `attributes` counts the size as well."""
    clips = unseen_clips(n_clips, held_out=False)
    requests = [
        CaptionRequest(str(i), "short", seen(frames), TIMES, PROMPT) for i, (_, frames) in enumerate(clips)
    ]
    said = {result.clip_id: result.text_raw or "" for result in captioner.caption(requests)}
    texts = [said[str(i)] for i in range(len(clips))]
    hits = [
        parse(text)[name] == getattr(scene, name)
        for (scene, _), text in zip(clips, texts, strict=True)
        for name in ATTRIBUTES
    ]
    return {"attributes": float(np.mean(hits)), **accuracy(clips, texts)}


def spent_s(elapsed_s: list[float]) -> float:
    """Seconds of all sittings of a run, whose clock begins anew with each."""
    ends = [here for here, after in zip(elapsed_s, [*elapsed_s[1:], 0.0], strict=True) if after < here]
    return sum(ends)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()

    folder = flags.out / "base"
    if not (folder / "config.json").exists():
        base(folder)
    config = TransformersConfig(model=str(folder), max_tokens=32)
    before = judged(TransformersCaptioner(config, device=flags.device), flags.clips)
    settings = VLMTuning(
        str(folder),
        rank=flags.rank,
        alpha=2 * flags.rank,
        dropout=0.0,
        whole=("vision_tower", "multi_modal_projector"),
        steps=flags.steps,
        batch=flags.batch,
        lr=flags.lr,
        warmup=100,
        evaluate_every=500,
        seed=0,
    )

    def evaluate(model: Any, processor: Any) -> dict[str, float]:
        return judged(TransformersCaptioner.of(config, processor, model), flags.clips)

    def log(row: dict[str, Any]) -> None:
        if row["step"] % 50 == 0 or "accuracy" in row:
            print({name: value for name, value in row.items() if name not in ("grad_norm", "lr")}, flush=True)

    model = tune(flags.out, examples, settings, evaluate=evaluate, log=log, device=flags.device)
    rows = [json.loads(line) for line in (flags.out / "metrics.jsonl").read_text().splitlines()]
    minutes = spent_s([row["elapsed_s"] for row in rows]) / 60
    after = judged(TransformersCaptioner(TransformersConfig(model=str(model), max_tokens=32)), flags.clips)
    print_table(
        f"share of attributes that captions of {flags.clips} unseen clips name rightly",
        ["", "before", f"after {flags.steps} steps"],
        [[name, before[name], after[name]] for name in before],
    )
    if flags.json:
        told = {**machine(), "settings": vars(flags) | {"json": None, "out": None}, "minutes": minutes}
        flags.json.write_text(json.dumps(told | {"before": before, "after": after}, indent=2) + "\n")


if __name__ == "__main__":
    main()
