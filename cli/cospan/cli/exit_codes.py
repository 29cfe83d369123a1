"""Exit codes that say more than done, failed and wrong usage."""

INTERRUPTED = 75
"""Of a command that was stopped before its work was done and can be started again: EX_TEMPFAIL of sysexits.h."""
