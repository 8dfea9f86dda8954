"""The live page in a real headless Chromium, with steps that a test takes in it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import pytest
from serve_small import Served

from pipelines.serve_files import FILES, File

CHROMIUM = next(
    (found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine to open the page with"
)

# Before the steps of a test; what they return is written into the title.
TOOLS = """
const until = async (is_so) => {
  for (let i = 0; i < 400; i++) {
    const found = is_so();
    if (found) return found;
    await new Promise((go) => setTimeout(go, 20));
  }
  throw new Error(`never: ${is_so}`);
};
const all = (what) => [...document.querySelectorAll(what)];
const one = (what) => document.querySelector(what);
const text = (what) => one(what).textContent;
const ids = () => all("#wall .clip").map((card) => card.dataset.clip.slice(0, 2)).join("");
const shown = (wanted) => until(() => ids() === wanted);
const press = (key) => (document.activeElement || document.body)
  .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const choose = (label, value) => {
  const made = one(`[aria-label="${label}"]`);
  made.value = value;
  made.dispatchEvent(new Event("change"));
};
const click = (words, place = document) =>
  [...place.querySelectorAll("button")].find((made) => made.textContent === words).click();
const steps = async () => { STEPS };
steps().then((found) => `done: ${found}`, (error) => `broke: ${error.message}`)
  .then((told) => { document.title = told; });
"""


def open_page(address: str, *flags: str) -> tuple[str, str]:
    """The DOM after the scripts have run, and what Chromium logged."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=9000", "--window-size=1280,2400", "--autoplay-policy=no-user-gesture-required",
            *flags, "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout, done.stderr


def title(dom: str) -> str:
    return html.unescape(re.findall(r"<title>(.*?)</title>", dom, re.DOTALL)[0])


def steps(
    server: Served,
    monkeypatch,
    script: str,
    path: str = "/?view=clips",
    *flags: str,
    may_be_refused: bool = False,
) -> str:
    """What the steps, run in the page, return. Chromium logs an answer that refuses, which some steps want."""
    own = FILES["live.js"]
    # The page writes its own title at every look; the steps' title is to stay.
    code = own.data.replace(b"document.title = `${name}: Reelmill`", b"void 0")
    monkeypatch.setitem(FILES, "live.js", File(code + TOOLS.replace("STEPS", script).encode(), own.kind))
    dom, log = open_page(f"http://127.0.0.1:{server.port}{path}", *flags)
    assert may_be_refused or "CONSOLE" not in log, log
    told = title(dom)
    assert told.startswith("done: "), told
    return told.removeprefix("done: ")
