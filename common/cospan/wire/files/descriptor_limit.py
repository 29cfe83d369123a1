"""How many files a process may have open."""

import contextlib
import resource


def raise_file_limit() -> int | None:
    """Lets this process have as many files open as it is allowed to; how many that is, None for no limit.

    The default, often 1,024, is for `select`. Children inherit what is set here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # a system may have a limit of its own below this one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
