"""A newcomer follows docs/start.md: from a clone to the value function of an environment of their own."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

from docs.pages import ROOT, Shell, blocks_of, environment_of

SECONDS = 15 * 60.0
"""Bound on a block. How long all take is printed: the page promises 15 minutes, reading time included."""


def test_a_newcomer_reaches_a_value_function_by_the_page_alone(tmp_path: Path) -> None:
    town = tmp_path / "town"
    town.mkdir()
    begun = time.monotonic()
    shell = Shell(town, environment_of(tmp_path), SECONDS)
    try:
        for block in blocks_of(ROOT / "docs" / "start.md"):
            shell.do(
                replace(
                    block, text=block.text.replace("git clone URL", f"git clone --quiet '{_snapshot(tmp_path)}'")
                )
            )
    finally:
        shell.close()
    print(f"a newcomer's commands took {time.monotonic() - begun:.0f} s")
    assert (town / "tanks" / "convergence.png").exists()


def _snapshot(folder: Path) -> Path:
    """A repository with the files of the tree as they are, committed or not."""
    repository = folder / "repository"
    if not repository.exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                target = repository / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((ROOT / name).read_bytes())
        identity = ["-c", "user.name=newcomer", "-c", "user.email=newcomer@example.org"]
        subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
        subprocess.run(["git", *identity, "commit", "--quiet", "--message", "tree"], cwd=repository, check=True)
    return repository
