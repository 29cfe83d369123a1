"""The fenced blocks of the pages, and a shell that does what they say in a folder of its own.

A block of `console` or `sh` is run by bash; what it exports, and the folder that it leaves the shell in, hold for
the next one. A block of `python` is run as a program; with a title that ends in .py it is a file to be written. A
block of `text` titled *Prints* is what the block before it prints: each of its lines occurs in the output, in that
order, with … for anything, a number with a decimal point for any number, and any number of blanks for one. A block
whose title begins with *Not run here* is left out, and its title says why.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = "Not run here"
PRINTS = "Prints"
_PORT = re.compile(r"\b1505[1-3]\b")
_DECIMAL = r"(\\-)?\d+\\\.\d+"  # in an escaped pattern
_NUMBER = r"-?\\d[\\d.]*(e-?\\d+)?"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page.

    Attributes:
        language: the first word of its head.
        title: its title, or empty; the site shows it above the block.
        text: what is in it.
        line: where it begins in the page, from 1.
    """

    language: str
    title: str
    text: str
    line: int

    @property
    def is_run(self) -> bool:
        """Whether it is code that the page does not except."""
        return self.language in {"console", "sh", "python"} and not self.title.startswith(NOT_RUN)


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    fences = [token for token in MarkdownIt().parse(page.read_text(encoding="utf-8")) if token.type == "fence"]
    found = []
    for fence in fences:
        title = re.search(r'title="([^"]*)"', fence.info)
        language = fence.info.split(" ", 1)[0]
        found.append(Block(language, title[1] if title else "", fence.content, (fence.map or [0])[0] + 1))
    return found


class Shell:
    """Runs blocks one after the other, as a reader of the page does; its end ends what they left running."""

    def __init__(self, folder: Path, environment: Mapping[str, str], seconds: float) -> None:
        self._folder, self._environment, self._seconds = folder, dict(environment), seconds
        self._state = folder.parent / f"{folder.name}.state"
        self._groups: list[int] = []
        self._output = ""

    def do(self, block: Block) -> None:
        """Writes, runs or compares a block.

        Raises:
            AssertionError: it fails, takes too long, or prints something else than the page says.
        """
        if block.language == "text" and block.title == PRINTS:
            missing = missing_line(block.text, self._output)
            assert missing is None, f"line {block.line}: {missing!r} is not in what was printed:\n{self._output}"
        elif block.is_run and block.language == "python" and block.title.endswith(".py"):
            (self._folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.is_run and block.language == "python":
            self._run("python - <<'END_OF_BLOCK'\n" + block.text + "\nEND_OF_BLOCK\n", block)
        elif block.is_run:
            self._run(block.text, block)

    @property
    def output(self) -> str:
        """What the last block has printed."""
        return self._output

    def close(self) -> None:
        """Ends the processes that blocks have left in the background."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _run(self, script: str, block: Block) -> None:
        kept = f"export -p > '{self._state}'; printf 'cd %q\\n' \"$PWD\" >> '{self._state}'"
        whole = f"set -eo pipefail\n{self._resumed()}{script}\n{kept}\n"
        printed = self._folder.parent / f"{self._folder.name}.{block.line}.out"
        with printed.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", whole],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            try:
                code: int | str = process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = f"nothing after {self._seconds:g} s"
        self._output = printed.read_text(encoding="utf-8", errors="replace")
        assert code == 0, f"line {block.line}: {code}\n{block.text}\nprinted:\n{self._output}"

    def _resumed(self) -> str:
        return f". '{self._state}'\n" if self._state.exists() else ""


class Reader:
    """Follows a page of a clone whose environment `make` has set up; the ports that it names are free ones."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder / "page"
        self.folder.mkdir()
        kept_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "examples", self.folder / "examples", ignore=kept_out)
        (self.folder / ".venv").symlink_to(here().parent)
        self._ports = _free_ports()
        environment = environment_of(folder, here()) | {"COSPAN_PORT": self._ports["15051"], "COSPAN_PICTURES": "0"}
        self.shell = Shell(self.folder, environment, seconds)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.shell.close()

    def do(self, block: Block) -> str:
        """What a block prints; see `Shell.do`."""
        self.shell.do(replace(block, text=_PORT.sub(lambda port: self._ports[port[0]], block.text)))
        return self.shell.output


def _free_ports() -> dict[str, str]:
    """The ports that pages name, each with a free one: tests run beside whatever else runs here."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        numbers = [str(door.getsockname()[1]) for door in held]
    return dict(zip(("15051", "15052", "15053"), numbers, strict=True))


def missing_line(expected: str, printed: str) -> str | None:
    """The first line of `expected` that `printed` lacks after those before it; None where all are there."""
    lines: Iterator[str] = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in expected.splitlines():
        words = " ".join(line.split())
        pattern = ".*".join(re.sub(_DECIMAL, _NUMBER, re.escape(part.strip())) for part in words.split("…"))
        if words.strip("… ") and not any(re.search(pattern, candidate) for candidate in lines):
            return line
    return None


def environment_of(folder: Path, *paths: Path) -> dict[str, str]:
    """A small environment with a home of its own; commands come from `paths` first."""
    keep = {
        name: os.environ[name]
        for name in ("LANG", "TMPDIR", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_COMPILE")
        if name in os.environ
    }
    search = os.pathsep.join([*map(str, paths), *os.environ["PATH"].split(os.pathsep)])
    return {**keep, "PATH": search, "HOME": str(folder), "COLUMNS": "120", "MPLBACKEND": "Agg", "PYTHONUTF8": "1"}


def here() -> Path:
    """The folder of the commands of the environment that runs the tests."""
    return Path(sys.executable).parent
