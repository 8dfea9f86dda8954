"""The live page in a real headless Chromium: it opens, text stays text, filters, keys, films and guards work."""

from __future__ import annotations

import html
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pyarrow as pa
import pytest
from serve_chromium import needs_chromium, open_page, steps, title
from serve_small import Served, served, until, with_shards
from small_dataset import HOSTILE, clip_id

from curate.decide import DecideConfig, Range
from curate.overrides import latest
from curate.tables import TABLES
from pipelines.decide import write_decisions

pytestmark = needs_chromium


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    dataset, _ = with_shards(tmp_path)
    metrics = b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'
    dataset.write_bytes(metrics, "runs", "<b>run", "metrics.jsonl")
    write_decisions(dataset, DecideConfig(luma=Range(), duration_s=Range()))
    with served(dataset) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            "/",
            [
                "<b>run",
                "2 steps",
                "5 captioned",
                "moov atom not found",
                "shots found",
                "Camera and shape",
                "HTTP 500: out of tokens",
            ],
        ),
        ("/?view=clips", ["1 to 8 of 8", "black_ratio 1.00 > 0.5", "dense, of a1", HOSTILE]),
        ("/?view=clips&q=" + quote(HOSTILE), ["1 to 3 of 3", "owned"]),
        (
            f"/?view=clips&clip={clip_id('b0')}",
            ["The whole story", "cosine 1.000", "a newer one, not chosen", HOSTILE],
        ),
        ("/?view=sql", ["One SELECT at a time", "why clips were rejected"]),
    ],
)
def test_every_view_opens_and_text_stays_text(server: Served, path: str, told: list[str]) -> None:
    dom, log = open_page(f"http://127.0.0.1:{server.port}{path}")
    assert "CONSOLE" not in log
    check(dom, told)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"state": "<script>alert(1)</script>"}, "state='<script>alert(1)</script>' is none of kept"),
        ({"clip": "<img src=x onerror=alert(1)>"}, "there is no such clip."),
        ({"reason": '"><script>alert(1)</script>'}, "No clip fits."),
        ({"like": "<b>nobody</b>"}, "clip <b>nobody</b> has no embedding to compare."),
        ({"offset": "NaN", "view": "clips"}, "offset='NaN' is no number."),
    ],
)
def test_an_address_that_somebody_made_up_stays_text(
    server: Served, asked: dict[str, str], told: str
) -> None:
    dom, _ = open_page(f"http://127.0.0.1:{server.port}/?{urlencode({'view': 'clips', **asked})}")
    check(dom, [told])


def check(dom: str, told: list[str]) -> None:
    """The page says all this, and none of it became markup or ran."""
    assert title(dom) == "dataset: Reelmill"
    body = dom.partition("</header>")[2]
    assert "<img" not in body
    assert "<script" not in body
    text = html.unescape(re.sub(r"<[^>]*>", " ", body))
    values = " ".join(html.unescape(found) for found in re.findall(r'value="([^"]*)"', body))
    for word in told:
        assert word in text or " ".join(word.split()) in " ".join(text.split()), (word, text[-2000:], values)


def test_filters_work_and_stand_in_the_address(server: Served, monkeypatch) -> None:
    script = """
      await shown("a0a1b0b1b2c0c1c2"); const seen = [];
      click("Rejected"); await shown("b1b2"); seen.push(location.search);
      choose("Reason", "black_ratio"); await shown("b1"); seen.push(location.search);
      click("Clear"); await until(() => ids().length === 16);
      choose("Camera motion", "pan"); await shown("a0b0b2c1"); choose("Camera motion", "");
      choose("Score to filter by", "motion"); await until(() => ids().length === 14);
      choose("from", "4"); await shown("b0c0"); seen.push(location.search);
      click("Clear"); await until(() => ids().length === 16);
      choose("Order", "motion"); await shown("b1b2a1a0c2b0c0c1");
      click("↑ lowest first"); await shown("c0b0a0c2a1b2b1c1");
      click("Clear"); await shown("a0a1b0b1b2c0c1c2");
      one("#words").value = "dense a1"; click("Search"); await shown("a1");
      seen.push(all("#wall mark").map((mark) => mark.textContent).join("+"));
      history.back(); await until(() => ids().length === 16);
      click("Similar", one("#wall .clip")); await shown("a1b0b1b2c0c1c2");
      seen.push(text("#remarks")); return seen.join(" | ");"""
    assert steps(server, monkeypatch, script) == (
        "?view=clips&state=rejected | ?view=clips&state=rejected&reason=black_ratio | "
        "?view=clips&score=motion&least=4 | dense+a1 | By cosine of CLIP embeddings (embedded)."
    )


