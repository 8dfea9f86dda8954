"""Settings of the `transformers` backend, apart from its code: `--help` reads this without loading torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from curate.errors import BadInput
from recaption.captioner import CaptionerIdentity
from recaption.vlm.ranges import at_least_one, not_negative

#: Files of a model's folder that decide its words: settings, tokenizer, chat template, weights.
SUFFIXES = (".json", ".jinja", ".model", ".safetensors", ".txt")


@dataclass(frozen=True)
class TransformersConfig:
    """Which model is loaded into the worker, and how it is asked.

    Attributes:
        model: a folder in the hub's format, or hf:ORG/NAME.
        revision: revision on the hub (a commit, for captions that can be made again); folders have none.
        max_tokens: longest answer in tokens.
        temperature: of the sampling; 0 takes the likeliest token.
        frames: most frames of each clip; short clips give the ones they have.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        batch_clips: most clips that are captioned together.
        batch_tokens: most tokens of a batch, padding and answers at full length included; bounds its memory.
    """

    model: str = ""
    revision: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    frames: int = 8
    frame_height: int = 480
    batch_clips: int = 16
    batch_tokens: int = 65536

    def __post_init__(self) -> None:
        at_least_one(
            "transformers",
            max_tokens=self.max_tokens,
            frames=self.frames,
            frame_height=self.frame_height,
            batch_clips=self.batch_clips,
            batch_tokens=self.batch_tokens,
        )
        not_negative("transformers", temperature=self.temperature)

    @property
    def place(self) -> str:
        """What transformers loads: the folder, or the name on the hub. Raises BadInput if it is neither."""
        if not self.model:
            raise BadInput("--captioner.transformers.model must name a model: a folder, or hf:ORG/NAME.")
        if self.model.startswith("hf:"):
            return self.model.removeprefix("hf:")
        if not Path(self.model).is_dir():
            raise BadInput(
                f"--captioner.transformers.model={self.model} is no folder; a model of the hub is "
                "written hf:ORG/NAME."
            )
        if self.revision is not None:
            raise BadInput(
                f"--captioner.transformers.revision={self.revision} is for models of the hub, and "
                f"{self.model} is a folder: leave the option out."
            )
        return self.model

    def identity(self) -> CaptionerIdentity:
        """What a caption_id knows of this backend. Device and batches do not choose the words; both stay out."""
        place = self.place
        name = place if self.model.startswith("hf:") else folder_name(place)
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return CaptionerIdentity("transformers", name, self.revision, sampling)


def folder_name(folder: str | Path) -> str:
    """TYPE-HASH: the architecture, and 12 hex digits of the contents of the files that decide the words.

    The path is not in it, so a model that moves keeps its captions. Raises BadInput if `folder` holds no model.
    """
    files = [path for path in sorted(Path(folder).iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    try:
        kind = json.loads((Path(folder) / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{folder} holds no model in the hub's format: its config.json cannot be read or has no model_type "
            f"({type(error).__name__}: {error}). Give a folder that save_pretrained wrote, or hf:ORG/NAME."
        ) from error
    digest = hashlib.blake2b(digest_size=6)
    for path in files:
        stat = path.stat()
        digest.update(
            f"{path.name}\n{stat.st_size}\n{_content(str(path), stat.st_size, stat.st_mtime_ns)}\n".encode()
        )
    return f"{kind}-{digest.hexdigest()}"


@lru_cache(maxsize=4096)
def _content(path: str, size: int, changed_ns: int) -> str:
    """Hash of a file, read once per process as long as its size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
