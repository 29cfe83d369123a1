"""Makes the pictures at the head of the README, each from a real run: `make readme-pictures`.

docs/figures/sites-light.svg and sites-dark.svg show every site of `SITES`, terminal.svg what a terminal shows of
`RECORDED`: it plays once, and stays at its last picture. dashboard-light.png and dashboard-dark.png are the page of
`WATCHED` in a real Chromium; they need the group `browser`. Nothing in them is typed by hand.
"""

import argparse
import fcntl
import html
import itertools
import os
import pty
import select
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pyte
from PIL import Image
from playwright.sync_api import sync_playwright

from cospan.cli.output.plot import draw_sites
from cospan.cli.run_folder.run_result import agent_row
from cospan.client.files.result_file import load_result
from cospan.experiments.plots.sites import DARK, LIGHT
from cospan.wire.files.spec_file import load_spec

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SITES = "cospan run microgrids --agents 25 --rounds 30 --seed 1"
RECORDED = "cospan run queues --agents 8 --rounds 300 --seed 1"
WATCHED = "cospan run microgrids --agents 25 --rounds 0 --seed 1 --dashboard 127.0.0.1:0"
COLUMNS, ROWS = 100, 24
_WATCHED_ROUNDS, _PAGE = 60, (1440, 930)
_HERE = Path(sys.executable).parent
_SECONDS = 300.0
_FRAME_SECONDS, _MOST_FRAMES = 0.35, 14
_PLAYED_SECONDS = 6.0
_CHARACTER, _LINE, _EDGE = 8.4, 18.0, 16.0
_BACKGROUND, _FOREGROUND = "#0d1117", "#e6edf3"
_COLOURS = {
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "yellow": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#b1bac4",
    "brightblack": "#6e7681",
}
_STYLE = """text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;white-space:pre}}
.frame{{opacity:0;animation:shown {seconds:.2f}s step-end 1 both}}
.last{{animation:none;opacity:0;animation:last {seconds:.2f}s step-end 1 both}}
@keyframes last{{0%{{opacity:0}}100%{{opacity:1}}}}
@media (prefers-reduced-motion:reduce){{.frame{{animation:none;opacity:0}}.last{{animation:none;opacity:1}}}}"""

