"""Prompts by kind: versioned files, filled in with facts of the clip, hashed as they were sent.

    prompt = render("dense", n_frames=8, duration_s=2.4)
    prompt.prompt_id, prompt.prompt_hash        # "dense.v1", 16 hex digits
    prompt = render("dense", ..., folder="my/prompts")

A file is called KIND.vN.txt; the highest N of a kind is used. `$n_frames` and `$duration` are filled in. A
changed prompt changes the hash, and with it the caption_id: exactly its captions are generated again.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from curate.errors import BadInput

_OURS = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        prompt_id: name and version of the file.
        text: what is sent.
        prompt_hash: 16 hex digits of the hash of `text`.
    """

    prompt_id: str
    text: str

    @property
    def prompt_hash(self) -> str:
        return hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()


def render(kind: str, *, n_frames: int, duration_s: float, folder: str | None = None) -> Prompt:
    """The newest prompt of `kind`, filled in. Raises BadInput if there is none or it asks for unknown facts."""
    prompt_id, template = _newest(kind, str(folder or _OURS))
    try:
        text = string.Template(template).substitute(n_frames=n_frames, duration=f"{duration_s:.1f}")
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"prompt {prompt_id} asks for {error}; only $n_frames and $duration are filled in ($$ is a dollar)."
        ) from error
    return Prompt(prompt_id, text)


@cache
def _newest(kind: str, folder: str) -> tuple[str, str]:
    versions = {
        int(found[1]): path
        for path in Path(folder).glob("*.txt")
        if (found := re.fullmatch(rf"{re.escape(kind)}\.v(\d+)\.txt", path.name))
    }
    if not versions:
        kinds = sorted({path.name.split(".")[0] for path in Path(folder).glob("*.v*.txt")})
        raise BadInput(
            f"no prompt for captions of kind {kind!r} in {folder} (there: {', '.join(kinds) or 'none'}); "
            f"write {kind}.v1.txt there."
        )
    path = versions[max(versions)]
    return path.stem, path.read_text(encoding="utf-8").strip()
