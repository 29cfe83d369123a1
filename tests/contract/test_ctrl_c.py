"""Tests that interrupt child processes may themselves run in the background of a shell."""

import signal
import subprocess
import sys

from ctrl_c import heed_ctrl_c


def test_a_child_process_heeds_ctrl_c_where_the_tests_were_started_with_sigint_ignored() -> None:
    before = signal.getsignal(signal.SIGINT)
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        heed_ctrl_c()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stdout == "True\n"
