"""The page of a finished run as one HTML file that holds its styles, scripts and data."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cospan.dashboard.page_files import MODULES, page_file

_IMPORT = re.compile(r'^import \{ (.+?) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|class|(?:async )?function) (\w+))", re.MULTILINE)
_STYLE_LINK = '<link rel="stylesheet" href="style.css">'
_SCRIPT_LINK = '<script type="module" src="main.js"></script>'
_AGAIN_LINK = '<script src="again.js"></script>\n'
_ICON_LINK = '<link rel="icon" href="icon.svg" type="image/svg+xml">'


def report_page(frame: Mapping[str, Any]) -> str:
    """The HTML that shows a frame as the dashboard does.

    Its content-security policy allows its own script and style by their digests, and no requests.
    """
    style, script = _text("style.css"), _joined_modules()
    icon = base64.b64encode(page_file("icon.svg") or b"").decode()
    # Only "<" can end a script element; JSON has an escape for it.
    data = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _text("index.html")
    for link, content in (
        (_ICON_LINK, f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">'),
        (_STYLE_LINK, f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'),
        (_SCRIPT_LINK, ""),
        (_AGAIN_LINK, ""),
        (
            "</body>",
            f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n</body>',
        ),
    ):
        before, found, after = page.rpartition(link)
        assert found, f"index.html has no {link}"
        page = before + content + after
    return page


def _joined_modules() -> str:
    """The modules as one script; each becomes a function that returns its exports."""
    parts = ['"use strict";']
    for name in MODULES:
        text = _text(name)
        exported = ", ".join(_EXPORT.findall(text))
        body = _EXPORT.sub("", _IMPORT.sub(r"const { \1 } = \2Module;", text))
        parts.append(
            f"const {name.removesuffix('.js')}Module = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"
        )
    return "\n".join(parts)


def _text(name: str) -> str:
    content = page_file(name)
    assert content is not None
    return content.decode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
