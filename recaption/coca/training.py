"""Training of the CoCa captioner: next-word loss on captions plus the contrastive loss of its two towers.

    model = train(Path("runs/coca"), tokenizer, examples, settings, evaluate=figures, log=print)
    model = train(Path("runs/ssc"), tokenizer, examples, from_that, stage="ssc", evaluate=figures, log=print)

The data are any examples (frames with captions by kind), numbered; the procedural world is one source of them.
Killed at any moment and started again, a run goes on from its last checkpoint with the same numbers.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from curate.dataset import config_hash
from curate.errors import BadInput
from recaption.coca import model as coca
from recaption.coca.settings import CocaTraining, Course, Stage
from recaption.coca.start import start
from recaption.coca.tokenizer import END, KIND_TOKENS, PAD_ID, SPECIAL, START, UNKNOWN, words
from recaption.course import forget_after, learning_rate

if TYPE_CHECKING:
    from open_clip import CoCa
    from transformers import PreTrainedTokenizerBase

CHECKPOINT = "checkpoint.pt"
UNKNOWN_ID = SPECIAL.index(UNKNOWN)
#: What every row of metrics.jsonl holds; the other columns come from `evaluate`.
STEP_FIGURES = ("step", "kind", "caption_loss", "contrastive_loss", "grad_norm", "lr", "elapsed_s")


@dataclass(frozen=True)
class Example:
    """What the captioner learns from.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, any T; T = 1 is a still image, whose captions must be free of motion.
        captions: text by kind; every example of a run has the same kinds.
        name: tells which one it is where something goes wrong, such as the clip_id.
    """

    frames: np.ndarray
    captions: dict[str, str]
    name: str = ""


def draw_kind(rng: np.random.Generator, step: int, course: Course) -> str:
    """The kind of caption that a step learns from."""
    shares = {kind: share for kind, share in course.kind_shares.items() if share > 0}
    if step < course.dense_from * course.steps:
        shares = {kind: share for kind, share in shares.items() if kind != "dense"} or shares
    weights = np.array(list(shares.values()))
    return list(shares)[rng.choice(len(shares), p=weights / weights.sum())]


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], kind: str | None, context_length: int
) -> torch.Tensor:
    """Token ids (B, L), L the longest text: `<s> [<kind>] words </s>`, padded behind."""
    head = [START] if kind is None else [START, KIND_TOKENS[kind]]
    rows: list[Any] = [
        tokenizer.convert_tokens_to_ids([*head, *words(text)[: context_length - len(head) - 1], END])
        for text in texts
    ]
    ids = torch.full((len(rows), max(map(len, rows))), PAD_ID)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return ids


def losses(
    model: CoCa,
    images: torch.Tensor,
    ids: torch.Tensor,
    texts: list[str],
    settings: CocaTraining,
    *,
    skip: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(caption loss per token, contrastive loss); the first `skip` labels are a prompt and not learnt.

    Neither is the token for unknown words, which no caption may hold. Equal texts in a batch are not held
    against each other: their examples share the target.
    """
    # On short sequences the CPU's flash kernel takes half of the whole step; plain matrix products do not.
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        found = coca.forward(model, images, ids)
    labels = ids[:, 1:].clone()  # (B, L - 1)
    labels[:, :skip] = PAD_ID
    labels[labels == UNKNOWN_ID] = PAD_ID
    caption = F.cross_entropy(found["logits"].float().flatten(0, 1), labels.flatten(), ignore_index=PAD_ID)
    scale = model.logit_scale.clamp(max=math.log(100)).exp()
    likeness = scale * found["image_features"].float() @ found["text_features"].float().T  # (B, B)
    same = torch.tensor([[float(a == b) for b in texts] for a in texts])
    target = same / same.sum(dim=1, keepdim=True)
    contrastive = (F.cross_entropy(likeness, target) + F.cross_entropy(likeness.T, target)) / 2
    return caption, contrastive


