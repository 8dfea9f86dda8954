"""The live page in a real headless Chromium: it opens, text stays text, filters, keys, films and guards work."""

from __future__ import annotations

import html
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow as pa
import pytest
from serve_chromium import needs_chromium, open_page, steps, title
from serve_small import Served, served, until, with_shards
from small_dataset import HOSTILE, clip_id

from curate.decide import DecideConfig, Range
from curate.overrides import latest, put
from curate.tables import TABLES
from pipelines.decide import write_decisions
from pipelines.serve_sql import Busy

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
        ("/?view=clips", ["1 to 8 of 8", "black ratio 1.00 > 0.5", "dense, of a1", HOSTILE]),
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
      press("n"); await until(() => one("#who").open); seen.push(one("#who-name").value);
      press("y"); one("#who-name").value = " Bea "; click("That is me");
      await until(() => one(`[data-clip^="a1"] .word`)); at();
      seen.push(text(`[data-clip^="a1"] .word`));
      await until(() => !one("#pending").hidden); seen.push(text("#pending"));
      press("Enter"); await until(() => dialog.open); seen.push(location.search);
      seen.push(document.activeElement === dialog);
      press("j"); await until(() => location.search.includes("clip=b0") && text("#clip h2").startsWith("b0"));
      one("#note").value = "fine"; press("y"); await until(() => one("#clip .word"));
      seen.push(text("#clip .word"));
      click("Close", dialog); await until(() => !dialog.open); at();
      click("Decide now"); await until(() => one("#pending").hidden);
      click("Rejected"); await shown("a1b1b2");
      press("3"); await until(() => location.search === "?view=sql&state=rejected");
      seen.push(text("#who-is")); click("Change"); seen.push(one("#who-name").value);
      one("#who button").focus(); press("1");
      one("#who-name").value = "Cleo"; click("That is me"); seen.push(text("#who-is"), localStorage["reelmill-author"]);
      press("?"); seen.push(one("#help").open, location.search); return seen.join(" | ");"""
    assert steps(server, monkeypatch, script) == (
        "a0 | b0 | a1 | c0 | a1 | ann | a1 | Bea says reject (from the next decide on) | "
        "1 decision by hand waits for the next reelmill decide. Decide now | "
        f"?view=clips&clip={clip_id('a1')} | true | Bea says keep: fine | b0 | "
        "you are BeaChange | Bea | you are CleoChange | Cleo | true | ?view=sql&state=rejected"
    )
    words = {
        clip[:2]: (row["keep"], row["note"], row["author"])
        for clip, row in latest(server.live.dataset).items()
    }
    assert words == {"a1": (False, None, "Bea"), "b0": (True, "fine", "Bea")}


def test_without_a_name_nothing_is_decided(server: Served, monkeypatch) -> None:
    script = """
      await until(() => ids().length === 16); const seen = [text("#who-is")];
      press("j"); press("n"); await until(() => one("#who").open); click("Cancel");
      await until(() => !one("#trouble").hidden); seen.push(text("#trouble"));
      seen.push(document.activeElement.dataset.clip.slice(0, 2));
      press("n"); await until(() => one("#who").open); one("#who-name").value = " "; click("That is me");
      seen.push(one("#who").open); one("#who").close(); await until(() => !one("#trouble").hidden);
      seen.push(all("#wall .word").length); return seen.join(" | ");"""
    assert steps(server, monkeypatch, script) == (
        "Say who you are | Nothing was decided: a decision by hand has the name of who made it. | a0 | true | 0"
    )
    assert latest(server.live.dataset) == {}


def test_a_token_of_their_own_names_who_decides(tmp_path: Path, monkeypatch) -> None:
    """The page asks nobody then, and what its browser remembers counts for nothing."""
    dataset, _ = with_shards(tmp_path)
    token = "bens-token-of-his-own"
    script = """
      await until(() => ids().length === 16); const seen = [text("#who-is"), location.search];
      localStorage["reelmill-author"] = "Ann"; press("j"); press("n");
      await until(() => one("#wall .word")); seen.push(text("#wall .word")); return seen.join(" | ");"""
    with served(dataset, keys={token: "Ben of Ulm"}) as server:
        told = steps(server, monkeypatch, script, f"/?view=clips&token={token}")
    assert told == "you are Ben of Ulm | ?view=clips | Ben of Ulm says reject (from the next decide on)"
    assert latest(dataset)[clip_id("a0")]["author"] == "Ben of Ulm"


def test_the_words_that_wait_lead_to_their_clips(server: Served, monkeypatch) -> None:
    put(server.live.dataset, clip_id("b0"), keep=False, author="ann")
    script = """
      const found = await until(() => one("#pending a")); const told = [found.textContent];
      found.click(); await shown("b0"); return [...told, location.search].join(" | ");"""
    told = steps(server, monkeypatch, script, "/?view=clips&q=dense&camera=pan&offset=50")
    assert told == "1 decision by hand | ?view=clips&state=pending"


def test_the_story_is_told_when_it_is_opened(server: Served, monkeypatch) -> None:
    script = """
      const story = await until(() => one("#clip details")), told = [text("#clip pre")];
      story.open = true; await until(() => text("#clip pre").includes("decision    kept"));
      return [...told, text("#clip pre").split("\\n")[0]].join(" | ");"""
    told = steps(server, monkeypatch, script, f"/?view=clips&clip={clip_id('b0')}")
    assert told == f"… | clip {clip_id('b0')}"


def test_a_text_is_asked_for_again_while_its_model_is_loaded(server: Served, monkeypatch) -> None:
    tried: list[str] = []

    def feature(text: str, model: str) -> np.ndarray:
        tried.append(text)
        if len(tried) < 3:
            raise Busy("CLIP is being loaded; ask again in a moment.")
        return np.array([1.0] + [0.0] * (width - 1), np.float32)

    (model,) = server.live.now.vectors.value.models
    width = server.live.now.vectors.value._of_model[model][1].shape[1]
    monkeypatch.setattr(server.live.texts, "feature", feature)
    script = 'await until(() => all("#wall .clip").length); return text("#remarks");'
    told = steps(server, monkeypatch, script, "/?view=clips&text=star", may_be_refused=True)
    assert told == f"By cosine of CLIP embeddings ({model})."
    assert tried == ["star"] * 3


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
        "SELECT '<img src=x onerror=alert(1)>'", "SELECT 9007199254740993, -9007199254740993, 9007199254740991"]) {
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
        "<img src=x onerror=alert(1)>,1 rows | 9007199254740993,-9007199254740993,9007199254740991,1 rows"
    )


@pytest.mark.parametrize("path", ["/", "/?view=clips", "/?view=sql", f"/?view=clips&clip={clip_id('b0')}"])
def test_a_phone_shows_it_without_sideways_scrolling(server: Served, monkeypatch, path: str) -> None:
    script = """
      await until(() => one("#main section, #wall .clip, #sql"));
      await new Promise((go) => setTimeout(go, 1500));
      const dialog = one("#clip");
      const page = document.documentElement;
      const box = one("#pending").getBoundingClientRect(), edge = one("#name").getBoundingClientRect();
      return [page.scrollWidth <= innerWidth, dialog.scrollWidth <= dialog.clientWidth,
        box.left === edge.left && box.right === edge.right && box.left > 10, innerWidth].join(" ");"""
    put(server.live.dataset, clip_id("b0"), keep=False, author="ann")
    told = steps(server, monkeypatch, script, path, "--window-size=390,1200")
    assert told.startswith("true true true ")
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
