"""Standard streams that were closed before the process started."""

import subprocess
import sys
from pathlib import Path


def test_closed_standard_streams_are_opened_before_a_file_gets_their_numbers(tmp_path: Path) -> None:
    """As with `cospan … >&- 2>&- <&-`."""
    program = (
        "import os, sys; from cospan.wire.console import open_standard_streams, drop_unwritable, say\n"
        "open_standard_streams(); drop_unwritable(); say('lost'); print('lost', flush=True); sys.stdin.read()\n"
        "found = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(found, str(found).encode())"
    )
    path = tmp_path / "descriptor"
    shell = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", shell, sys.executable, program, str(path)], check=False)
    assert done.returncode == 0
    assert int(path.read_text()) > 2
