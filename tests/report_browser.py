"""A real headless Chromium for the tests of the report: open a page, and run a script inside it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import pipelines.report

CHROMIUM = next(
    (found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine to open the page with"
)
DARK = "--blink-settings=preferredColorScheme=0"
NO_MOTION = "--force-prefers-reduced-motion"
MOUSE = "--blink-settings=primaryHoverType=2,availableHoverTypes=2"
PHONE = 390


def open_in_chromium(page: Path, *flags: str) -> tuple[str, str]:
    """The DOM after the scripts have run, without the page's own data and script, and what Chromium logged."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=3000", "--hide-scrollbars", "--window-size=1280,2400", *flags, "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.partition('<script type="application/json"')[0], done.stderr


def ask(
    values: dict, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, *flags: str, width: int = 0
) -> Any:
    """What `script`, appended to the page's own, returns, through JSON; fails on anything on the console.

    `width`: open the page in a frame so wide (px): Chromium's own window does not get narrower than 500.
    """
    scripts = folder / "report_page"
    shutil.rmtree(scripts, ignore_errors=True)
    shutil.copytree(pipelines.report.PAGE, scripts)
    with (scripts / "page.js").open("a") as file:
        file.write(f"\n{{ const answer = JSON.stringify((() => {{ {script} }})());\n")
        file.write(
            "if (window.parent === window) document.title = answer; else parent.postMessage(answer, '*'); }\n"
        )
    page = folder / "page.html"
    with monkeypatch.context() as patched:
        patched.setattr(pipelines.report, "PAGE", scripts)
        page.write_text(pipelines.report.render(values), "utf-8")
    if width:
        framed = folder / "framed.html"
        listen = "<script>onmessage = (event) => { document.title = event.data; }</script>"
        framed.write_text(
            f'<!doctype html>{listen}<iframe src="page.html" width="{width}" height="800"></iframe>'
        )
        page = framed
    dom, log = open_in_chromium(page, *flags)
    assert "CONSOLE" not in log, log
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title, "the script has not run"
    return json.loads(html.unescape(title[1]))
