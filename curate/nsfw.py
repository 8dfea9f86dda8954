"""How likely a clip shows what should not be shown: prompts on CLIP, or a classifier of your own.

    nsfw = ZeroShot(net, tokenizer, NsfwConfig(), device).probability(features)     # inside the CLIP stage
    stage = ClassifyNsfw(NsfwConfig(classifier="hf:OWNER/NAME", label="nsfw"))      # instead, a stage of its own

A clip counts as unsafe as its worst keyframe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.errors import BadInput
from curate.keyframes import opened
from curate.sources import ANALYSED
from curate.stage import Resources


@dataclass(frozen=True)
class NsfwConfig:
    """How unsafe content is recognised.

    Attributes:
        unsafe: prompts for CLIP that describe unsafe pictures.
        safe: prompts for CLIP that describe all others.
        classifier: instead of the prompts, an image classifier of transformers: a folder, or hf:OWNER/NAME.
        label: the classifier's label whose probability is taken.
        batch: keyframes per forward pass of the classifier.
        gpus: GPUs per worker of the classifier (a fraction is fine); 0 runs on the CPU.
        actors: workers of the classifier.
    """

    unsafe: tuple[str, ...] = (
        "a photo of a naked person",
        "a pornographic picture",
        "people having sex",
        "a photo of a bloody, mutilated body",
    )
    safe: tuple[str, ...] = (
        "a photo of people in clothes",
        "a photo of a landscape",
        "a photo of a city or a building",
        "a photo of an animal",
        "a photo of an object",
        "a photo of food",
        "a picture with text",
        "a drawing or an animation",
    )
    classifier: str | None = None
    label: str = "nsfw"
    batch: int = 64
    gpus: float = 0.0
    actors: int = 1


class ZeroShot:
    """Softmax of CLIP's logits over the safe and unsafe prompts (Radford et al., 2021, section 3.1)."""

    def __init__(self, net: Any, tokenizer: Any, config: NsfwConfig, device: str = "cpu") -> None:
        """`net` and `tokenizer` as open_clip makes them. Raises BadInput when either set of prompts is empty."""
        import torch

        if not config.safe or not config.unsafe:
            raise BadInput("--nsfw.safe and --nsfw.unsafe each need at least one prompt.")
        self._n_unsafe = len(config.unsafe)
        with torch.inference_mode():
            tokens = tokenizer([*config.unsafe, *config.safe]).to(device)
            prompts = net.encode_text(tokens, normalize=True).float()
            self._directions = (net.logit_scale.exp() * prompts).cpu().numpy()  # (prompts, D)

    def probability(self, features: np.ndarray) -> float:
        """`features`: (frames, D) unit CLIP embeddings, at least one. The worst frame's probability, 0 to 1."""
        logits = features @ self._directions.T  # (frames, prompts)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return float((shares[:, : self._n_unsafe].sum(1) / shares.sum(1)).max())


class ClassifyNsfw:
    """Fill nsfw with the probability of one label of an image classifier."""

    output = ANALYSED

    def __init__(self, config: NsfwConfig) -> None:
        self.config = config
        self.resources = Resources(cpus=0, gpus=config.gpus, actors=config.actors, batch_rows=4)

    def setup(self) -> None:
        import torch

        assert self.config.classifier is not None
        self._device = "cuda" if self.config.gpus and torch.cuda.is_available() else "cpu"
        self._net, self._processor = load_classifier(self.config.classifier)
        self._net.to(self._device)
        labels = {str(name): int(i) for i, name in self._net.config.id2label.items()}
        if self.config.label not in labels:
            raise BadInput(
                f"--nsfw.label={self.config.label} is none of the labels of {self.config.classifier!r}: "
                f"{', '.join(labels)}."
            )
        self._label = labels[self.config.label]

    def __call__(self, rows: list[dict]) -> list[dict]:
        for row in rows:
            for clip, jpegs in zip(row["clips"], row["keyframes"], strict=True):
                try:
                    clip["nsfw"] = self._probability(jpegs)
                except BadInput as error:
                    clip["nsfw"] = None
                    clip["score_errors"] = [*(clip["score_errors"] or ()), ("nsfw", str(error))]
        return [{name: row[name] for name in ANALYSED.names} for row in rows]

    def _probability(self, jpegs: list[bytes]) -> float:
        import torch

        if not jpegs:
            raise BadInput("shot too short: it has no keyframe")
        images = [opened(jpeg) for jpeg in jpegs]
        worst = 0.0
        with torch.inference_mode():
            for i in range(0, len(images), self.config.batch):
                inputs = self._processor(images=images[i : i + self.config.batch], return_tensors="pt")
                logits = self._net(**inputs.to(self._device)).logits.float()  # (frames, labels)
                many = self._net.config.problem_type == "multi_label_classification"
                shares = logits.sigmoid() if many else logits.softmax(-1)
                worst = max(worst, float(shares[:, self._label].max()))
        return worst


def load_classifier(name: str) -> tuple[Any, Any]:
    """(model, image processor) of transformers, from safetensors only. Raises BadInput when they cannot be had."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    if not name.startswith("hf:") and not os.path.isdir(name):
        raise BadInput(f"--nsfw.classifier={name} is no folder; a model of the hub is written hf:OWNER/NAME.")
    place = name.removeprefix("hf:")
    try:
        # Weights in pickle could run code.
        net = AutoModelForImageClassification.from_pretrained(place, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(place)
    except Exception as error:  # transformers and the hub raise many kinds; all mean the same to the user
        raise BadInput(
            f"classifier {name!r} could not be loaded ({type(error).__name__}: {error}). Give a folder that "
            "save_pretrained wrote, with its image processor, or leave --nsfw.classifier out."
        ) from error
    return net.eval(), processor
