"""The log: JSON lines in the run folder, and only what went wrong on standard error."""

import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from cospan.fleet.output import say


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _ErrorHandler(logging.Handler):
    """Errors on whatever standard error is at the time; the noise of asyncio and gRPC goes to the log alone."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.addFilter(lambda record: not record.name.startswith(("asyncio", "grpc")))

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record."""
        say(self.format(record))


class _LogFile(logging.FileHandler):
    """A log that says once when it cannot be written, as on a full disk, and keeps nobody from his work."""

    _complained = False

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


def log_to_file(path: Path) -> logging.Handler:
    """Appends JSON lines to `path`, as other processes may; `stop_logging` takes it off."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    logging.getLogger("cospan").setLevel(logging.INFO)
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Takes a handler of `log_to_file` off, and closes its file."""
    logging.getLogger().removeHandler(handler)
    with contextlib.suppress(OSError):  # what the disk has not taken before
        handler.close()
