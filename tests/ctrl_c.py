"""Ctrl-C (SIGINT) in test processes, wherever they were started."""

import signal


def heed_ctrl_c() -> None:
    """Undoes that SIGINT is ignored, as a shell has it for what it starts with `&`.

    Child processes inherit that, and those that tests interrupt would then go on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
