"""Exit codes that say more than done, failed and wrong usage."""

INTERRUPTED = 75
"""That of `InterruptedRunError`: stopped before the work was done, to be started again (EX_TEMPFAIL)."""
