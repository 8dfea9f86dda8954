"""Text encoders: captions -> one feature vector per token, for the cross-attention of the DiT.

    encoder = load_text_encoder("pipelines/demo/weights/coca")   # open_clip folder, or ViT-L-14/openai
    encoder = load_text_encoder("hf:google/umt5-xxl")            # transformers: T5, UMT5 or CLIP; folders too
    encoder = load_text_encoder("hf:google/umt5-xxl,ViT-L-14/openai")     # several at once, see model/text_joint.py
    features = encoder.encode(["a red disc", "a star"])          # list of (L, encoder.width), float32

A text's features have its own length, end token included, and do not depend on the texts encoded with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.errors import BadInput
from model.text_joint import JointText


class TextEncoder(Protocol):
    """What the rest of the code needs of a text encoder.

    Attributes:
        name: what `load_text_encoder` was given; it loads the same encoder again.
        width: features per token.
        causal: a token's features depend on it and the tokens before it alone, so that those of a text's beginning
            are the beginning of its features.
    """

    name: str
    width: int
    causal: bool

    def encode(self, texts: list[str]) -> list[Tensor]:
        """Features of each text, (L, width) float32 on the CPU; texts beyond the context are cut at it."""
        ...


class OpenClipText:
    """The text tower of an open_clip model, CoCa included: the hidden states behind its last layer norm."""

    def __init__(self, tower: Any, tokenizer: Any, name: str, device: str = "cpu") -> None:
        """`tower` is an open_clip TextTransformer, or a CLIP, which holds the same parts itself."""
        self.name, self.device = name, device
        self.tower, self.tokenizer = tower.eval().requires_grad_(False).to(device), tokenizer
        self.width = int(tower.token_embedding.weight.shape[1])
        self.causal = tower.attn_mask is not None

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> list[Tensor]:
        if not texts:
            return []
        tower, lengths = self.tower, self._lengths(ids := self.tokenizer(texts))
        ids = ids[:, : max(lengths)].to(self.device)  # (B, L)
        length = ids.shape[1]
        mask = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]  # (B, L, width)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask)).float().cpu()
        return [row[:n].clone() for row, n in zip(x, lengths, strict=True)]

    def _lengths(self, ids: Tensor) -> list[int]:
        """Tokens of each text up to its end token. Attention is causal, so what follows changes nothing."""
        if not self.causal:  # a tower that attends both ways was trained on its whole context
            return [ids.shape[1]] * len(ids)
        prefix = "" if hasattr(self.tower, "pool_type") else "text_"  # a CLIP holds its tower's parts
        pool, end_id = getattr(self.tower, f"{prefix}pool_type"), getattr(self.tower, f"{prefix}eos_id")
        # OpenAI's vocabulary ends with the end token, so its id is the largest; others name it.
        last = torch.full_like(ids[:, :1], end_id) if pool == "eos" else ids.amax(dim=1, keepdim=True)
        return [int(end) + 1 for end in torch.eq(ids, last).int().argmax(dim=1)]


class TransformersText:
    """A T5, UMT5 or CLIP text encoder of transformers: its last hidden states."""

    def __init__(
        self, model: Any, tokenizer: Any, name: str, max_tokens: int = 512, device: str = "cpu"
    ) -> None:
        self.name, self.device = name, device
        self.model, self.tokenizer = model.eval().requires_grad_(False).to(device), tokenizer
        self.width = int(model.config.hidden_size)
        self.causal = model.config.model_type.startswith("clip")
        # CLIP has learned positions and ends there; T5's are relative, Wan 2.1 cuts at 512.
        self.max_tokens = min(max_tokens, getattr(model.config, "max_position_embeddings", max_tokens))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> list[Tensor]:
        if not texts:
            return []
        found = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        x = self.model(input_ids=found.input_ids, attention_mask=found.attention_mask).last_hidden_state
        return [row[mask.bool()].float().cpu() for row, mask in zip(x, found.attention_mask, strict=True)]


def load_text_encoder(name: str | Sequence[str], device: str = "cpu") -> TextEncoder:
    """The encoder called `name`: a folder (open_clip's or transformers' format), `ARCH/TAG` or `hf:ORG/NAME`.

    Several names, in a list or with commas between them, give one encoder with the features of all, a JointText.
    Raises BadInput, with the remedy, if one cannot be had.
    """
    encoders = [_load(one, device) for one in encoder_names(name)]
    return encoders[0] if len(encoders) == 1 else JointText(encoders)


def encoder_names(name: str | Sequence[str]) -> list[str]:
    """The names in a list or in a text with commas; a folder may have a comma in its name. Raises BadInput."""
    if isinstance(name, str):
        name = [name] if Path(name).is_dir() else name.split(",")
    names = [one.strip() for one in name]
    if not names or not all(names):
        raise BadInput(f"text encoders {','.join(names)!r}: a name is empty. Write them as A,B.")
    return names


def _load(name: str, device: str) -> TextEncoder:
    folder = Path(name)
    try:
        if name.startswith("hf:"):
            return _from_transformers(name.removeprefix("hf:"), name, device)
        if (folder / "open_clip_config.json").is_file():
            return _from_open_clip(f"local-dir:{folder.resolve()}", None, name, device)
        if (folder / "config.json").is_file():
            return _from_transformers(str(folder), name, device)
        if name.count("/") == 1 and not folder.is_dir() and not name.startswith((".", "/", "~")):
            arch, tag = name.split("/")
            return _from_open_clip(arch, tag, name, device)
    except BadInput:
        raise
    except Exception as error:  # open_clip, transformers and the hub raise many kinds; one meaning here
        raise BadInput(
            f"text encoder {name!r} could not be loaded ({type(error).__name__}: {error}). On a machine "
            "without the hub, give a folder that holds the model."
        ) from error
    raise BadInput(
        f"text encoder {name!r} is no folder with open_clip_config.json or config.json, nor an open_clip "
        "name such as ViT-L-14/openai, nor hf:ORG/NAME. Give one of these."
    )


def _from_open_clip(model_name: str, tag: str | None, name: str, device: str) -> OpenClipText:
    import open_clip

    if not model_name.startswith("local-dir:") and model_name not in open_clip.list_models():
        raise BadInput(
            f"text encoder {name!r}: open_clip has no architecture {model_name!r}, and there is no such "
            "folder here. Give a folder, an open_clip ARCH/TAG, or hf:ORG/NAME."
        )
    root = logging.getLogger()
    before = root.level
    root.setLevel(max(logging.WARNING, before))  # open_clip reports each of its steps there
    try:
        model: Any = open_clip.create_model(model_name, pretrained=tag)
        tokenizer = open_clip.get_tokenizer(model_name)
    finally:
        root.setLevel(before)
    tower: nn.Module = getattr(model, "text", model)
    if not hasattr(tower, "token_embedding"):
        raise BadInput(
            f"text encoder {name!r} wraps a {type(tower).__name__}; give that model itself as hf:ORG/NAME."
        )
    return OpenClipText(tower, tokenizer, name, device)


def _from_transformers(source: str, name: str, device: str) -> TransformersText:
    from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel, UMT5EncoderModel

    kinds: dict[str, Any] = {
        "t5": T5EncoderModel,
        "umt5": UMT5EncoderModel,
        "clip": CLIPTextModel,
        "clip_text_model": CLIPTextModel,
    }
    kind = AutoConfig.from_pretrained(source).model_type
    if kind not in kinds:
        raise BadInput(f"text encoder {name!r} is a {kind} model; known are {', '.join(sorted(kinds))}.")
    model = kinds[kind].from_pretrained(source, dtype=torch.float32)
    return TransformersText(model, AutoTokenizer.from_pretrained(source), name, device=device)
