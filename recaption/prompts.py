"""Prompts by kind: versioned files, filled in with facts of the clip, hashed as they were sent.

    template = newest("dense")                        # or newest("dense", folder="my/prompts")
    prompt = template.render(n_frames=8, duration_s=2.4)
    prompt.prompt_id, prompt.prompt_hash              # "dense.v1", 16 hex digits

A file is called KIND.vN.txt; the highest N of a kind is used. `$n_frames`, `$duration` (seconds), `$facts` (what
was measured), `$window` of `$n_windows` and, for captions made from others, `$captions` are filled in. A changed
prompt changes the hash, and with it the caption_id: exactly its captions are generated again.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.errors import BadInput

OURS = Path(__file__).parent / "prompts"
#: Stands in a rendered prompt where the texts of other captions will come, once they are there.
CAPTIONS_HERE = "$captions"
#: Stands there for the number of frames, where nobody knows it before the file is opened (keyframes).
FRAMES_HERE = "$n_frames"


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        prompt_id: name and version of the file.
        text: what is sent.
    """

    prompt_id: str
    text: str

    @property
    def prompt_hash(self) -> str:
        """16 hex digits of the hash of `text`."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()

    def with_frames(self, count: int) -> Prompt:
        """The prompt with the number of frames where FRAMES_HERE stands."""
        return Prompt(self.prompt_id, self.text.replace(FRAMES_HERE, str(count)))

    def with_captions(self, texts: Sequence[str]) -> Prompt:
        """The prompt with `texts`, numbered if there are several, where CAPTIONS_HERE stands."""
        told = texts[0] if len(texts) == 1 else "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))
        return Prompt(self.prompt_id, self.text.replace(CAPTIONS_HERE, told))


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt before a clip is known.

    Attributes:
        prompt_id: name and version of the file.
        text: with `$n_frames`, `$duration` and the like where they belong; `$$` is a dollar. A line that is
            empty once filled in goes.
    """

    prompt_id: str
    text: str

    @property
    def tells_duration(self) -> bool:
        """Whether the length of the clip has a place of its own, outside `$facts`."""
        return "duration" in string.Template(self.text).get_identifiers()

    def render(
        self,
        *,
        n_frames: int | None,
        duration_s: float,
        facts: str = "",
        window: int = 1,
        n_windows: int = 1,
        captions: str = "",
    ) -> Prompt:
        """Fill in the facts; a null `n_frames` stays open as FRAMES_HERE. Raises BadInput if others are asked for."""
        known = {
            "n_frames": FRAMES_HERE if n_frames is None else n_frames,
            "duration": f"{duration_s:.1f}",
            "facts": facts,
            "window": window,
            "n_windows": n_windows,
            "captions": captions,
        }
        try:
            text = string.Template(self.text).substitute(known)
        except (KeyError, ValueError) as error:
            raise BadInput(
                f"prompt {self.prompt_id} asks for {error}; only {', '.join(f'${name}' for name in known)} are "
                "filled in (write $$ for a dollar)."
            ) from error
        return Prompt(self.prompt_id, "\n".join(line for line in text.splitlines() if line.strip()))


def newest(kind: str, folder: str | Path | None = None) -> PromptTemplate:
    """The prompt of `kind` with the highest version in `folder` (ours by default). Raises BadInput if none."""
    folder = Path(folder or OURS)
    versions = {
        int(found[1]): path
        for path in folder.glob("*.txt")
        if (found := re.fullmatch(rf"{re.escape(kind)}\.v(\d+)\.txt", path.name))
    }
    if not versions:
        kinds = sorted({path.name.split(".")[0] for path in folder.glob("*.v*.txt")})
        raise BadInput(
            f"no prompt for captions of kind {kind!r} in {folder} (there: {', '.join(kinds) or 'none'}); "
            f"write {kind}.v1.txt there."
        )
    path = versions[max(versions)]
    return PromptTemplate(path.stem, path.read_text(encoding="utf-8").strip())
