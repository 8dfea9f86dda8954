"""The addresses of the live view, and what answers them.

app = application(live, Door(port, keys, is_loopback))        # uvicorn runs it

GET  /                                the page; its state is in the address
GET  /static/NAME                     its scripts and styles, of a fixed list
GET  /api/state                       what there is, and whether search is ready
GET  /api/overview                    funnel, histograms, mosaics, captions, errors
GET  /api/clips?state=&reason=&…      a page of clips
GET  /api/clips/ID                    what is known of one
GET  /api/clips/ID/story              all of it, as `reelmill inspect` tells it
POST /api/clips/ID/decision           {"keep": true | false | null, "note": "…", "author": "…"}
POST /api/decide                      decide again, people's words included
POST /api/sql                         {"sql": "SELECT …"}
GET  /clips/ID/strip.webp             pictures side by side; X-Frames tells how many
GET  /clips/ID/video                  the clip out of its shard, by ranges
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from curate.errors import BadInput
from pipelines import serve_answers as answers
from pipelines.report_budget import finite
from pipelines.serve_files import FILES, PAGE
from pipelines.serve_guards import Door, Guards, Refused
from pipelines.serve_reads import Reads
from pipelines.serve_sql import Busy, TooLong
from pipelines.serve_video import video

if TYPE_CHECKING:
    from pipelines.serve_live import Live


def application(live: Live, door: Door) -> Guards:
    """The application with its guards around it."""
    pages = Pages(live)
    app = Starlette(
        routes=[
            Route("/", pages.page),
            Route("/static/{name}", pages.static),
            Route("/api/state", pages.state),
            Route("/api/overview", pages.overview),
            Route("/api/clips", pages.clips),
            Route("/api/clips/{clip_id}", pages.clip),
            Route("/api/clips/{clip_id}/story", pages.story),
            Route("/api/clips/{clip_id}/decision", pages.overrule, methods=["POST"]),
            Route("/api/decide", pages.decide, methods=["POST"]),
            Route("/api/sql", pages.sql, methods=["POST"]),
            Route("/clips/{clip_id}/strip.webp", pages.strip),
            Route("/clips/{clip_id}/video", pages.film),
        ],
        exception_handlers={
            BadInput: _explained(400),
            Refused: _refused,
            TooLong: _explained(504),
            duckdb.Error: _away,
            Busy: _explained(503),
            HTTPException: _http_error,
            Exception: _explained(500),
        },
    )
    return Guards(app, door)


class Pages:
    """One method per address."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._reads = Reads()

    async def page(self, request: Request) -> Response:
        return Response(PAGE, media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"})

    async def static(self, request: Request) -> Response:
        found = FILES.get(request.path_params["name"])  # a fixed list: no name reaches the file system
        if found is None:
            raise HTTPException(404, "there is no such file.")
        return Response(found.data, media_type=found.kind, headers={"cache-control": "no-cache"})

    async def state(self, request: Request) -> Response:
        return await _told(answers.state, self._live, request.scope["person"])

    async def overview(self, request: Request) -> Response:
        return await _told(answers.overview, self._live)

    async def clips(self, request: Request) -> Response:
        return await _told(answers.clips, self._live, dict(request.query_params))

    async def clip(self, request: Request) -> Response:
        await self._card(request)
        return await _told(answers.clip, self._live, request.path_params["clip_id"])

    async def story(self, request: Request) -> Response:
        await self._card(request)
        return await _told(answers.story, self._live, request.path_params["clip_id"])

    async def overrule(self, request: Request) -> Response:
        card = await self._card(request)
        word = answers.word_of(await _body(request), request.scope["person"])
        return await _told(partial(self._live.overrule, card["clip_id"], **word))

    async def decide(self, request: Request) -> Response:
        await _body(request)
        return await _told(answers.decide, self._live)

    async def sql(self, request: Request) -> Response:
        body = await _body(request)
        if not isinstance(body.get("sql"), str):
            raise BadInput('send {"sql": "SELECT …"}.')
        return await _told(self._live.questions.answer, body["sql"])

    async def strip(self, request: Request) -> Response:
        strip = await self._live.strips.get(await self._card(request))
        if strip.why is not None:
            return _json({"error": strip.why}, 404)
        size = {"x-frames": str(strip.frames), "x-size": f"{strip.width}x{strip.height}"}
        return Response(
            strip.data, media_type="image/webp", headers={"cache-control": "private, max-age=600", **size}
        )

    async def film(self, request: Request) -> Response:
        try:
            return await video(request, self._live.dataset, await self._card(request), self._reads)
        except BadInput as error:
            return _json({"error": str(error)}, 404)

    async def _card(self, request: Request) -> dict[str, Any]:
        """The clip that the address names."""
        rows = self._live.now.rows
        row = rows.row_of(request.path_params["clip_id"])
        if row is None:
            raise HTTPException(404, "there is no such clip.")
        return (await run_in_threadpool(rows.cards, [row]))[0]


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    try:
        found = json.loads(await request.body())
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is JSON, and no text
    except (ValueError, RecursionError) as error:
        raise BadInput("the request holds no JSON.") from error
    if not isinstance(found, dict):
        raise BadInput("the request must hold one JSON object.")
    return found


async def _told(function: Callable[..., Any], *args: Any) -> Response:
    """What a function says, called beside the loop that answers everybody."""
    return _json(await run_in_threadpool(function, *args))


def _json(value: Any, status: int = 200) -> Response:
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"), default=str, ensure_ascii=False)
    # A lone surrogate, as a file name may hold, has no UTF-8.
    data = text.encode("utf-8", "replace")
    return Response(data, status, headers={"cache-control": "no-store"}, media_type="application/json")


def _explained(status: int) -> Callable[[Request, Exception], Response]:
    def explain(request: Request, error: Exception) -> Response:
        if status == 500:  # the text may tell what is nobody's business; the server's terminal has it
            return _json({"error": "the server failed; its terminal says why."}, 500)
        return _json({"error": " ".join(str(error).split())}, status)

    return explain


def _away(request: Request, error: Exception) -> Response:
    """A table that is replaced while it is read."""
    told = " ".join(str(error).split())
    return _json({"error": f"the tables are being changed; ask again in a moment. ({told[-300:]})"}, 503)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    response = _json({"error": error.why}, error.status)
    response.headers["connection"] = "close"  # what was not read would be taken for the next request
    return response


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response
