"""Tunes a vision-language model on rows of (frames, prompt, caption) with LoRA, so that it captions in our manner.

    tune(Path("runs/vlm"), examples, VLMTuning(model="hf:Qwen/Qwen2.5-VL-7B-Instruct"), evaluate=..., log=print)

RUN/adapter is the adapter in peft's format; RUN/model is the model with the adapter merged into it, a folder for
`--captioner.transformers.model`. Only the caption's tokens are learnt: prompt and frames are given. Killed at any
moment and started again, a run goes on from its last checkpoint with the same numbers.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.dataset import config_hash
from curate.errors import BadInput
from recaption.captioner import CaptionRequest
from recaption.course import forget_after, learning_rate
from recaption.vlm.inputs import ALONG_PROMPT, Row, collated, tokenized
from recaption.vlm.model import end_ids, load
from recaption.vlm.tuning_settings import VLMTuning

CHECKPOINT = "checkpoint.pt"
NOT_LEARNT = -100  # the label that cross entropy passes over


@dataclass(frozen=True)
class TuningExample:
    """One row to learn from.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        times_s: seconds of each frame, ascending.
        prompt: what the captioner will be asked, as rendered.
        caption: what it is to answer.
    """

    frames: np.ndarray
    times_s: tuple[float, ...]
    prompt: str
    caption: str


def tune(
    run: Path,
    examples: Callable[[int], Iterator[TuningExample]],
    settings: VLMTuning,
    *,
    evaluate: Callable[[Any, Any], dict[str, float]],
    log: Callable[[dict[str, Any]], None],
    device: str = "cpu",
    data: str = "",
) -> Path:
    """Train, validate, and leave the tuned model in `run`/model, whose path is returned.

    `examples(skip)` yields rows without end after the first `skip`, the same ones each time, and `data` names them;
    `evaluate(model, processor)` gives the figures of a validation. bf16 on a GPU, float32 on the CPU.
    Raises BadInput for a model that cannot be loaded or has no such layers, and if `run` has other settings or data;
    FloatingPointError, naming the step, if the loss stops being a number.
    """
    run.mkdir(parents=True, exist_ok=True)
    place = settings.model.removeprefix("hf:")
    if not place:
        raise BadInput("the model to tune must be named: a folder, or hf:ORG/NAME.")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    processor, base = load(place, settings.revision, dtype)
    end = end_ids(base, processor.tokenizer)[0]
    pad = processor.tokenizer.pad_token_id if processor.tokenizer.pad_token_id is not None else end
    model = adapted(base, settings).to(device)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learnt, lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    step = _resume(run, model, optimizer, settings, data)
    stream = examples(step * settings.batch)
    began = time.monotonic()
    while step < settings.steps:
        rows = [_row(example, processor, end, settings) for example in islice(stream, settings.batch)]
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, settings)
        torch.manual_seed(settings.seed * 1_000_003 + step)  # of dropout: a resumed run drops the same
        model.train()
        optimizer.zero_grad(set_to_none=True)
        n_labels = sum(int((labels != NOT_LEARNT).sum()) for _, labels in rows)
        loss = 0.0
        for layout in dict.fromkeys(row.layout for row, _ in rows):  # clips of one shape go together
            same = [pair for pair in rows if pair[0].layout == layout]
            part = _loss(model, same, pad, device) / n_labels
            part.backward()
            loss += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(learnt, settings.grad_clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"gradient norm is {norm} at step {step}; lower the learning rate")
        optimizer.step()
        step += 1
        told: dict[str, Any] = {
            "step": step,
            "caption_loss": round(loss, 4),
            "grad_norm": round(norm, 3),
            "lr": _rate(step - 1, settings),
            "elapsed_s": round(time.monotonic() - began, 1),
        }
        if step % settings.evaluate_every == 0 or step == settings.steps:
            told |= evaluate(model.eval(), processor)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(told) + "\n")
        log(told)
        if step % settings.checkpoint_every == 0 or step == settings.steps:
            _save(run, model, optimizer, settings, data, step)
    model.save_pretrained(run / "adapter")
    merged = model.merge_and_unload()
    merged.save_pretrained(run / "model")
    processor.save_pretrained(run / "model")
    return run / "model"


def adapted(base: Any, settings: VLMTuning) -> Any:
    """The model with LoRA matrices added and all else frozen. Raises BadInput if it has no such layers."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise BadInput(f"tuning a vision-language model needs peft ({error}): pip install peft.") from error
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
        modules_to_save=list(settings.whole) or None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        try:
            return get_peft_model(base, lora)
        except ValueError as error:
            names = sorted({name.rsplit(".", 1)[-1] for name, _ in base.named_modules() if name})
            raise BadInput(
                f"targets {list(settings.targets)} or whole {list(settings.whole)} are not in the model ({error}). "
                f"Its layers are named {', '.join(names)}."
            ) from error


