"""Every command and program of docs/ is run, in an empty folder for each page."""

from pathlib import Path

import pytest
from docs.pages import NOT_RUN, ROOT, Block, Reader, Shell, blocks_of, environment_of, here, missing_line

SECONDS = 300.0
"""Bound on a block: none takes more than some seconds, but the machine may do ten other things."""
ELSEWHERE = {
    ROOT / "README.md",  # run by test_readme.py
    ROOT / "docs" / "start.md",  # installs; followed by test_newcomer.py
    ROOT / "docs" / "python-api.md",  # one program; run by tests/behaviour/test_python.py
}
PAGES = sorted({ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")} - ELSEWHERE)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.is_run for block in blocks_of(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_what_a_page_says_to_run_runs(page: Path, tmp_path: Path) -> None:
    with Reader(tmp_path, SECONDS) as reader:
        for block in blocks_of(page):
            reader.do(block)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_that_are_not_run_say_why(page: Path) -> None:
    for block in blocks_of(page):
        if block.title.startswith(NOT_RUN):
            assert len(block.title.removeprefix(NOT_RUN)) > 8, f"{page}:{block.line}"


def test_the_shell_goes_on_where_it_was_and_finds_what_fails(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    shell = Shell(folder, environment_of(tmp_path, here()), SECONDS)
    try:
        shell.do(Block("console", "", "mkdir inner; cd inner; export WORD=kept\n", 1))
        shell.do(Block("sh", "", "echo $WORD in $(basename $PWD)\n", 2))
        shell.do(Block("text", "Prints", "kept in inner\n", 3))
        shell.do(Block("python", "note.py", "print('a file')\n", 4))
        assert (folder / "note.py").exists()
        with pytest.raises(AssertionError, match="line 5: 3"):
            shell.do(Block("console", "", "exit 3\n", 5))
        with pytest.raises(AssertionError, match="not in what was printed"):
            shell.do(Block("text", "Prints", "something else\n", 6))
    finally:
        shell.close()


def test_expected_lines_come_in_their_order_and_loosely() -> None:
    assert missing_line("a …  c\n…\nlast\n", "a b   c\nx\nat last\n") is None
    assert missing_line("last\na\n", "a\nlast\n") == "a"
    assert missing_line("-1.5 of 12.5 s\n", "3.1e-05 of 7 s\n") is None
    assert missing_line("12.5 s\n", "a s\n") == "12.5 s"
    assert missing_line("4 agents\n", "5 agents\n") == "4 agents"
