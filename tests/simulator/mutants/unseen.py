"""Generated mutants that simulated runs cannot find, each with the reason."""

_UNSEEN: tuple[tuple[str, str], ...] = ()


def reason_unseen(what: str) -> str:
    """Why simulated runs cannot find a generated mutant; empty where they must."""
    return next((reason for part, reason in _UNSEEN if part in what), "")