def _row(example: TuningExample, processor: Any, end: int, settings: VLMTuning) -> tuple[Row, torch.Tensor]:
    """A prompt with its caption behind, and the labels (1, n_tokens): the caption's tokens and the end."""
    request = CaptionRequest("", "", example.frames, example.times_s, example.prompt)
    inputs = tokenized(request, processor)
    answer = processor.tokenizer(example.caption, add_special_tokens=False)["input_ids"]
    answer = [*answer[: settings.most_tokens], *([end] if len(answer) <= settings.most_tokens else [])]
    behind = torch.tensor([answer])
    labels = torch.cat([torch.full_like(inputs["input_ids"], NOT_LEARNT), behind], dim=1)
    for name in inputs:
        if name == "input_ids":
            inputs[name] = torch.cat([inputs[name], behind], dim=1)
        elif name in ALONG_PROMPT:
            more = torch.full_like(behind, 1 if name == "attention_mask" else 0)
            inputs[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], dim=1)
    return Row(request, inputs), labels


def _loss(model: Any, rows: list[tuple[Row, torch.Tensor]], pad: int, device: str) -> torch.Tensor:
    """Sum of the cross entropies of the labels."""
    inputs = {name: value.to(device) for name, value in collated([row for row, _ in rows], pad).items()}
    longest = inputs["input_ids"].shape[1]
    labels = torch.cat(
        [torch.nn.functional.pad(one, (longest - one.shape[1], 0), value=NOT_LEARNT) for _, one in rows]
    ).to(device)
    logits = model(**inputs).logits[:, :-1].float()  # (B, L - 1, V)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NOT_LEARNT, reduction="sum"
    )


def _rate(step: int, settings: VLMTuning) -> float:
    return learning_rate(step, lr=settings.lr, warmup=settings.warmup, steps=settings.steps)


def _save(
    run: Path, model: Any, optimizer: torch.optim.Optimizer, settings: VLMTuning, data: str, step: int
) -> None:
    state = {
        "step": step,
        "settings": config_hash(settings),
        "data": data,
        "learnt": {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, run / f"{CHECKPOINT}.part")
    os.replace(run / f"{CHECKPOINT}.part", run / CHECKPOINT)


def _resume(run: Path, model: Any, optimizer: torch.optim.Optimizer, settings: VLMTuning, data: str) -> int:
    """Load the last checkpoint, if there is one; returns the steps done."""
    step = 0
    if (run / CHECKPOINT).exists():
        state = torch.load(run / CHECKPOINT, weights_only=True)
        if state["settings"] != config_hash(settings):
            raise BadInput(
                f"{run} holds a run with other settings ({asdict(settings)} are asked for now). "
                "Give another --out, or delete that folder."
            )
        if state.get("data", "") != data:
            raise BadInput(
                f"{run} holds a run that learnt from other captions, prompts or frames. Give another --out, or "
                "delete that folder."
            )
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in state["learnt"].items():
                own[name].copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    forget_after(run / "metrics.jsonl", step)
    return step