def test_keys_decide_and_move(server: Served, monkeypatch) -> None:
    script = """
      await until(() => ids().length === 16); const seen = [], dialog = one("#clip");
      const at = () => seen.push(document.activeElement?.dataset?.clip?.slice(0, 2));
      press("j"); at(); press("j"); press("ArrowRight"); at(); press("k"); at();
      press("ArrowDown"); at(); press("ArrowUp"); at();
      press("n"); await until(() => one(`[data-clip^="a1"] .word`)); at();
      seen.push(text(`[data-clip^="a1"] .word`));
      await until(() => !one("#pending").hidden); seen.push(text("#pending"));
      press("Enter"); await until(() => dialog.open); seen.push(location.search);
      press("j"); await until(() => location.search.includes("clip=b0") && text("#clip h2").startsWith("b0"));
      one("#note").value = "fine"; press("y"); await until(() => one("#clip .word"));
      seen.push(text("#clip .word"));
      click("Close", dialog); await until(() => !dialog.open); at();
      click("Decide now"); await until(() => one("#pending").hidden);
      click("Rejected"); await shown("a1b1b2");
      press("3"); await until(() => location.search === "?view=sql&state=rejected");
      press("?"); seen.push(one("#help").open); return seen.join(" | ");"""
    assert steps(server, monkeypatch, script) == (
        "a0 | b0 | a1 | c0 | a1 | a1 | ann says reject (from the next decide on) | "
        "1 decision by hand waits for the next reelmill decide. Decide now | "
        f"?view=clips&clip={clip_id('a1')} | ann says keep: fine | b0 | true"
    )
    words = {clip[:2]: (row["keep"], row["note"]) for clip, row in latest(server.live.dataset).items()}
    assert words == {"a1": (False, None), "b0": (True, "fine")}


def test_films_play_and_pictures_show(server: Served, monkeypatch) -> None:
    script = """
      const video = await until(() => one("#clip video")); await until(() => video.readyState >= 2);
      await until(() => all("#clip .film").length === 6); await until(() => video.currentTime > 0.3);
      return `${video.videoWidth}x${video.videoHeight} ${video.duration.toFixed(1)} ${video.error}`;"""
    assert steps(server, monkeypatch, script, f"/?view=clips&clip={clip_id('a1')}") == "128x72 2.0 null"


def test_a_copy_stands_beside_the_better_one(server: Served, monkeypatch) -> None:
    rows = server.live.dataset.read("decisions").to_pylist()
    rows[-1] |= {
        "keep": False,
        "reason": "copy of a0",
        "reasons": ["copy of a0"],
        "duplicate_of": clip_id("a0"),
    }
    server.live.dataset.write("decisions", pa.Table.from_pylist(rows, schema=TABLES["decisions"]))
    until(lambda: server.json(f"/api/clips/{clip_id('c2')}")["duplicate_of"] == clip_id("a0"))
    script = """
      await until(() => all("#clip .pair-of .film").length === 2); const seen = text("#clip .pair-of");
      one("#clip .pair-of a").click(); await until(() => text("#clip h2").startsWith("a0"));
      return `${seen} ${location.search}`;"""
    told = steps(server, monkeypatch, script, f"/?view=clips&clip={clip_id('c2')}")
    assert told == f"stands for both: {clip_id('a0')}this one, a copy ?view=clips&clip={clip_id('a0')}"


