"""The sites of one of N processes that divide a fleet: what an engine's index variable says they are.

Every engine numbers its processes. Two processes with the same N and different numbers never share a site, and a
process that is started again with its number hosts the same sites.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping

from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import MAX_GROUP

AUTO = "auto"
_HOST_NAME = "hostname"
_SHARD = re.compile(r"\s*([A-Za-z_]+|[0-9]{1,9})\s*/\s*([0-9]{1,9})\s*")
_FIRST = {"JOB_COMPLETION_INDEX": "0", "SLURM_ARRAY_TASK_ID": "SLURM_ARRAY_TASK_MIN", "SWARM_TASK_SLOT": "1"}
"""Variables of Kubernetes' Indexed Jobs, of Slurm's arrays and of Cospan's Swarm stack: the first number of each,
or the variable that holds it."""


def sites_of_shard(
    shard: str,
    agents: int,
    *,
    environment: Mapping[str, str] = os.environ,
    host_name: Callable[[], str] = socket.gethostname,
) -> range:
    """The consecutive sites of shard K of N: from ⌊agents·K/N⌋ to ⌊agents·(K+1)/N⌋ − 1.

    Args:
        shard: K/N with K from 0 to N − 1. In place of a number K may be the name of a variable
            (`JOB_COMPLETION_INDEX`, `SLURM_ARRAY_TASK_ID`, `SWARM_TASK_SLOT`), which is then read; `hostname` for
            the number that ends the host's name, from 0 on, as of a pod of a StatefulSet; or `auto` for the first
            of these variables that is set, and without one the host's name.
        agents: number of sites of the fleet, 1 or more.
        environment: the variables.
        host_name: gives the name of this host.

    Raises:
        InvalidValueError: the text is none of these, the variable is not set, or the shard has no site or too many.
    """
    match = _SHARD.fullmatch(shard)
    if match is None:
        raise InvalidValueError(
            f"shard is {shard[:80]!r}; it must be K/N with K from 0 on, as 3/8, JOB_COMPLETION_INDEX/8 or auto/8"
        )
    number = int(match[2])
    if number < 1:
        raise InvalidValueError(f"shard is {shard!r}; the number of shards must be 1 or more")
    index, origin = _index(match[1], environment, host_name)
    if not 0 <= index < number:
        raise InvalidValueError(
            f"shard is {shard!r}{origin}, and of {number} shards the first is 0/{number} and the last "
            f"{number - 1}/{number}; start as many processes as there are shards, and say their number after the /"
        )
    sites = range(agents * index // number, agents * (index + 1) // number)
    if not sites:
        raise InvalidValueError(
            f"shard {index}/{number} of {agents} agents has no site; use at most {agents} shards"
        )
    if len(sites) > MAX_GROUP:
        least = -(-agents // MAX_GROUP)
        raise InvalidValueError(
            f"shard {index}/{number} has {len(sites)} agents, and a process hosts at most {MAX_GROUP}; use "
            f"{least} shards or more"
        )
    return sites


def _index(name: str, environment: Mapping[str, str], host_name: Callable[[], str]) -> tuple[int, str]:
    """The index that a shard names, and where it is from, for error messages."""
    if name.isdigit():
        return int(name), ""
    if name == AUTO:
        name = next((each for each in _FIRST if environment.get(each)), _HOST_NAME)
    if name == _HOST_NAME:
        host = host_name()
        ordinal = re.search(r"(?<![0-9])([0-9]{1,9})$", host.partition(".")[0])
        if ordinal is None:
            raise InvalidValueError(
                f"the host's name {host[:80]!r} does not end in a number, from which the shard would follow, and "
                f"none of {', '.join(_FIRST)} is set; give --shard a number, as in 3/8"
            )
        return int(ordinal[1]), f" and the host's name {host!r}"
    if name not in _FIRST:
        raise InvalidValueError(
            f"shard names {name!r}, which is no index; it can be a number from 0 on, auto, {_HOST_NAME}, "
            f"{', '.join(_FIRST)}"
        )
    said, origin = environment.get(name, ""), f" and {name} is {environment.get(name, '')!r}"
    first = _FIRST[name] if _FIRST[name].isdigit() else environment.get(_FIRST[name], "0")
    if not (re.fullmatch(r"[0-9]{1,9}", said) and re.fullmatch(r"[0-9]{1,9}", first)):
        what = f"is {said[:40]!r}" if said else "is not set"
        raise InvalidValueError(
            f"{name}, from which the shard would follow, {what}; the engine sets it to a whole number, or give "
            "--shard a number, as in 3/8"
        )
    return int(said) - int(first), origin
