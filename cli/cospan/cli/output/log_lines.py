"""The log: JSON lines in the run folder, and errors on standard error."""

import contextlib
import errno
import json
import logging
import os
import stat
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from cospan.server.net.log_throttle import LogThrottle
from cospan.wire.console import say
from cospan.wire.errors import RunFileError
from cospan.wire.text import MAX_RECORD, printable, printable_lines


class OnceASecond(logging.Filter):
    """Lets warnings and errors of one kind through once a second, with the number of those held back before.

    One kind is one text of this program, or what another library says before it names its particulars: a flood of
    connections must not fill the disk with tracebacks. The number is `suppressed` of the record.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sparing = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if record.levelno < logging.WARNING:
            return True
        own = record.name.startswith("cospan")
        text = record.getMessage() if own else str(record.msg).partition("\n")[0]
        held_back = self._sparing.due((record.name, record.levelno, text))
        record.suppressed = held_back or 0
        return held_back is not None


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), MAX_RECORD),
        }
        if getattr(record, "suppressed", 0):
            entry["suppressed"] = getattr(record, "suppressed", 0)
        if record.exc_info:
            entry["exception"] = printable_lines(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


class _ErrorHandler(logging.Handler):
    """Errors on whatever standard error is at the time; the noise of asyncio and gRPC goes to the log alone."""

    def __init__(self, level: int = logging.ERROR) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.addFilter(lambda record: not record.name.startswith(("asyncio", "grpc")))
        self.addFilter(OnceASecond())

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record."""
        for line in self.format(record).splitlines():
            say(line)


class _LogFile(logging.FileHandler):
    """A log that reports a failure to write, as on a full disk, once, and raises nothing."""

    _complained = False

    def _open(self) -> TextIOWrapper:
        """Appends to a regular file alone: in a folder of others a pipe would be waited for, a link followed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if Path(self.baseFilename).is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        descriptor = os.open(self.baseFilename, flags, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a file")
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8", errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says why, in place of a traceback for every record."""
        failure = sys.exc_info()[1]
        if not isinstance(failure, OSError):
            super().handleError(record)
        elif not self._complained:
            self._complained = True
            say(f"cannot write {self.baseFilename}: {failure.strerror}; the log has a gap")


def log_errors_to_stderr() -> None:
    """Errors, and nothing less, on standard error."""
    root = logging.getLogger()
    if not any(isinstance(handler, _ErrorHandler) for handler in root.handlers):
        root.addHandler(_ErrorHandler())


def log_warnings_to_stderr(name: str) -> None:
    """Also the warnings of one logger, on standard error."""
    logger = logging.getLogger(name)
    if not any(isinstance(handler, _ErrorHandler) for handler in logger.handlers):
        logger.addHandler(_ErrorHandler(logging.WARNING))


def log_to_file(path: Path) -> logging.Handler:
    """Appends JSON lines to `path`, as other processes may; `stop_logging` takes it off.

    Raises:
        RunFileError: it is no file, or cannot be written.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure
    handler.setFormatter(JsonFormatter())
    handler.addFilter(OnceASecond())
    logging.getLogger().addHandler(handler)
    logging.getLogger("cospan").setLevel(logging.INFO)
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Takes a handler of `log_to_file` off, and closes its file."""
    logging.getLogger().removeHandler(handler)
    with contextlib.suppress(OSError):  # what the disk has not taken before
        handler.close()
