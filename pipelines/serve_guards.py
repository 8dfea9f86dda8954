"""Who may ask the live view, and how much: tokens, host, origin, sizes. One ASGI layer around the application.

    app = Guards(app, Door(port=8765, keys={}, is_loopback=True))

A page of another site can make a browser ask 127.0.0.1. Such a request tells on itself: by its Origin and
Sec-Fetch-Site, or, where the site's name was made to point here (DNS rebinding), by its Host.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

MAX_BODY = 64 << 10
MAX_URL = 8 << 10
BODY_DEADLINE_S = 10.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Door:
    """What must be known to come in.

    Attributes:
        port: that the server listens on.
        keys: the tokens of which every request must bring one, with the name of whom it was given to (None for
            everybody's); without any, none is asked for.
        is_loopback: only this machine reaches the server, so that it is called by no other name.
    """

    port: int
    keys: Mapping[str, str | None]
    is_loopback: bool

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers keep one jar for all ports of a machine."""
        return f"reelmill_{self.port}"

    def key(self, given: str) -> str | None:
        """The token that was given, if it is one. All are compared, so that the time tells nothing of them."""
        fits = [key for key in self.keys if _is_same(given, key)]
        return fits[0] if fits else None

    def hosts(self) -> set[str]:
        """What the Host header may be on this machine's own address."""
        names = ("localhost", "127.0.0.1", "[::1]")
        return {f"{name}:{self.port}" for name in names} | (set(names) if self.port == 80 else set())


class Refused(Exception):
    """A request that is not answered: status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Guards:
    """Refuses what `Door` does not let in, and puts the headers that keep a page to itself on every answer."""

    def __init__(self, app: App, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"the live view speaks HTTP only, not {scope['type']}")
        began = False

        async def guarded_send(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                names = {name.lower() for name, _ in message.get("headers", [])}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        try:
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            check_size(scope, headers)
            check_host(headers, self._door)
            if entrance := check_token(scope, headers, self._door):
                await _redirect(entrance, guarded_send)
                return
            check_origin(scope, headers)
            await self._app(scope, _bounded(receive), guarded_send)
        except Refused as refused:
            if began:
                raise
            await _answer(refused, guarded_send)


def check_size(scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
    """Addresses and bodies have a greatest size; a body is JSON, which a form of another site cannot send."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL:
        raise Refused(414, f"the address is longer than {MAX_URL:,} bytes.")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise Refused(413, f"the request is larger than {MAX_BODY:,} bytes.")
    is_json = headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
    if scope["method"] not in ("GET", "HEAD") and not is_json:
        raise Refused(415, "send JSON, with Content-Type: application/json.")


def check_host(headers: dict[str, str], door: Door) -> None:
    host = headers.get("host", "").lower()
    if door.is_loopback and host not in door.hosts():
        raise Refused(
            403,
            f"this server is called localhost:{door.port}, not {host[:100]!r}. Through a tunnel use the same port "
            f"on both sides (ssh -L {door.port}:localhost:{door.port} HOST); for other names start it with --host.",
        )


def check_token(
    scope: MutableMapping[str, Any], headers: dict[str, str], door: Door
) -> tuple[str, str] | None:
    """Raises Refused without a token. Where the address brings it: (the address without it, Set-Cookie).

    Notes in `scope["person"]` whose token it is.
    """
    scope["person"] = None
    if not door.keys:
        return None
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = [value for key, value in query if key == "token"]
    if given and scope["method"] == "GET":
        found = {door.key(value) for value in given}
        key = found.pop()
        if found or key is None:
            raise Refused(401, "the token in the address is not one that `reelmill serve` was started with.")
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # One slash: `//name` would be the address of another machine, and browsers read `/\\name` so.
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\") + (f"?{rest}" if rest else "")
        return path, f"{door.cookie}={key}; Path=/; HttpOnly; SameSite=Strict"
    bearer = headers.get("authorization", "")
    key = door.key(bearer[7:].strip()) if bearer[:7].lower() == "bearer " else None
    key = key or door.key(_cookie(headers.get("cookie", ""), door.cookie))
    if key is not None:
        scope["person"] = door.keys[key]
        return None
    raise Refused(
        401,
        "open the address with its token (/?token=…), as `reelmill serve` printed it or as you were given it, or send "
        "Authorization: Bearer.",
    )


def check_origin(scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
    """Other sites may link to the page, and do nothing else."""
    is_link = scope["method"] == "GET" and scope["path"] == "/"
    opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") and not (is_link and opened):
        raise Refused(403, "a page of another site asked for this; only the live view's own page may.")
    origin = headers.get("origin")
    host = headers.get("host", "").lower()
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise Refused(403, f"a page of {origin[:100]!r} asked for this; only the live view's own page may.")


def _bounded(receive: Receive) -> Receive:
    """`receive` that counts what really comes, and does not wait for ever."""
    size, is_whole = 0, False
    until: float | None = None  # one deadline for the whole body: bytes that drip in do not move it

    async def counted() -> Message:
        nonlocal size, is_whole, until
        if is_whole:  # what follows is only the client's leaving, and may take as long as an answer
            return await receive()
        if until is None:
            until = asyncio.get_running_loop().time() + BODY_DEADLINE_S
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError as error:
            raise Refused(408, f"the request was not whole after {BODY_DEADLINE_S:.0f} seconds.") from error
        size += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if size > MAX_BODY:
            raise Refused(413, f"the request is larger than {MAX_BODY:,} bytes.")
        return message

    return counted


def _is_same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


async def _redirect(entrance: tuple[str, str], send: Send) -> None:
    path, cookie = entrance
    headers = [
        (b"location", path.encode("latin-1")),
        (b"set-cookie", cookie.encode()),
        (b"content-length", b"0"),
    ]
    await send(
        {"type": "http.response.start", "status": 303, "headers": [*headers, (b"cache-control", b"no-store")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def _answer(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.why}).encode()
    # What was not read of the request would be taken for the next one.
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
