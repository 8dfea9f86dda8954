"""The tiny trained weights that ship with the code; they know the procedural world and nothing else.

embedded("coca")    # a folder in open_clip's format: captioner, CLIP and text encoder in one
embedded("vae")     # config.json and model.safetensors
"""

from __future__ import annotations

from pathlib import Path

from curate.errors import BadInput


def embedded(name: str) -> Path:
    """Folder of the embedded weights `name`. Raises BadInput if there are none of that name."""
    folder = Path(__file__).parent / name
    if not folder.is_dir():
        here = sorted(path.parent.name for path in Path(__file__).parent.glob("*/README.md"))
        raise BadInput(
            f"there are no embedded weights called {name!r}; there are: {', '.join(here) or 'none'}."
        )
    return folder