def train(
    run: Path,
    tokenizer: PreTrainedTokenizerBase,
    examples: Callable[[int], Iterator[Example]],
    settings: CocaTraining,
    *,
    stage: Stage = "base",
    evaluate: Callable[[CoCa], Mapping[str, float | None]],
    log: Callable[[dict[str, Any]], None],
    data: str = "",
) -> CoCa:
    """Train, validate, and leave the finished folder in `run`/model.

    `examples(skip)` yields examples without end, beginning after the first `skip`; the same ones each time.
    `data` names what the examples are, by a hash. `run` also gets metrics.jsonl and checkpoint.pt. Raises BadInput
    if `run` was begun with other settings or data, or when a loss or the gradient is not finite.
    """
    course = settings.course(stage)
    run.mkdir(parents=True, exist_ok=True)
    model = start(tokenizer, settings)
    optimizer = _optimizer(model, settings)
    asked = config_hash([asdict(settings), stage, asdict(course), data])
    step = _resume(run, model, optimizer, asked)
    stream = examples(step * settings.batch)
    began = time.monotonic()
    while step < course.steps:
        rng = np.random.default_rng((settings.seed, step))
        kind = draw_kind(rng, step, course)
        prompted = kind in KIND_TOKENS and rng.random() >= settings.bare_share
        batch = list(islice(stream, settings.batch))
        texts = [example.captions[kind] for example in batch]
        ids = encode(tokenizer, texts, kind if prompted else None, settings.size.context_length)
        images = coca.prepare([example.frames for example in batch], model)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, lr=course.lr, warmup=course.warmup, steps=course.steps)
        caption, contrastive = losses(model, images, ids, texts, settings, skip=int(prompted))
        loss = caption * (kind in KIND_TOKENS) + settings.contrastive_weight * contrastive
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        if not (loss.isfinite() and norm.isfinite()):
            raise BadInput(
                f"step {step + 1}: caption loss {caption.item()}, contrastive loss {contrastive.item()}, gradient "
                f"norm {norm.item()}, on {kind} captions of {_told(batch, step * settings.batch)}. Look at these; "
                "if there is nothing about them, lower --training.lr and give another --out."
            )
        optimizer.step()
        step += 1

        row: dict[str, Any] = {
            "step": step,
            "kind": kind,
            # Original captions train the towers alone: what the decoder makes of them is no loss.
            "caption_loss": round(caption.item(), 4) if kind in KIND_TOKENS else None,
            "contrastive_loss": round(contrastive.item(), 4),
            "grad_norm": round(norm.item(), 3),
            "lr": learning_rate(step - 1, lr=course.lr, warmup=course.warmup, steps=course.steps),
            "elapsed_s": round(time.monotonic() - began, 1),
        }
        if step % settings.evaluate_every == 0 or step == course.steps:
            row |= evaluate(model.eval())
            model.train()
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        log(row)
        if step % settings.checkpoint_every == 0 or step == course.steps:
            _save(run, model, optimizer, asked, step)
    kinds = [kind for kind in KIND_TOKENS if course.kind_shares.get(kind, 0) > 0]
    config = coca.model_config(settings.size, len(tokenizer)) | {"reelmill": {"stage": stage, "kinds": kinds}}
    coca.save(run / "model", model, tokenizer, config)
    return model.eval()


def _told(batch: list[Example], first: int) -> str:
    """Which examples a batch holds: their numbers and their names."""
    names = ", ".join(example.name for example in batch if example.name)
    return f"examples {first} to {first + len(batch) - 1}" + (f" ({names})" if names else "")


def _optimizer(model: CoCa, settings: CocaTraining) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=0.0,  # set at each step
        betas=(0.9, 0.98),
        fused=True,
    )


def _save(run: Path, model: CoCa, optimizer: torch.optim.AdamW, asked: str, step: int) -> None:
    state = {
        "step": step,
        "settings": asked,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, run / f"{CHECKPOINT}.part")
    os.replace(run / f"{CHECKPOINT}.part", run / CHECKPOINT)


def _resume(run: Path, model: CoCa, optimizer: torch.optim.AdamW, asked: str) -> int:
    """Load the last checkpoint, if there is one; returns the steps done."""
    step = 0
    if (run / CHECKPOINT).exists():
        state = torch.load(run / CHECKPOINT, weights_only=True)
        if state["settings"] != asked:
            raise BadInput(
                f"{run} holds a run with other settings or data than are asked for now. Give another --out, or "
                "delete that folder."
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    forget_after(run / "metrics.jsonl", step)
    return step
