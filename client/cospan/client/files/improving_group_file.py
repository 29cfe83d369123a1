"""The file of a group of a run with improvement steps: the files of its members, one after another."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.result_file import check_owner, largest, load_result, owner
from cospan.client.files.result_file import contents as member_contents
from cospan.client.files.result_file import restore as restore_member
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import MAX_BYTES

FORMAT = "cospan-improving-group-1"
_TITLE = "the result of a group"


def contents(group: ImprovingGroup, run_id: str) -> dict[str, Any]:
    """What the file holds: as it is now, whatever the group learns while that is being written."""
    values: dict[str, Any] = {
        "format": FORMAT,
        **owner(group.name, group.specification, run_id),
        "workload": group.specification.workload,
        "last_round": -1 if group.last_round is None else group.last_round,
        "agent_ids": np.array(group.names),
    }
    saved = []
    for place, member in enumerate(group.members):
        found = member_contents(member, run_id)
        saved.append(bool(found["chain_state"]))
        values |= {f"{_prefix(place)}{name}": value for name, value in found.items()}
    # As in an agent's file: whether the chains continue exactly from it.
    values["chain_state"] = "of each member" if all(saved) else ""
    return values


def load(path: Path, *, names: Collection[str] | None = None, most_bytes: int = MAX_BYTES) -> AgentResult:
    """Reads such a file; `names` are of the group's own values, without which all are read."""
    return load_result(path, names=names, most_bytes=most_bytes, expected=FORMAT, title=_TITLE)


def members_of(result: AgentResult) -> list[AgentResult]:
    """Each member of a file that was read in whole, by the names of an agent's own file.

    Raises:
        RunFileError: the file is damaged.
    """
    names = result.array("agent_ids")
    if names.ndim != 1:
        raise RunFileError("'agent_ids' in the result of a group is no list of names; the file is damaged")
    return [_member(result, place) for place in range(len(names))]


def member_of(path: Path, name: str) -> AgentResult | None:
    """One member of a file; None where the group has no such agent."""
    found = members_of(load(path))
    return next((each for each in found if each.text("agent_id") == name), None)


def resume(group: ImprovingGroup, path: Path, run_id: str) -> str:
    """Restores a group from a file of the same run and agents; see `result_file.resume`."""
    result = load(path, most_bytes=largest(group.specification, len(group.names)))
    check_owner(result, path, owner(group.name, group.specification, run_id))
    members = {each.text("agent_id"): each for each in members_of(result)}
    missing = [name for name in group.names if name not in members]
    if missing and len(missing) < len(group.names):
        group.drop(dict.fromkeys(missing, "it had failed before its process was started again"))
    last_round = result.last_round
    words = [restore_member(member, members[member.name]) for member in group.members if member.name in members]
    group.last_round = last_round
    return next(filter(None, words), "")


def _prefix(place: int) -> str:
    return f"member_{place}_"


def _member(result: AgentResult, place: int) -> AgentResult:
    prefix = _prefix(place)
    return AgentResult(
        {name.removeprefix(prefix): value for name, value in result.values.items() if name.startswith(prefix)}
    )
