"""The exit codes of every command, and what each means."""

from collections.abc import Mapping
from types import MappingProxyType

DONE, FAILED, WRONG_USAGE, AGENTS_LOST = 0, 1, 2, 3
INTERRUPTED = 75
"""That of `InterruptedRunError`: stopped before the work was done, to be started again (EX_TEMPFAIL)."""

EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        DONE: "Done. For a run: all rounds are done, or `cospan stop` ended it.",
        FAILED: "Failed. Of `cospan doctor`: it found a problem; of `cospan reproduce`: a claim does not hold.",
        WRONG_USAGE: "Wrong usage: nothing was begun.",
        AGENTS_LOST: "`cospan run` reached its end with fewer agents than it began with; with `--allow-losses` 0.",
        INTERRUPTED: (
            "A signal (Ctrl-C, SIGTERM) stopped it before the end. What was learnt is written; the last line says "
            "how to continue."
        ),
    }
)
"""Exit code → what it means; docs/reference/errors.md has them as a table."""