def test_sql_from_the_page(server: Served, monkeypatch) -> None:
    script = """
      await until(() => one("#sql")); const seen = [], told = one("#sql-told");
      for (const sql of ["SELECT clip_id, motion, NULL FROM clips WHERE clip_id LIKE 'b2%'", "DROP VIEW clips",
        "SELECT '<img src=x onerror=alert(1)>'"]) {
        one("#sql").value = sql; told.textContent = "";
        click("Ask (Ctrl+Enter)");
        await until(() => told.textContent && told.textContent !== "Asking…");
        const cells = all("#view-sql td").map((cell) => cell.textContent);
        seen.push([...cells, told.textContent.split(" in ")[0]].join(","));
      }
      return seen.join(" | ");"""
    assert steps(server, monkeypatch, script, "/?view=sql", may_be_refused=True) == (
        f"{clip_id('b2')},0.12,null,1 rows | "
        "only a SELECT is answered here, not DROP: the SQL box reads and changes nothing. | "
        "<img src=x onerror=alert(1)>,1 rows"
    )


@pytest.mark.parametrize("path", ["/", "/?view=clips", "/?view=sql", f"/?view=clips&clip={clip_id('b0')}"])
def test_a_phone_shows_it_without_sideways_scrolling(server: Served, monkeypatch, path: str) -> None:
    script = """
      await until(() => one("#main section, #wall .clip, #sql"));
      await new Promise((go) => setTimeout(go, 1500));
      const dialog = one("#clip");
      const page = document.documentElement;
      return [page.scrollWidth <= innerWidth, dialog.scrollWidth <= dialog.clientWidth, innerWidth].join(" ");"""
    told = steps(server, monkeypatch, script, path, "--window-size=390,1200")
    assert told.startswith("true true ")
    assert int(told.split()[-1]) <= 520


# A page of another site that tries all it can: read, post, a form, a picture, a script.
ELSEWHERE = """<!doctype html><title>waiting</title><iframe name="frame"></iframe>
<form id="form" method="post" enctype="text/plain" target="frame" action="TARGET/api/clips/CLIP/decision">
<input name='{"keep": false, "note": "' value='"}'></form><script>
const send = (path, options) => fetch("TARGET" + path, options)
  .then((answer) => (answer.type === "opaque" ? "sent" : "read"), () => "refused");
const load = (made, src) => new Promise((go) => {
  made.onload = () => go("loaded"); made.onerror = () => go("refused"); made.src = src; document.body.append(made);
});
const json = { "Content-Type": "application/json" }, body = '{"keep": false}', path = "/api/clips/CLIP/decision";
(async () => {
  const seen = [await send("/api/clips"), await send("/api/state", { credentials: "include" }),
    await send(path, { method: "POST", headers: json, body }),
    await send(path, { method: "POST", mode: "no-cors", body })];
  document.getElementById("form").submit();
  seen.push(await load(new Image(), "TARGET/clips/CLIP/strip.webp"));
  seen.push(await load(document.createElement("script"), "TARGET/static/build.js"));
  setTimeout(() => { document.title = seen.join(" "); }, 1000);
})();</script>"""


def test_a_page_of_another_site_gets_nothing(server: Served) -> None:
    page = ELSEWHERE.replace("TARGET", f"http://127.0.0.1:{server.port}").replace("CLIP", clip_id("a0"))

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        dom, _ = open_page(f"http://127.0.0.1:{other.server_port}/")
    finally:
        other.shutdown()
    # A browser sends a no-cors post without asking; it is the server that refuses it.
    read, state, post, sent, picture, script = title(dom).split()
    assert {read, state, post, picture, script} == {"refused"}
    assert sent in ("refused", "sent")
    assert latest(server.live.dataset) == {}
