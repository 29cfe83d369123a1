"""State of this process: environment variables, BLAS threads, signals, standard streams."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from cospan.wire.console import dropping_stream

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "false",
    "GRPC_VERBOSITY": "NONE",
}
"""Read by numpy and gRPC when they are imported. One BLAS thread: agents on one machine fight over the cores
otherwise, and small matrices gain nothing from more."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers that glibc's malloc.h gives them."""
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 128 << 20, 32 << 20
KEPT_BY_AN_AGENT = 16 << 20
"""Bytes; a machine may run many agents."""


def prepare_environment(arguments: Sequence[str]) -> None:
    """Sets variables that numpy and gRPC read at import, unless they are set; children inherit them.

    A coordinator or a relay with TLS does not silence gRPC, which alone reports why a handshake was refused.
    """
    said = any(argument.startswith("--tls-cert") for argument in arguments) or os.environ.get("COSPAN_TLS_CERT")
    if said and arguments[:1] in (["coordinator"], ["relay"]):
        os.environ.setdefault("GRPC_VERBOSITY", "")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def use_one_blas_thread() -> None:
    """Pins the BLAS libraries that are loaded so far to one thread, whatever the environment says."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)


def collect_nothing_yet() -> None:
    """Holds garbage collection off while a program imports modules, which stay until it ends.

    Looking through them again and again takes a tenth of a start; `collect_from_now_on` ends it.
    """
    gc.freeze()
    gc.disable()


def collect_from_now_on() -> None:
    """Collects garbage again, but not among what was imported; where collection was on nothing changes."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def keep_what_is_loaded() -> None:
    """Tells the garbage collector that what has been imported stays: it need not look at it again and again."""
    gc.collect()
    gc.freeze()


def keep_freed_memory(most_bytes: int = _KEPT_BYTES) -> None:
    """Tells the C library, where it is glibc, to keep for the next round what the last one has freed.

    Otherwise matrices of 128 KiB and more go back to the system after each round, and every page of the next ones
    is a fault. What is kept is at most what one round needed, and `most_bytes`.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, min(_LARGEST_KEPT_BYTES, most_bytes))
        mallopt(_M_TRIM_THRESHOLD, most_bytes)


def on_stop_signal(stop: Callable[[str], None]) -> None:
    """Calls `stop`, from the event loop, with the name of each SIGINT, SIGTERM and SIGHUP."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop, number.name)


class LastExit:
    """Ends this process if it does not end by itself after it was told to.

    A library may take a cancellation for itself, and a thread may wait for a name server: neither must keep a
    process from ending that was asked to.
    """

    def __init__(self, is_busy: Callable[[], bool] = lambda: False) -> None:
        """`is_busy` says whether what takes long is work that is worth waiting for, as files that are written."""
        self._is_busy = is_busy
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def due(self, seconds: float, code: int, say: Callable[[], None] | None = None) -> None:
        """Calls `say` and ends the process with this code unless `over` is called within `seconds`."""
        timer = threading.Timer(seconds, self._leave, (seconds, code, say))
        timer.daemon = True
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = timer
        timer.start()

    def over(self) -> None:
        """What might not have ended has ended."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()

    def _leave(self, seconds: float, code: int, say: Callable[[], None] | None) -> None:
        if self._is_busy():
            self.due(seconds, code, say)
            return
        with contextlib.suppress(Exception):
            if say is not None:
                say()
            text = f"the process did not end within {seconds:g} s after it was told to, and is ended now\n"
            os.write(2, text.encode())
        os._exit(code)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask for an orderly end; without SIGHUP where it is ignored, as under nohup."""
    asked = (signal.SIGINT, signal.SIGTERM)
    return asked if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*asked, signal.SIGHUP)


def ignore_hangups() -> None:
    """Lets a terminal close without ending this process, from now on."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def on_end_of_stdin(stop: Callable[[str], None], hear: Callable[[bytes], None] | None = None) -> None:
    """Calls `stop` when standard input, a pipe, ends: so a child notices that its parent is gone.

    `hear` is given each line that the parent writes before.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    begun = bytearray()

    def read() -> None:
        data = os.read(descriptor, 65536)
        if not data:
            loop.remove_reader(descriptor)
            stop("end of standard input")
        elif hear is not None:
            begun.extend(data)
            *lines, rest = bytes(begun).split(b"\n")
            begun[:] = rest
            for line in lines:
                hear(line)

    loop.add_reader(descriptor, read)


class JsonLines:
    """One JSON object per line, from any thread. A reader that is gone is no reason to fail."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def emit(self, event: str, **values: object) -> None:
        """Writes one line; a NaN must have been made null before."""
        self.write({"event": event, **values})

    def write(self, document: Mapping[str, object]) -> None:
        """Writes one object as one line."""
        import json  # `cospan --help` has no use for it

        line = json.dumps(document, allow_nan=False)
        try:
            with self._lock:
                self._stream.write(f"{line}\n")
                self._stream.flush()
        except OSError:
            pass


def claim_stdout(*, dropping: bool = False) -> TextIO:
    """Standard output for data alone: what a workload prints goes to standard error from now on.

    Args:
        dropping: whether data that cannot be written are dropped, as of a process that works for others.
    """
    sys.stdout.flush()
    descriptor = os.dup(1)
    claimed = dropping_stream(descriptor) if dropping else os.fdopen(descriptor, "w", encoding="utf-8")
    os.dup2(2, 1)
    return claimed
