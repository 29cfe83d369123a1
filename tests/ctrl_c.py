"""Ctrl-C (SIGINT) and SIGTERM in test processes, wherever they were started."""

import signal
from types import FrameType


def heed_ctrl_c() -> None:
    """Undoes that SIGINT is ignored, as a shell has it for what it starts with `&`.

    Child processes inherit that, and those that tests interrupt would then go on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_as_interrupted() -> None:
    """A suite that is told to end (SIGTERM) cleans up as one that is interrupted."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
