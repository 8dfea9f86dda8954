"""The files of the live page: its own, and those of the report that it draws with. Read once, from a fixed list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_OWN = Path(__file__).with_name("serve_page")
_REPORT = Path(__file__).with_name("report_page")
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

# Plain scripts that share one scope, in this order; the page's own are modules, which see that scope.
REPORT_SCRIPTS = ("build.js", "funnel.js", "scores.js", "clips.js", "captions.js", "training.js", "errors.js")
OWN_SCRIPTS = (
    "address.js", "clip.js", "decisions.js", "filters.js", "gallery.js", "keys.js", "names.js", "overview.js",
    "pictures.js", "sql.js", "live.js",
)  # fmt: skip
STYLES = ("page.css", "live.css")


@dataclass(frozen=True)
class File:
    """What is sent under a name."""

    data: bytes
    kind: str


def _read(folder: Path, name: str) -> File:
    return File((folder / name).read_bytes(), _KINDS[Path(name).suffix])


FILES = {name: _read(_REPORT, name) for name in (*REPORT_SCRIPTS, "page.css")}
FILES |= {name: _read(_OWN, name) for name in (*OWN_SCRIPTS, "live.css")}
_LINKS = [f'<link rel="stylesheet" href="/static/{name}">' for name in STYLES]
_SCRIPTS = [f'<script defer src="/static/{name}"></script>' for name in REPORT_SCRIPTS]
_SCRIPTS.append('<script type="module" src="/static/live.js"></script>')
PAGE = (
    (_OWN / "live.html")
    .read_text("utf-8")
    .replace("{{styles}}", "\n".join(_LINKS))
    .replace("{{scripts}}", "\n".join(_SCRIPTS))
    .encode()
)
