"""Who takes part in a round's secure sum, and the epoch that this makes.

A *member* is one process that uploads: of one agent, or of a group. Each has a key of its own, made when it
starts. An *epoch* is as long as the members stay the same; its id is a hash of them, so it need not be stored: a
coordinator that restarts while its members run finds the same one.
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

KEY_BYTES = 32
MIN_COHORT = 3
"""Least number of members of an epoch, where the run does not say: of two, each learns the other's numbers."""
_CONTEXT = b"cospan secure sums 1: epoch"


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A process that uploads.

    Attributes:
        public_key: X25519, 32 bytes; what members are ordered by.
        agent_ids: the agents whose sum it uploads, in the order in which it named them; not empty.
    """

    public_key: bytes
    agent_ids: tuple[str, ...]

    @property
    def encoded(self) -> bytes:
        """The key, the number of agents, and for each the length of its name and the name: numbers as 8 bytes."""
        return self.public_key + _number(len(self.agent_ids)) + b"".join(map(_text, self.agent_ids))


@dataclass(frozen=True)
class Membership:
    """The members of an epoch of a run, in the order of their public keys, whatever order they were given in.

    Attributes:
        run_id: of the run.
        members: one or more.
    """

    run_id: str
    members: tuple[Member, ...]

    @classmethod
    def of(cls, run_id: str, members: Iterable[Member]) -> "Membership":
        """The membership of these, ordered."""
        return cls(run_id, tuple(sorted(members)))

    @property
    def agents(self) -> int:
        """How many agents all members have together."""
        return sum(len(member.agent_ids) for member in self.members)

    @cached_property
    def epoch_id(self) -> bytes:
        """SHA-256, 32 bytes, of the context, the run id with its length, the number of members, and each member."""
        digest = hashlib.sha256(_CONTEXT + _text(self.run_id) + _number(len(self.members)))
        for member in self.members:
            digest.update(member.encoded)
        return digest.digest()

    def place_of(self, public_key: bytes) -> int | None:
        """The place of the member with this key; None where there is none."""
        for place, member in enumerate(self.members):
            if member.public_key == public_key:
                return place
        return None

    def problem_for(self, own: Member, min_cohort: int) -> str:
        """Why a member must not send in this epoch; empty where it may.

        Args:
            own: the member that asks: its key, and the agents that it named.
            min_cohort: the smallest number of members, from the run's specification.
        """
        members = self.members
        if len(members) < min_cohort:
            return (
                f"the epoch has {len(members)} members; with fewer than min_cohort, {min_cohort}, a sum would show "
                "too much of each"
            )
        if any(len(member.public_key) != KEY_BYTES or not member.agent_ids for member in members):
            return "a member has no agents, or a key that is not 32 bytes long"
        if any(before >= after for before, after in itertools.pairwise(members)):
            return "the members are not in the order of their keys"
        if len({member.public_key for member in members}) < len(members):
            return "two members have one key"
        named = [agent_id for member in members for agent_id in member.agent_ids]
        if len(set(named)) < len(named):
            return "an agent is named twice in the epoch"
        if own not in members:
            return "this process, with its key and its agents, is not among the members of the epoch"
        return ""


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _text(value: str) -> bytes:
    data = value.encode()
    return _number(len(data)) + data
