"""Folders named on a command line, for processes in other working folders and for later days."""

from __future__ import annotations

from pathlib import Path


def absolute(place: str) -> str:
    """The whole path of a folder that is there, or is written as one (./x); URIs and names of models stay."""
    if "://" in place or place.startswith("hf:") or place == "embedded":
        return place
    return str(Path(place).resolve()) if Path(place).exists() or place.startswith(".") else place
