"""A store whose file may not grow any further."""

import subprocess
import sys
from pathlib import Path

from runs import SECONDS
from stored import NAME, round_of

from cospan.server.storage.writer import open_store

_FILL = """
import resource, sys
from pathlib import Path
from stored import served, round_of
from cospan.wire.errors import RunFileError
path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with served(path) as store:
        number = 0
        while True:
            store.write([round_of(number)])
            number += 1
            print(number, flush=True)
except RunFileError as failure:
    print(failure)
"""


def fill(path: Path, limit: int) -> list[str]:
    """What a process says that stores rounds until no file may grow any more, and then goes down."""
    tests = str(Path(__file__).parents[1])
    script = f"import sys; sys.path.insert(0, {tests!r})\n{_FILL}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(limit)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path) -> None:
    *numbers, said = fill(tmp_path / NAME, 400_000)
    assert said.startswith(f"cannot store the run in {tmp_path / NAME}: ")
    assert said.endswith("check the disk, and start the coordinator again to resume the run")
    store = open_store(tmp_path / NAME)
    assert store.saved.round == int(numbers[-1])
    store.write([round_of(store.saved.round)])
    store.close()


def test_a_run_that_cannot_even_begin_leaves_nothing(tmp_path: Path) -> None:
    (said,) = fill(tmp_path / NAME, 10_000)
    assert said.startswith(f"cannot store a run in {tmp_path / NAME}: ")
    assert list(tmp_path.iterdir()) == []
