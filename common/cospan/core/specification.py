"""The run specification: everything that two parties of a run must agree on."""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.decisions.schedule import Schedule
from cospan.core.fields import range_problems
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import (
    MAX_HISTORY_DIM,
    MAX_POSTERIOR_DIM,
    NO_BOUND_DEGREES,
    Aggregation,
    HeadUpdate,
    Method,
)
from cospan.core.privacy.promise import OF_PRIVACY, promise_problems
from cospan.core.run_fields import IMPROVEMENT_DEFAULTS, MAX_AGENTS, Participation, RunFields

MAX_MESSAGE_NUMBERS = 2**27
"""Most numbers in one message of a run, 1 GiB of float64; protobuf takes no message of 2 GiB."""
MAX_NAME = 256
"""Most characters of a workload's name and of a feature map's fingerprint."""
SITE_PREFIX = "site-"
"""Before the index of a site, the default name of its agent."""
AGENT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""What an agent may be called. The name is also a file's name, so no path can be made of it."""
_OF_QUORUM = ("quorum", "deadline_seconds", "max_staleness")
_OF_IMPROVEMENT = frozenset({"improve", *IMPROVEMENT_DEFAULTS})
_OF_SECURE_SUMS = frozenset({"secure_sums", "min_cohort"})


@dataclass(frozen=True, slots=True)
class RunSpecification(RunFields):
    """A run: its fields, and what follows from them."""

    def problems(self) -> list[str]:
        """Everything that is out of range, one sentence each; empty when all is well."""
        found = self._range_problems()
        named = (("workload", self.workload), ("feature_fingerprint", self.feature_fingerprint))
        found += [
            f"{name} has {len(text)} characters; it must be at most {MAX_NAME}"
            for name, text in named
            if len(text) > MAX_NAME
        ]
        found += [problem for name, text in named if (problem := unprintable_problem(name, text)) is not None]
        numbers = message_numbers(self.feature_dim, self.rank, self.pooled_length)
        if not found and numbers > MAX_MESSAGE_NUMBERS:
            found.append(
                f"feature_dim is {self.feature_dim} and rank {self.rank}: a message would hold {numbers} numbers; "
                f"at most {MAX_MESSAGE_NUMBERS} are allowed, so lower the rank"
            )
        most = MAX_POSTERIOR_DIM if self.method.has_head_covariance else MAX_HISTORY_DIM
        if self.method.keeps_history and self.feature_dim > most:
            found.append(
                f"feature_dim is {self.feature_dim}; with {self.method.head_update.value} head updates, which keep "
                f"d × d numbers at every agent, it must be at most {most}; the preset compact keeps r × r"
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
        found += self._improvement_problems() + self._secure_sums_problems() + self.method.problems()
        return found or promise_problems(self)

    def _range_problems(self) -> list[str]:
        """Fields that are out of their ranges; those of a quorum, and of improvement, are 0 where there is none."""
        unused: dict[str, str] = {}
        if self.participation is Participation.ALL:
            unused |= dict.fromkeys(_OF_QUORUM, "say participation quorum")
        if self.improve <= 0:
            unused |= dict.fromkeys(IMPROVEMENT_DEFAULTS, "say how many steps of improvement there are (improve)")
        if not self.secure_sums:
            unused["min_cohort"] = "set secure_sums (--secure-sums)"
        if self.dp_epsilon == 0.0:
            unused |= dict.fromkeys(OF_PRIVACY[1:], "say dp_epsilon")
        told = ("min_cohort",) if self._lacks_cohort else ()
        found = range_problems(self, without=(*unused, *told)) + [
            f"{name} is {getattr(self, name)!r}; it must be 0, or {otherwise}"
            for name, otherwise in unused.items()
            if getattr(self, name) != 0
        ]
        if "quorum" in unused:
            return found
        if 1.0 < self.quorum <= MAX_AGENTS and not float(self.quorum).is_integer():
            found.append(f"quorum is {self.quorum!r}; it must be a share below 1, or a whole number of agents")
        return found

    def _improvement_problems(self) -> list[str]:
        """What speaks against improvement steps in this run."""
        if self.improve <= 0:
            return []
        found = []
        if self.method.head_update is not HeadUpdate.POSTERIOR:
            found.append(
                f"improve is {self.improve}, and policies are improved with the preset practical; this run has "
                f"{self.method.head_update.value} head updates"
            )
        if self.max_staleness:
            found.append(
                f"max_staleness is {self.max_staleness}; with improvement steps it must be 0, for gradients of a "
                "trial are zero and would count in a later round"
            )
        if 0 < self.rounds < self.schedule.rounds:
            found.append(
                f"rounds is {self.rounds}; it must be {self.schedule.rounds} or more (improve is {self.improve}, "
                f"and each step has {self.evaluation_rounds} rounds of evaluation and {self.trial_rounds} of "
                "trial); rounds after the last step evaluate the policies that are held then"
            )
        return found

    def _secure_sums_problems(self) -> list[str]:
        """What a coordinator that receives only sums cannot do, each with the reason."""
        if not self.secure_sums:
            return []
        found = []
        if self._lacks_cohort:
            found.append(
                f"agents is {self.agents} and min_cohort is {self.min_cohort}; of fewer processes than min_cohort "
                "no secure sum is formed, so have more agents"
            )
        if self.participation is not Participation.ALL:
            found.append(
                "participation is quorum; with secure sums it must be all, for the masks cancel only in the sum of "
                "all members: leave out quorum"
            )
        if self.method.aggregation is not Aggregation.MEAN:
            found.append(
                f"aggregation is {self.method.aggregation.value}; with secure sums it must be mean, for the "
                "coordinator sees no single gradient that it could compare with others"
            )
        if self.method.warm_up_rounds > 0:
            found.append(
                f"warm_up_rounds is {self.method.warm_up_rounds}; with secure sums it must be 0, for the estimates "
                "of a warm-up are each agent's own and have no sum"
            )
        return found

    @property
    def _lacks_cohort(self) -> bool:
        """Whether even a process for each agent would be too few for a secure sum."""
        return self.secure_sums and self.min_cohort > self.agents

    def cohort_problem(self, processes: int) -> str:
        """Why a run with this number of agent processes can form no secure sum; empty where it can."""
        if not self.secure_sums or processes >= self.min_cohort:
            return ""
        return (
            f"the run has {processes} agent processes, and of fewer than min_cohort = {self.min_cohort} no secure "
            "sum is formed; start more processes, or smaller groups"
        )

    @property
    def is_private(self) -> bool:
        """Whether agents send with differential privacy."""
        return self.dp_epsilon > 0.0

    @property
    def schedule(self) -> Schedule:
        """Which rounds evaluate policies, and in which new ones are tried."""
        return Schedule(self.improve, self.evaluation_rounds, self.trial_rounds)

    def sends_pooled_in(self, round_number: int) -> bool:
        """Whether uploads of round t carry pooled numbers: as the method has it, and never in a trial."""
        if not self.improve:
            return self.method.sends_pooled_in(round_number)
        schedule = self.schedule
        return not schedule.is_trial(round_number) and self.method.sends_pooled_in(
            schedule.learning_round(round_number)
        )

    def largest_turn_between(self, first: int, last: int) -> float:
        """The largest angle, in degrees, from the basis of one round to that of a later one; 90 for no bound.

        As the method has it; a trial leaves the basis as it is, and each evaluation begins as a run does.
        """
        if not self.improve:
            return self.method.largest_turn_between(first, last)
        spans = self.schedule.learning_spans(first, last)
        return min(sum(self.method.largest_turn_between(*span) for span in spans), NO_BOUND_DEGREES)

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of every field: equal exactly for equal specifications.

        A run without improvement steps, secure sums, differential privacy, or refreshes of its own has the digest
        of a version that does not know them.
        """
        values, method = self.as_dict(), _plain(self.method)
        parts = (
            (_OF_IMPROVEMENT, self.improve),
            (_OF_SECURE_SUMS, self.secure_sums),
            (OF_PRIVACY, self.dp_epsilon),
        )
        for of, used in parts:
            if not used:
                values = {name: value for name, value in values.items() if name not in of}
        for name in ("refresh_growth", "refresh_sample"):
            if not method[name]:
                del method[name]
        values["method"] = method
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """Plain values under the fields' names, for files and for people."""
        values = _plain(self)
        values["method"] = _plain(self.method)
        return values

    @property
    def pooled_length(self) -> int:
        """How many numbers an agent sends to be pooled, in some rounds; 0 where it sends none."""
        return self.method.pooled_length(self.feature_dim)

    def initial_basis(self) -> Float[np.ndarray, "d r"]:
        """B_0: uniformly distributed, from the seed alone."""
        return random_basis(self.feature_dim, self.rank, np.random.default_rng(self.seed))


def basis_digest(basis: Float[np.ndarray, "d r"]) -> str:
    """SHA-256, in hexadecimal, of the float64 bytes in little-endian C order."""
    return hashlib.sha256(np.ascontiguousarray(basis, dtype="<f8").data.cast("B")).hexdigest()


def _plain(of: RunFields | Method) -> dict[str, Any]:
    """The values of a dataclass's fields, enumerations as text.

    Numbers of float fields that are equal have one spelling: 3 becomes 3.0, and −0.0 becomes 0.0.
    """
    values = {}
    for field in fields(of):
        value = getattr(of, field.name)
        if field.type is float:
            value = float(value) + 0.0
        values[field.name] = value.value if isinstance(value, Enum) else value
    return values


def agent_id_problem(agent_id: str) -> str | None:
    """What is wrong with an agent's name, or None."""
    if AGENT_ID.fullmatch(agent_id):
        return None
    return f"agent id {agent_id[:80]!r} must be 1 to 64 letters, digits, '.', '_' or '-', and not begin with '.'"


def message_numbers(feature_dim: int, rank: int, pooled: int = 0) -> int:
    """Numbers in the largest message of a run with features of length d and rank r.

    That is a factored gradient with as many factors as columns: u (d × r), v (r × r), the heads' second moment
    (r × r) and what is pooled: d numbers, or `pooled` where that is more (`Method.pooled_length`). The two
    estimates of a warm-up are d × 2, and what a basis is announced with is r × r.
    """
    return feature_dim * max(rank, 2) + 2 * rank * rank + max(feature_dim, pooled)


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
