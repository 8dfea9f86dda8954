"""A frozen dataclass becomes a command line: flags, a YAML file, overrides, `--help` and one-line errors.

    def main(argv: list[str] | None = None) -> int:
        return run_command(CurateConfig, curate, argv, name="curate")

`reelmill curate --config FILE.yaml --split.threshold=30` reads the file, then applies the override. This is
the only file that knows jsonargparse.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import jsonargparse
import yaml

from curate.errors import BadInput

Config = TypeVar("Config")
BAD_INPUT, INTERRUPTED = 2, 130
_OWN_FLAGS = ("config", "print_config", "help")


class _Format(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps our paragraphs; types and defaults come from jsonargparse."""


def run_command(
    config_class: type[Config],
    function: Callable[[Config], int | None],
    argv: list[str] | None = None,
    *,
    name: str,
    positional: str | None = None,
) -> int:
    """Read the command line into `config_class`, call `function` with it and return the exit code.

    `positional` names an optional string field that is given without a flag (the SQL of `query`). Input that
    a person can mend (BadInput) is one line on stderr and exit code 2; other exceptions keep their traceback.
    """
    try:
        config = parse(config_class, argv, name=name, positional=positional)
        return function(config) or 0
    except SystemExit as done:  # --help and --print_config
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        print(f"reelmill {name}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        cause = _bad_input(error)
        if cause is None:
            raise
        print(f"reelmill {name}: error: {' '.join(str(cause).split())}", file=sys.stderr)
        return BAD_INPUT


def _bad_input(error: BaseException) -> BaseException | None:
    """The BadInput in `error`, also where Ray brought it from a worker; None for every other error."""
    # model.errors is looked up, never imported: if it was not imported, nobody can have raised from it.
    kinds = tuple(
        sys.modules[module].BadInput
        for module in ("curate.errors", "model.errors")
        if hasattr(sys.modules.get(module), "BadInput")
    )
    if not isinstance(error, kinds):
        return None
    cause = getattr(error, "cause", None)  # ray.exceptions.RayTaskError
    return cause if isinstance(cause, kinds) else error


def parse(
    config_class: type[Config], argv: list[str] | None = None, *, name: str, positional: str | None = None
) -> Config:
    """The configuration that a command line asks for. Raises BadInput, or SystemExit after --help."""
    args = _spelled(config_class, list(sys.argv[1:] if argv is None else argv))
    parser = build_parser(config_class, name=name, positional=positional)
    try:
        found = parser.parse_args(args)
        built = parser.instantiate(found)
    except argparse.ArgumentError as error:
        raise BadInput(_explain(config_class, name, str(error))) from error
    except ValueError as error:  # a dataclass that refuses its values
        raise BadInput(str(error)) from error
    return config_class(**{field.name: built[field.name] for field in _fields(config_class)})


def build_parser(
    config_class: type, *, name: str, positional: str | None = None
) -> jsonargparse.ArgumentParser:
    """The parser behind a command; every field is a flag with its documentation, type and default."""
    doc = docstring_parser.parse(config_class.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    told = [text for text in (doc.short_description, doc.long_description) if text]
    required = [
        field.name
        for field in _fields(config_class)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    flags = " ".join(f"--{key} {key.upper()}" for key in required if key != positional)
    usage = " ".join(filter(None, [f"reelmill {name}", flags, "[options]"]))
    usage += f" [{positional.upper()}]" if positional else ""
    examples = [e.description for e in doc.examples if e.description] or [
        " ".join([f"reelmill {name}", flags])
    ]
    parser = jsonargparse.ArgumentParser(
        prog=f"reelmill {name}",
        usage=usage,
        description="\n\n".join(textwrap.fill(" ".join(text.split()), 100) for text in told),
        epilog="example:\n"
        + textwrap.indent("\n".join(textwrap.dedent(text).strip() for text in examples), "  ")
        + "\n\nOptions may also stand in a YAML file: `--print_config > my.yaml` writes one with\n"
        "every value, `--config my.yaml` reads it, and flags given after it override it.",
        formatter_class=_Format,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file to read options from.")
    if positional is not None:
        text = next((p.description for p in doc.params if p.arg_name == positional), "")
        parser.add_argument(positional, nargs="?", type=str, help=text)
    parser.add_class_arguments(config_class, as_group=False, skip={positional} if positional else None)
    for action in parser._actions:
        if action.dest == "print_config":
            action.help = "Print every option with its value as YAML, and exit."
        elif type(action).__name__ in ("_ActionConfigLoad", "_ActionHelpClassPath"):
            action.help = argparse.SUPPRESS  # a nested dataclass as a whole: its fields are listed
    return parser


def keys(config_class: type, prefix: str = "") -> dict[str, Any]:
    """Every right key, dotted, with its type: `{"split": Split, "split.threshold": float, ...}`."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(config_class)
    for field in _fields(config_class):
        key = prefix + field.name
        found[key] = hints[field.name]
        for part in _parts(hints[field.name]):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                found |= keys(part, f"{key}.")
    return found


def nearest(wrong: str, right: list[str]) -> str:
    """The spelling among `right` closest to `wrong`; for dotted keys the last part alone may match too."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, wrong, candidate).ratio()
        leaf = difflib.SequenceMatcher(None, wrong.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return max(whole, leaf) + whole / 100

    return max(right, key=likeness)


def _fields(config_class: Any) -> tuple[dataclasses.Field, ...]:
    return tuple(field for field in dataclasses.fields(config_class) if field.init)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _spelled(config_class: type, args: list[str]) -> list[str]:
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
        if key not in known and key.replace("-", "_") in known | dict.fromkeys(_OWN_FLAGS):
            key = key.replace("-", "_")
        if key not in known and key not in _OWN_FLAGS and not _below_dict(key, known):
            right = nearest(key, [*known, *_OWN_FLAGS])
            raise BadInput(f"there is no option --{key}; the nearest is --{right}.")
        following = value if equals else args[place + 1] if place + 1 < len(args) else ""
        if bool in _parts(known.get(key)) and not equals and (not following or following.startswith("--")):
            equals, value = "=", "true"
        spelled.append(f"--{key}{'+' if flag.endswith('+') else ''}{equals}{value}")
        if key == "config" and Path(following).is_file():
            _check(_yaml(Path(following).read_text(encoding="utf-8")), known, "", following)
        elif key in known and following.startswith("{"):
            _check(_yaml(following), known, f"{key}.", f"--{key}")
    return spelled


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
            raise BadInput(
                f"{where} has no use for the key {key!r}; the nearest is {nearest(key, [*known])!r}."
            )
        _check(value, known, f"{key}.", where)


def _items(values: Any) -> Iterator[tuple[Any, Any]]:
    return iter(values.items()) if isinstance(values, dict) else iter(())


def _below_dict(key: str, known: dict[str, Any]) -> bool:
    """True for `metadata.title` where the field `metadata` is a dict and takes any key."""
    above = [key[:place] for place, letter in enumerate(key) if letter == "."]
    return any((typing.get_origin(p) or p) is dict for name in above for p in _parts(known.get(name)))


def _explain(config_class: type, name: str, message: str) -> str:
    """jsonargparse's message in one line that names the flag, the value and what would be right."""
    if missing := re.match(r"the following arguments are required: (.*)", message):
        flags = ", ".join(f"--{key.strip()}" for key in missing[1].split(","))
        return f"{flags} must be given (`reelmill {name} --help` tells what they are)."
    if stray := re.match(r"unrecognized arguments: (.*)", message):
        return f"{stray[1]!r} belongs to no option; write options as --name=value."
    key = re.match(r'Parser key "(.+?)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    hint = keys(config_class).get(key[1]) if key else None
    if key is None or value is None or hint is None:
        return re.sub(r'^Parser key "(.+?)":', r"--\1:", message).rstrip(".") + "."
    choices = [str(c) for part in _parts(hint) for c in typing.get_args(part) if _is_literal(part)]
    if choices:
        near = nearest(value[1], choices)
        return f"--{key[1]}={value[1]} is none of {', '.join(choices)}; the nearest is {near}."
    wanted = " or ".join("null" if p is type(None) else _type_name(p) for p in _parts(hint))
    listed = any(typing.get_origin(part) in (list, tuple) for part in _parts(hint))
    remedy = f" Write a list in brackets: --{key[1]}=[A,B]." if listed else ""
    return f"--{key[1]}={value[1]} is not {wanted}.{remedy}"


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint) or (f"a {hint.__name__}" if isinstance(hint, type) else str(hint))
