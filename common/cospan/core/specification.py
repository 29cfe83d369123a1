"""The run specification: everything that two parties of a run must agree on."""

import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.subspace import random_basis
from cospan.core.method import MAX_HISTORY_DIM, HeadUpdate, Method

MAX_FEATURE_DIM = 2**24
MAX_MESSAGE_NUMBERS = 2**27
"""Most numbers in one message of a run, 1 GiB of float64; protobuf takes no message of 2 GiB."""
MIN_LIVENESS_SECONDS, MAX_SECONDS = 0.01, 1e9
"""Agents speak four times in `session_timeout_seconds`; 1e9 s are 31 years."""
MAX_AGENTS = 2**20
MAX_STALENESS = 1000
MAX_NAME = 256
"""Most characters of a workload's name and of a feature map's fingerprint."""
SITE_PREFIX = "site-"
"""Before the index of a site, what its agent is called where nobody says otherwise."""
AGENT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""What an agent may be called. The name is also a file's name, so no path can be made of it."""


class Participation(Enum):
    """Whom a round waits for."""

    ALL = "all"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class RunSpecification:
    """A run.

    Attributes:
        workload: name, for people.
        feature_dim: d.
        rank: r, 1 ≤ r ≤ d.
        feature_fingerprint: that of the feature map; empty until the first agent to join fixes it.
        agents: number of agents that round 0 waits for.
        rounds: number of rounds; 0 for a run that ends when it is stopped.
        seed: of the initial basis, and of the agents' generators.
        method: the constants of the learning rule.
        participation: whom a round waits for.
        session_timeout_seconds: the longest silence after which an agent is taken for dead.
        round_timeout_seconds: the longest time one round waits for an agent that is alive.
        quorum: with a quorum, how many gradients a round needs: below 1 a share of its agents, else a number.
        deadline_seconds: with a quorum, after so long a round waits for it alone; 0: learnt from the rounds.
        max_staleness: with a quorum, how many rounds old a gradient may be and still count.
        min_agents: with how many agents round 0 opens when not all are there in time; 0 for all.
    """

    workload: str
    feature_dim: int
    rank: int
    agents: int
    rounds: int
    seed: int
    method: Method
    feature_fingerprint: str = ""
    participation: Participation = Participation.ALL
    session_timeout_seconds: float = 5.0
    round_timeout_seconds: float = 60.0
    quorum: float = 0.0
    deadline_seconds: float = 0.0
    max_staleness: int = 0
    min_agents: int = 0

    def problems(self) -> list[str]:
        """Everything that is out of range, one sentence each; empty when all is well."""
        seconds = f"at most {MAX_SECONDS:g}"
        allowed = [
            ("feature_dim", 1 <= self.feature_dim <= MAX_FEATURE_DIM, f"1 to {MAX_FEATURE_DIM}"),
            ("rank", 1 <= self.rank <= self.feature_dim, f"1 to the feature dimension {self.feature_dim}"),
            ("agents", 1 <= self.agents <= MAX_AGENTS, f"1 to {MAX_AGENTS}"),
            ("rounds", 0 <= self.rounds < 2**63, "0 or more (0: until stopped)"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63 − 1"),
            (
                "session_timeout_seconds",
                MIN_LIVENESS_SECONDS <= self.session_timeout_seconds <= MAX_SECONDS,
                f"at least {MIN_LIVENESS_SECONDS:g} and {seconds}",
            ),
            ("round_timeout_seconds", 0.0 < self.round_timeout_seconds <= MAX_SECONDS, f"above 0 and {seconds}"),
            ("min_agents", 0 <= self.min_agents <= max(0, self.agents), f"0 to the number of agents {self.agents}"),
        ]
        allowed += self._participation_ranges()
        found = [f"{name} is {getattr(self, name)!r}; it must be {text}" for name, ok, text in allowed if not ok]
        named = (("workload", self.workload), ("feature_fingerprint", self.feature_fingerprint))
        found += [
            f"{name} has {len(text)} characters; it must be at most {MAX_NAME}"
            for name, text in named
            if len(text) > MAX_NAME
        ]
        found += [problem for name, text in named if (problem := unprintable_problem(name, text)) is not None]
        numbers = message_numbers(self.feature_dim, self.rank)
        if not found and numbers > MAX_MESSAGE_NUMBERS:
            found.append(
                f"feature_dim is {self.feature_dim} and rank {self.rank}: a message would hold {numbers} numbers; "
                f"at most {MAX_MESSAGE_NUMBERS} are allowed, so lower the rank"
            )
        if self.method.head_update is HeadUpdate.FULL_HISTORY and self.feature_dim > MAX_HISTORY_DIM:
            found.append(
                f"feature_dim is {self.feature_dim}; with full-history corrections, which keep d × d numbers at "
                f"every agent, it must be at most {MAX_HISTORY_DIM}; the preset compact keeps r × r"
            )
        warm_up = self.method.warm_up_rounds
        if warm_up > 0 and self.feature_dim > MAX_HISTORY_DIM:
            found.append(
                f"feature_dim is {self.feature_dim}; with a warm-up, in which agents keep d × d numbers, it must "
                f"be at most {MAX_HISTORY_DIM}; set warm_up_rounds to 0"
            )
        if 0 < self.rounds <= warm_up:
            found.append(
                f"warm_up_rounds is {warm_up}; it must be below the number of rounds {self.rounds}, "
                "or nothing is learnt after it"
            )
        return found + self.method.problems()

    def _participation_ranges(self) -> list[tuple[str, bool, str]]:
        if self.participation is Participation.ALL:
            nothing = "0, or say participation quorum"
            names = ("quorum", "deadline_seconds", "max_staleness")
            return [(name, getattr(self, name) == 0, nothing) for name in names]
        counted = self.quorum < 1.0 or float(self.quorum).is_integer()
        return [
            ("quorum", 0.0 < self.quorum <= MAX_AGENTS and counted, "a share below 1, or a number of agents"),
            (
                "deadline_seconds",
                0.0 <= self.deadline_seconds <= MAX_SECONDS,
                f"0 (learnt), or above 0 and at most {MAX_SECONDS:g}",
            ),
            ("max_staleness", 0 <= self.max_staleness <= MAX_STALENESS, f"0 to {MAX_STALENESS}"),
        ]

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of every field: equal exactly for equal specifications."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """Plain values under the fields' names, for files and for people."""
        values = asdict(self)
        _as_floats(values, RunSpecification)
        _as_floats(values["method"], Method)
        values["participation"] = self.participation.value
        values["method"]["head_update"] = self.method.head_update.value
        values["method"]["aggregation"] = self.method.aggregation.value
        return values

    def initial_basis(self) -> Float[np.ndarray, "d r"]:
        """B_0: uniformly distributed, from the seed alone."""
        return random_basis(self.feature_dim, self.rank, np.random.default_rng(self.seed))


def basis_digest(basis: Float[np.ndarray, "d r"]) -> str:
    """SHA-256, in hexadecimal, of the float64 bytes in little-endian C order."""
    return hashlib.sha256(np.ascontiguousarray(basis, dtype="<f8").data.cast("B")).hexdigest()


def _as_floats(values: dict[str, Any], of: type[Any]) -> None:
    """Gives one spelling to numbers that are equal, 3 and 3.0 or 0.0 and −0.0, where a field holds a float."""
    for field in fields(of):
        if field.type is float:
            values[field.name] = float(values[field.name]) + 0.0


def agent_id_problem(agent_id: str) -> str | None:
    """What is wrong with an agent's name, or None."""
    if AGENT_ID.fullmatch(agent_id):
        return None
    return f"agent id {agent_id[:80]!r} must be 1 to 64 letters, digits, '.', '_' or '-', and not begin with '.'"


def message_numbers(feature_dim: int, rank: int) -> int:
    """Numbers in the largest message of a run with features of length d and rank r.

    That is a factored gradient with as many factors as columns: u (d × r), v (r × r), the heads' second moment
    (r × r) and row sums (d × 1). The two estimates of a warm-up are d × 2.
    """
    return feature_dim * max(rank, 2) + 2 * rank * rank + feature_dim


def unprintable_problem(name: str, text: str) -> str | None:
    """What is wrong with a text that stands in tables, logs and on terminals, or None.

    Every printable character and every space separator (Unicode's Zs) is allowed; control and format characters,
    among them ESC, line ends and bidirectional overrides, are not.
    """
    if text.isprintable():
        return None
    for at, character in enumerate(text):
        if not character.isprintable() and unicodedata.category(character) != "Zs":
            shown = f"{text[:80]!r}{'…' if len(text) > 80 else ''}"
            return f"{name} is {shown}, with U+{ord(character):04X} at character {at + 1}; it must be printable"
    return None
