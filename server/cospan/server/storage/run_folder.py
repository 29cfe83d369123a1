"""The stored run of a folder: made, or resumed where it is the run that is asked for."""

import secrets
from pathlib import Path
from typing import Any

from cospan.core.specification import RunSpecification
from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import read_state
from cospan.server.storage.writer import RunStore, create_store, open_store
from cospan.wire.errors import InvalidValueError, RunFileError

_MOST_NAMED = 3


def store_of(folder: Path, specification: RunSpecification) -> RunStore:
    """The store of a run folder: that of its run, which is to be resumed, or a new one in a folder without a run.

    Args:
        folder: of the run; made if it does not exist.
        specification: of the run that is asked for.

    Raises:
        InvalidValueError: the folder holds a run that is over, or another one than is asked for.
        RunFileError: the run is damaged, or another coordinator serves it; or the folder holds other files, or
            cannot be written to.
    """
    path = folder / STORE
    if path.exists():
        held = read_state(path)
        if held.finish_cause is not None:
            raise InvalidValueError(
                f"run folder {folder} holds run {held.run_id}, which is over ({held.finish_message}); name another "
                "for a new run"
            )
        differing = differences(held.specification, specification)
        if differing:
            raise InvalidValueError(
                f"the run in {folder}, of which {held.rounds} rounds are done, has {differing}: ask for the same "
                "to resume it, or name another folder"
            )
        return open_store(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as failure:
        raise RunFileError(f"cannot make the run folder {folder}: {failure.strerror}; name another") from failure
    if others:
        raise RunFileError(
            f"the run folder {folder} is not empty and holds no run ({sorted(others)[0]} is in it); name another"
        )
    return create_store(path, specification, run_id=secrets.token_hex(8))


def differences(held: RunSpecification, asked: RunSpecification) -> str:
    """The fields in which a run differs from what is asked for, with both values; empty if it is equal."""
    ours, theirs = _flat(asked.as_dict()), _flat(held.as_dict())
    free = ("feature_fingerprint",) if "" in (asked.feature_fingerprint, held.feature_fingerprint) else ()
    differing = [name for name, value in ours.items() if value != theirs[name] and name not in free]
    named = [f"{name} = {theirs[name]!r}, and {ours[name]!r} is asked for" for name in differing[:_MOST_NAMED]]
    more = f" (and {len(differing) - _MOST_NAMED} more)" if len(differing) > _MOST_NAMED else ""
    return "; ".join(named) + more


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    method: dict[str, Any] = values["method"]
    return {key: value for key, value in values.items() if key != "method"} | method
