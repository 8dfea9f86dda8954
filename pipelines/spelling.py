"""The options that a configuration has, and the right one nearest to a misspelt one.

keys(CurateConfig)                       # {"input": str, "split": Split, "split.threshold": float, ...}
check_args(CurateConfig, sys.argv[1:])   # BadInput: there is no option --inptu; the nearest is --input.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from curate.errors import BadInput

OWN_FLAGS = ("config", "print_config", "help")


def keys(config_class: type, prefix: str = "") -> dict[str, Any]:
    """Every right key, dotted, with its type: `{"split": Split, "split.threshold": float, ...}`."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(config_class)
    for field in fields(config_class):
        key = prefix + field.name
        found[key] = hints[field.name]
        for part in alternatives(hints[field.name]):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                found |= keys(part, f"{key}.")
    return found


def nearest(wrong: str, right: Iterable[str]) -> str:
    """The spelling among `right` closest to `wrong`; for dotted keys the last part alone may match too."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, wrong, candidate).ratio()
        leaf = difflib.SequenceMatcher(None, wrong.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return max(whole, leaf) + whole / 100

    return max(right, key=likeness)


def fields(config_class: Any) -> tuple[dataclasses.Field, ...]:
    """The fields of a dataclass that its constructor takes."""
    return tuple(field for field in dataclasses.fields(config_class) if field.init)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def check_args(config_class: type, args: list[str]) -> list[str]:
    """`args` with `--a-b` read as `--a_b`. Raises BadInput for an unknown flag, or key of a YAML file."""
    known = keys(config_class)
    spelled: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return spelled + args[place:]
        if not arg.startswith("--"):
            spelled.append(arg)
            continue
        flag, equals, value = arg[2:].partition("=")
        key = flag.removesuffix("+")
        if key not in known and key.replace("-", "_") in known | dict.fromkeys(OWN_FLAGS):
            key = key.replace("-", "_")
        if key not in known and key not in OWN_FLAGS and not _below_dict(key, known):
            right = nearest(key, [*known, *OWN_FLAGS])
            raise BadInput(f"there is no option --{key}; the nearest is --{right}.")
        following = value if equals else args[place + 1] if place + 1 < len(args) else ""
        is_bare = not equals and (not following or following.startswith("--"))
        if is_bare and bool in alternatives(known.get(key)):
            equals, value = "=", "true"
        spelled.append(f"--{key}{'+' if flag.endswith('+') else ''}{equals}{value}")
        if key == "config" and following:
            _check(_yaml(_text(following)), known, "", following)
        elif key in known and following.startswith("{"):
            _check(_yaml(following), known, f"{key}.", f"--{key}")
    return spelled


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the configuration file {path}: {error}.") from error


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # jsonargparse says where it is malformed


def _check(values: Any, known: dict[str, Any], prefix: str, where: str) -> None:
    """Raise BadInput if a mapping read from YAML holds a key that `known` lacks."""
    for name, value in _items(values):
        key = f"{prefix}{name}"
        if key not in known and not _below_dict(key, known):
            raise BadInput(f"{where} has no use for the key {key!r}; the nearest is {nearest(key, known)!r}.")
        _check(value, known, f"{key}.", where)


def _items(values: Any) -> Iterator[tuple[Any, Any]]:
    return iter(values.items()) if isinstance(values, dict) else iter(())


def _below_dict(key: str, known: dict[str, Any]) -> bool:
    """True for `metadata.title` where the field `metadata` is a dict and takes any key."""
    above = [key[:place] for place, letter in enumerate(key) if letter == "."]
    return any((typing.get_origin(p) or p) is dict for name in above for p in alternatives(known.get(name)))