_BOLD = ' style="font-weight:700"'


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of one line that look alike."""

    column: int
    text: str
    colour: str
    is_bold: bool


Frame = tuple[tuple[Span, ...], ...]
"""The lines of a terminal at one moment."""


# The sites ------------------------------------------------------------------------------------------------------


def draw_site_pictures(folder: Path) -> None:
    """Runs the fleet of `SITES`, and draws its sites for light and dark pages."""
    run = folder / "sites"
    subprocess.run([*_command(SITES), "--quiet", "--output", str(run)], check=True, stdout=subprocess.DEVNULL)
    rows = [agent_row(load_result(path)) for path in sorted((run / "agents").glob("site-*.npz"))]
    with mpl.rc_context({"svg.hashsalt": "cospan", "font.sans-serif": ["DejaVu Sans"]}):
        for name, ink in (("light", LIGHT), ("dark", DARK)):
            path = FIGURES / f"sites-{name}.svg"
            advice = draw_sites(path, load_spec(run / "spec.toml"), rows, ink=ink)
            if advice:
                raise SystemExit(advice)
            print(f"wrote {path}")


def _command(text: str) -> list[str]:
    name, *arguments = shlex.split(text)
    return [str(_HERE / name), *arguments]


# The terminal ---------------------------------------------------------------------------------------------------


def record(folder: Path) -> None:
    """Runs `RECORDED` on a terminal, and writes what it showed as an SVG that plays once."""
    frames = list(_thinned(list(_shown(folder))))
    path = FIGURES / "terminal.svg"
    path.write_text(svg(frames), encoding="utf-8")
    print(f"wrote {path}: {len(frames)} frames, {path.stat().st_size / 1000:.0f} kB")


def _shown(folder: Path) -> Iterator[Frame]:
    """The pictures of the terminal, from the typed command to the end."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {RECORDED}\r\n".encode())
    yield _frame(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
    environment = {**kept, "TERM": "xterm-256color"}
    command = _command(RECORDED)
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    due, end = 0.0, time.monotonic() + _SECONDS
    try:
        while select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                piece = os.read(ours, 2**16)
            except OSError:  # Linux: the program has closed the terminal
                break
            if not piece:
                break
            stream.feed(piece)
            if time.monotonic() >= due:
                due = time.monotonic() + _FRAME_SECONDS
                yield _frame(screen)
        if process.wait(_SECONDS) != 0:
            raise SystemExit(f"{RECORDED} ended with exit code {process.returncode}")
    finally:
        process.kill()
        os.close(ours)
    yield _frame(screen)


def _frame(screen: pyte.Screen) -> Frame:
    """The lines of the screen, without blanks at their ends."""
    return tuple(tuple(_spans([screen.buffer[row][column] for column in range(COLUMNS)])) for row in range(ROWS))


def _spans(line: Sequence[pyte.screens.Char]) -> Iterator[Span]:
    used = max((place + 1 for place, each in enumerate(line) if each.data.strip()), default=0)
    for (colour, is_bold), group in itertools.groupby(
        enumerate(line[:used]), lambda place: (place[1].fg, place[1].bold)
    ):
        part = list(group)
        text = "".join(each.data for _, each in part)
        if text.strip():
            yield Span(part[0][0], text, _COLOURS.get(colour, _FOREGROUND), is_bold)


def _thinned(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Frames that differ, at most that many, the first and the last among them."""
    changed = [frame for frame, _ in itertools.groupby(frames)]
    every = max(1, -(-(len(changed) - 1) // (_MOST_FRAMES - 1)))
    yield from changed[:-1:every]
    yield changed[-1]


def svg(frames: Sequence[Frame]) -> str:
    """The frames one after another; the last one stays."""
    used = max(row + 1 for frame in frames for row, line in enumerate(frame) if line)
    width, height = COLUMNS * _CHARACTER + 2 * _EDGE, used * _LINE + 2 * _EDGE
    share = 100.0 / max(1, len(frames) - 1)
    rules, groups = [], []
    for number, frame in enumerate(frames):
        is_last = number == len(frames) - 1
        lines = "".join(_line(row, line) for row, line in enumerate(frame) if line)
        groups.append(f'<g class="{"last" if is_last else f"frame f{number}"}">{lines}</g>')
        if not is_last:
            begin, end = number * share, (number + 1) * share
            steps = f"0%{{opacity:{int(number == 0)}}}{begin:.2f}%{{opacity:1}}{end:.2f}%,100%{{opacity:0}}"
            rules.append(f"@keyframes s{number}{{{steps}}}.f{number}{{animation-name:s{number}}}")
    style = _STYLE.format(seconds=_PLAYED_SECONDS) + "".join(rules)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(_words(frames[-1]))}"><style>{style}</style>'
        f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>{"".join(groups)}</svg>\n'
    )


def _line(row: int, line: Sequence[Span]) -> str:
    """A line whose characters keep to their columns in every monospaced font."""
    y = _EDGE + (row + 0.75) * _LINE
    return "".join(
        f'<text x="{_EDGE + span.column * _CHARACTER:.1f}" y="{y:.1f}" fill="{span.colour}"'
        f"{_BOLD if span.is_bold else ''} "
        f'textLength="{len(span.text) * _CHARACTER:.1f}" xml:space="preserve">{html.escape(span.text)}</text>'
        for span in line
    )


def _words(frame: Frame) -> str:
    return "; ".join(" ".join(span.text for span in line) for line in frame if line)


# The dashboard --------------------------------------------------------------------------------------------------


def photograph(folder: Path) -> None:
    """Runs `WATCHED` for some rounds, and takes pictures of its page, light and dark."""
    process = subprocess.Popen(_command(WATCHED), cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if line.startswith("dashboard: "))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            page = browser.new_page(viewport={"width": _PAGE[0], "height": _PAGE[1]})
            page.goto(address)
            rounds = f"() => Number(document.body.innerText.match(/Round\\s+(\\d+)/)?.[1]) >= {_WATCHED_ROUNDS}"
            page.wait_for_function(rounds, timeout=1000.0 * _SECONDS)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_timeout(2000)
                path = FIGURES / f"dashboard-{scheme}.png"
                page.screenshot(path=path)
                Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)
                print(f"wrote {path}: {path.stat().st_size / 1000:.0f} kB")
            browser.close()
    finally:
        process.terminate()
        process.wait(_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--only", choices=("sites", "terminal", "dashboard"), help="make the pictures of one run alone"
    )
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("sites", draw_site_pictures), ("terminal", record), ("dashboard", photograph)):
            if only in (None, name):
                make(Path(folder))


if __name__ == "__main__":
    main()
