"""The features of prompts, a few prompts at a time, and a word about those that are too long for the text encoder.

features = encode_prompts(model.text, ["a red disc", "a star"])      # list of (L, width)
"""

from __future__ import annotations

import sys
from itertools import chain

from torch import Tensor

from model.text import TextEncoder, TransformersText
from model.text_joint import JointText

BATCH = 64  # prompts that go through the encoder together
TOLD = 3  # prompts that are cut and printed; the rest is counted


def encode_prompts(encoder: TextEncoder, prompts: list[str]) -> list[Tensor]:
    """(L, width) features of each prompt; says on stderr which ones the encoder cuts."""
    warn_of_cuts(encoder, prompts)
    batches = [prompts[first : first + BATCH] for first in range(0, len(prompts), BATCH)]
    return list(chain.from_iterable(encoder.encode(batch) for batch in batches))


def warn_of_cuts(encoder: TextEncoder, prompts: list[str]) -> None:
    """Say on stderr how many tokens of which prompts an encoder does not read."""
    for one in encoder.encoders if isinstance(encoder, JointText) else (encoder,):
        lengths = {prompt: tokens(one, prompt) for prompt in dict.fromkeys(prompts)}
        cut = [(prompt, *length) for prompt, length in lengths.items() if length and length[0] > length[1]]
        for prompt, count, most in cut[:TOLD]:
            start = prompt if len(prompt) <= 40 else f"{prompt[:40]}..."
            print(
                f"warning: the prompt {start!r} has {count} tokens, of which the text encoder reads {most}: the last "
                f"{count - most} are dropped.",
                file=sys.stderr,
            )
        if len(cut) > TOLD:
            print(f"warning: {len(cut)} prompts are too long for the text encoder.", file=sys.stderr)


def tokens(encoder: TextEncoder, text: str) -> tuple[int, int] | None:
    """Tokens of a text, those of its beginning and end included, and how many are read; null if it cannot be told."""
    tokenizer = getattr(encoder, "tokenizer", None)
    if tokenizer is None:
        return None
    if isinstance(encoder, TransformersText):
        return len(tokenizer(text, verbose=False).input_ids), encoder.max_tokens
    # Those of open_clip hold one of transformers, or are CLIP's own, which adds the first and last token later.
    inner = getattr(tokenizer, "tokenizer", None)
    count = len(tokenizer.encode(text)) + 2 if inner is None else len(inner(text, verbose=False).input_ids)
    return count, tokenizer.context_length
