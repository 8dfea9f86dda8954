"""Who may come into the live view, and under which name: one token for everybody, or a file with one for each person.

keys_of(token="a-long-word-of-16-letters", file=None, is_loopback=True)    # {"a-long…": None}
keys_of(token=None, file="people.txt", is_loopback=False)                  # {"7Gq…": "ann", "x0r…": "ben"}
"""

from __future__ import annotations

import os
import re
import secrets

from curate.errors import BadInput
from curate.overrides import LONGEST_AUTHOR

#: Token -> the name of whom it was given to; None for a token of everybody, who say themselves who they are.
Keys = dict[str, str | None]

VARIABLE = "REELMILL_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,512}")
_FORM = (
    "16 characters or more, so that nobody guesses it, of letters, digits and - . _ ~, so that it can stand in an "
    "address"
)


def keys_of(token: str | None, file: str | None, *, is_loopback: bool) -> Keys:
    """The tokens that open the door; none where this machine alone reaches it and nobody gave one.

    `token` is one for everybody, `auto` makes it; where it is None the environment's REELMILL_TOKEN counts, so that it
    does not stand in the list of processes. `file` is `people` of that path. Raises BadInput for both, and for a token
    that can be guessed or cannot stand in an address.
    """
    if file is not None:
        if token is not None:
            raise BadInput("give --token, one for everybody, or --tokens, one for each person; not both.")
        return dict(people(file))
    where = "--token"
    if token is None and os.environ.get(VARIABLE):
        token, where = os.environ[VARIABLE], VARIABLE
    if token == "auto" or (token is None and not is_loopback):
        return {secrets.token_urlsafe(32): None}
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token):
        raise BadInput(f"{where} must be {_FORM}.")
    return {token: None}


def people(file: str) -> dict[str, str]:
    """Token -> name, from the lines `NAME TOKEN` of a file; empty ones and those that begin with # count for nothing.

    Raises BadInput where a line is none, a token is there twice, or others of this machine can read the file.
    """
    found: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8") as lines:
            if os.fstat(lines.fileno()).st_mode & 0o077:
                raise BadInput(
                    f"others of this machine can read {file}; `chmod 600 {file}` keeps its tokens yours."
                )
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                *name, token = line.split()
                if not 0 < len(" ".join(name)) <= LONGEST_AUTHOR or not _TOKEN.fullmatch(token):
                    raise BadInput(
                        f"{file}, line {number}: not NAME TOKEN. A name has 1 to {LONGEST_AUTHOR} characters, a token "
                        f"{_FORM}."
                    )
                if token in found:
                    raise BadInput(
                        f"{file}, line {number}: this token is there already; each person has another."
                    )
                found[token] = " ".join(name)
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file} cannot be read as a file of tokens: {error}.") from error
    if not found:
        raise BadInput(f"{file} has no line NAME TOKEN: nobody could come in.")
    return found
