"""From a request to the tensors of a vision-language model, alone and in a batch.

    rows = [Row(request, tokenized(request, processor)) for request in requests]
    inputs = collated(rows, pad_id)                 # of rows with equal `layout`

The frames of a request go in as they are, with their real times; the processor neither drops nor adds moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from recaption.captioner import CaptionRequest

#: Inputs that run along the prompt, and what fills them on the left. `input_ids` take the padding token.
ALONG_PROMPT = {"attention_mask": 0, "mm_token_type_ids": 0, "token_type_ids": 0}
TICKS_PER_S = 1000  # frame times are told to the processor in whole milliseconds


@dataclass(frozen=True, eq=False)
class Row:
    """A request as a model takes it.

    Attributes:
        request: what is asked.
        inputs: tensors for this request alone; `input_ids` is (1, n_tokens), others begin with an axis of clips
            (LLaVA-OneVision, SmolVLM2) or patches (Qwen).
    """

    request: CaptionRequest
    inputs: dict[str, torch.Tensor]

    @property
    def n_tokens(self) -> int:
        """Length of the prompt, frames included."""
        return self.inputs["input_ids"].shape[1]

    @property
    def layout(self) -> tuple[tuple[str, torch.Size], ...]:
        """What rows of a batch must share: which inputs there are, and the shapes of what is not text."""
        return tuple(
            (name, value.shape[1:])
            for name, value in sorted(self.inputs.items())
            if name != "input_ids" and name not in ALONG_PROMPT
        )


def tokenized(request: CaptionRequest, processor: Any) -> dict[str, torch.Tensor]:
    """The inputs of one request. Raises ValueError for frames that are no frames."""
    content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
    options: dict[str, Any] = {}
    if len(request.frames):
        frames, times_s = _distinct(request)
        step = getattr(processor.video_processor, "temporal_patch_size", 1) or 1
        missing = -len(frames) % step
        # The last frame stands on: not every processor knows what to do with what is left over.
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        content.insert(0, {"type": "video", "video": frames})
        options = {
            "do_sample_frames": False,
            "video_metadata": [_metadata(times_s, missing, frames.shape)],
        }
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        sanitize_control_tokens=True,  # a prompt may quote the captions of strangers
        processor_kwargs=options,
    )
    return dict(inputs)


def collated(rows: list[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """The inputs of a batch: prompts padded on the left, (N, longest), and frames one after the other."""
    longest = max(row.n_tokens for row in rows)
    fill = ALONG_PROMPT | {"input_ids": pad_id}
    batch = {}
    for name in rows[0].inputs:
        parts = [row.inputs[name] for row in rows]
        if name in fill:
            parts = [
                torch.nn.functional.pad(part, (longest - part.shape[1], 0), value=fill[name])
                for part in parts
            ]
        batch[name] = torch.cat(parts)
    return batch


def _distinct(request: CaptionRequest) -> tuple[np.ndarray, list[float]]:
    """Frames and their times in seconds from the first; of frames with the same time, one. Raises ValueError."""
    frames, times_s = request.frames, request.frame_times_s
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (T, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    if len(times_s) != len(frames):
        raise ValueError(f"{len(frames)} frames with {len(times_s)} frame times")
    if any(later < earlier for earlier, later in pairwise(times_s)):
        raise ValueError(f"frame times must ascend, not {times_s}")
    kept = [0] + [place for place in range(1, len(times_s)) if times_s[place] > times_s[place - 1]]
    return frames[kept], [times_s[place] - times_s[0] for place in kept]


def _metadata(times_s: list[float], repeats: int, shape: tuple[int, ...]) -> VideoMetadata:
    """The times, as a video of a tick per millisecond from which the frames were picked.

    Processors read either the time of each frame (Qwen3-VL and SmolVLM2 write it into the prompt) or the mean
    rate of the frames (Qwen2.5-VL spaces its temporal positions by it): both are right here. `repeats` counts the
    copies of the last frame.
    """
    step_s = times_s[-1] / (len(times_s) - 1) if len(times_s) > 1 else 1.0  # one frame alone has no rate
    ticks = [round(time_s * TICKS_PER_S) for time_s in times_s]
    n_frames = len(ticks) + repeats
    return VideoMetadata(
        total_num_frames=max(1, round(n_frames * step_s * TICKS_PER_S)),
        fps=float(TICKS_PER_S),
        width=shape[2],
        height=shape[1],
        duration=len(ticks) * step_s,
        frames_indices=[*ticks, *ticks[-1:] * repeats],
    )
