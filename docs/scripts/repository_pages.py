"""A hook of MkDocs: files of the repository outside of docs/ become pages, and links to them lead there.

So a link is written once, as it must be where the repository is read, and holds on the site as well; one to a
file that does not exist fails the build (mkdocs.yml is strict).
"""

import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "README.md": "index.md",  # the site's first page stands for it
}
_LANGUAGES = {".py": "python", ".proto": "protobuf", ".yml": "yaml", ".toml": "toml", ".sh": "bash"}
_LARGEST = 50_000  # bytes of a file in the page of its folder
_SHIM = "https://unpkg.com/iframe-worker/shim"
_CONSOLE = re.compile(r"(?<=^```)console\b", re.MULTILINE)  # it would colour commands without a prompt as output
_SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'
_FIGURE = re.compile(r'<p>(<img alt="([^"]*)" src="([^"]+)"[^>]*>)</p>')
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, and one with the source of each other file or folder that a page links to."""
    for path, uri in PAGES.items():
        if uri != "index.md":
            files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    pages = list(files.documentation_pages())
    for page in pages:
        for path in sorted(_outside(page.content_string, _origin(page.src_uri))):
            uri = _uri(path)
            if path not in PAGES and not files.get_file_from_path(uri):
                files.append(File.generated(config, uri, content=_source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links from and to what is outside of docs/ into links between pages."""
    origin = _origin(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        path = _resolved(match[1], origin)
        inside = path.startswith("docs/")
        if inside and origin.startswith("docs/"):
            return match[1]
        uri = path.removeprefix("docs/") if inside else _uri(path)
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return _CONSOLE.sub("bash", _LINK.sub(turned, markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Names the search, makes figures links to themselves, and takes the search's script from the site.

    A figure that scrolls, on a narrow screen, can then be reached by keyboard, and opened at its full size.
    """
    shim = posixpath.relpath("assets/iframe-worker.js", posixpath.dirname(page.file.src_uri) or ".")
    named = output.replace(_SHIM, shim).replace(_SEARCH, f'{_SEARCH} aria-label="Search"')
    return _FIGURE.sub(lambda match: _figure(match, page.title), named)


def _figure(match: re.Match[str], title: str) -> str:
    """The figure as a link, named by the page if it has no text of its own."""
    image, text, source = match.groups()
    label = "" if text else f' aria-label="Figure of the page: {escape(title)}"'
    return f'<p><a class="figure" href="{source}"{label}>{image}</a></p>'


def on_post_template(output_content: str, **_: Any) -> str:
    """The same in the page for addresses that do not exist, which servers show."""
    return output_content.replace(_SHIM, "/assets/iframe-worker.js")


def _origin(uri: str) -> str:
    """Where in the repository the page `uri` of the site comes from."""
    for path, page in PAGES.items():
        if page == uri and page != "index.md":
            return path
    return f"docs/{uri}"


def _resolved(target: str, origin: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def _outside(markdown: str, origin: str) -> set[str]:
    """The files and folders outside of docs/ that a page links to."""
    paths = {_resolved(match[1], origin) for match in _LINK.finditer(markdown)}
    return {path for path in paths if not path.startswith("docs/") and (ROOT / path).exists()}


def _uri(path: str) -> str:
    return PAGES.get(path, f"source/{path}.md")


def _source_page(path: str) -> str:
    if (ROOT / path).is_dir():
        inner = sorted(str(file.relative_to(ROOT)) for file in (ROOT / path).rglob("*") if _is_shown(file))
        return "\n".join([f"# `{path}`\n", *(_listing(file, "##") for file in inner)])
    text = (ROOT / path).read_text(encoding="utf-8")
    return text if Path(path).suffix == ".md" else _listing(path, "#")


def _is_shown(file: Path) -> bool:
    return file.is_file() and file.suffix in _LANGUAGES and file.stat().st_size <= _LARGEST


def _listing(path: str, heading: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"{heading} `{path}`\n\n````{_LANGUAGES.get(Path(path).suffix, 'text')}\n{text}````\n"
