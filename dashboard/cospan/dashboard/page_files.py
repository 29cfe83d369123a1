"""The files of the page: HTML, CSS and JavaScript modules, without a build step."""

from functools import cache
from importlib.resources import files

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
MODULES = (
    "dom.js",
    "theme.js",
    "format.js",
    "address.js",
    "scale.js",
    "chart.js",
    "download.js",
    "charts.js",
    "heatmap.js",
    "spectrum.js",
    "sites.js",
    "answers.js",
    "agents.js",
    "detail.js",
    "compare.js",
    "tiles.js",
    "main.js",
)
"""The modules, each after its imports."""
_NAMES = frozenset({"index.html", "login.html", "style.css", "icon.svg", "again.js", *MODULES})


@cache
def page_file(name: str) -> bytes | None:
    """The content of one file of the page; None if it does not exist."""
    return files("cospan.dashboard").joinpath("page", name).read_bytes() if name in _NAMES else None
