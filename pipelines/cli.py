"""A frozen dataclass becomes a command line: flags, a YAML file, overrides, `--help` and one-line errors.

    def main(argv: list[str] | None = None) -> int:
        return run_command(CurateConfig, curate, argv, name="curate")

`reelmill curate --config FILE.yaml --split.threshold=30` reads the file, then applies the override. This is
the only file that knows jsonargparse.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import select
import sys
import textwrap
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import docstring_parser
import jsonargparse

from curate.errors import BadInput
from pipelines.spelling import alternatives, check_args, fields, keys, nearest

Config = TypeVar("Config")
# In the help of an option; the choices of a Literal are listed beside its flag already.
_PLAIN_TYPES = {
    r"type: Literal\[.*?\](, )?": "",
    r"(?<=type: )str\b": "text",
    r"(?<=type: )int\b": "whole number",
    r"(?<=type: )float\b": "number",
    r"(?<=type: )bool\b": "true or false",
    r"(?<=number|..text) \| null(?=, default)": " or null",
}
BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class _Format(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps our paragraphs; types and defaults come from jsonargparse, said in plain words."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = str(super()._expand_help(action))  # type: ignore[no-untyped-call]
        for technical, plain in _PLAIN_TYPES.items():
            text = re.sub(technical, plain, text)
        return text


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
        code = function(config) or 0
        sys.stdout.flush()
        return code
    except SystemExit as done:  # --help and --print_config
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        print(f"reelmill {name}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `reelmill query ... | head` is not an error; anything else that broke a pipe is.
        if not _nobody_listens():
            raise
        return BROKEN_PIPE
    except Exception as error:
        cause = _bad_input(error)
        if cause is None:
            raise
        told = str(cause).partition(_RAYS_ADVICE)[0]
        print(f"reelmill {name}: error: {' '.join(told.split())}", file=sys.stderr)
        return BAD_INPUT


#: Ray writes what may be tried against transient errors into the message of whatever a worker raised.
_RAYS_ADVICE = "\nFailed to apply UDF transform"


def _nobody_listens() -> bool:
    """True if the reader of our standard output has gone; what is left to print is then dropped."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLERR)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


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
    args = check_args(config_class, list(sys.argv[1:] if argv is None else argv))
    parser = build_parser(config_class, name=name, positional=positional)
    try:
        found = parser.parse_args(args)
        built = parser.instantiate(found)
    except argparse.ArgumentError as error:
        raise BadInput(_explain(config_class, name, str(error))) from error
    except ValueError as error:  # a dataclass that refuses its values
        raise BadInput(str(error)) from error
    return config_class(**{field.name: built[field.name] for field in fields(config_class)})


def build_parser(
    config_class: type, *, name: str, positional: str | None = None
) -> jsonargparse.ArgumentParser:
    """The parser behind a command; every field is a flag with its documentation, type and default."""
    _resolve_annotations(config_class)
    doc = docstring_parser.parse(config_class.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    told = [text for text in (doc.short_description, doc.long_description) if text]
    required = [
        field.name
        for field in fields(config_class)
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
    for group in parser._action_groups:
        shown = [a.dest for a in group._group_actions if a.help != argparse.SUPPRESS and "." in a.dest]
        if shown:
            group.title = f"--{shown[0].rpartition('.')[0]}.*  {group.title or ''}".rstrip()
    return parser


def _resolve_annotations(config_class: type) -> None:
    """Turn the annotations of a dataclass, and of those in it, from strings into types, once.

    jsonargparse would do so itself by running the `if TYPE_CHECKING:` imports of the class's module, which
    exist so as not to be run: they load torch for `--help`.
    """
    hints = typing.get_type_hints(config_class)
    constructor = vars(config_class)["__init__"]
    constructor.__annotations__ = {**constructor.__annotations__, **hints}
    for hint in hints.values():
        for part in alternatives(hint):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                _resolve_annotations(part)


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
    choices = [str(c) for part in alternatives(hint) for c in typing.get_args(part) if _is_literal(part)]
    if choices:
        near = nearest(value[1], choices)
        return f"--{key[1]}={value[1]} is none of {', '.join(choices)}; the nearest is {near}."
    wanted = " or ".join("null" if p is type(None) else _type_name(p) for p in alternatives(hint))
    listed = any(typing.get_origin(part) in (list, tuple) for part in alternatives(hint))
    remedy = f" Write a list in brackets: --{key[1]}=[A,B]." if listed else ""
    return f"--{key[1]}={value[1]} is not {wanted}.{remedy}"


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint) or (f"a {hint.__name__}" if isinstance(hint, type) else str(hint))
