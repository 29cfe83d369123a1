"""The fields of a run specification.

They stand apart from `cospan.core.specification`, which needs numpy: `cospan --help` reads them. Rules that concern
several fields are in `cospan.core.specification`. A new field must be valid at 0: a peer that does not know it
sends 0.
"""

import math
from dataclasses import dataclass, field
from enum import Enum

from cospan.core.fields import FLEET, IMPROVEMENT, LIMITS, ROUNDS, RULE, Range, about
from cospan.core.method import Method
from cospan.core.privacy.request import MAX_EPSILON, MAX_VECTORS

MAX_FEATURE_DIM = 2**24
MIN_SESSION_TIMEOUT_SECONDS, MAX_SECONDS = 0.01, 1e9
"""Agents send four messages in `session_timeout_seconds`; 1e9 s are 31 years."""
MAX_AGENTS = 2**20
MAX_STALENESS = 1000
MAX_IMPROVEMENT_ROUNDS = 2**20
"""Of evaluation, or of trial, in one step."""
MAX_IMPROVEMENT_STEPS = 1000


class Participation(Enum):
    """Whom a round waits for."""

    ALL = "all"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class RunFields:
    """What two parties of a run must agree on; `cospan.core.specification.RunSpecification` has its rules.

    Each field's metadata is its description (`cospan.core.fields`); docs/notation.md has the same as a table.
    """

    workload: str = field(metadata=about("name of the workload", setting=None))
    feature_dim: int = field(
        metadata=about(
            "length of a feature vector, where no workload is named",
            symbol="d",
            range=Range(least=1, most=MAX_FEATURE_DIM),
            group=FLEET,
            metavar="D",
        )
    )
    rank: int = field(
        metadata=about(
            "rank of the shared subspace",
            symbol="r",
            range=Range(least=1, most="feature_dim"),
            group=RULE,
            metavar="R",
            unset="the workload's",
        )
    )
    agents: int = field(
        metadata=about(
            "number of agents that the first round waits for",
            range=Range(least=1, most=MAX_AGENTS),
            group=FLEET,
            unset="all sites of the workload, else 8",
        )
    )
    rounds: int = field(
        metadata=about(
            "number of rounds",
            range=Range(least=0, most=2**63 - 1, note="0: until stopped"),
            group=FLEET,
            unset="0",
        )
    )
    seed: int = field(
        metadata=about(
            "seed of the initial basis and of every site",
            range=Range(least=0, most=2**63 - 1),
            group=FLEET,
            unset="0",
        )
    )
    method: Method
    feature_fingerprint: str = field(
        default="",
        metadata=about(
            "fingerprint of the feature map, where no workload is named",
            group=FLEET,
            setting="fingerprint",
            unset="that of the first agent",
        ),
    )
    participation: Participation = field(
        default=Participation.ALL, metadata=about("whom a round waits for; quorum where `quorum` is set")
    )
    session_timeout_seconds: float = field(
        default=5.0,
        metadata=about(
            "silence after which an agent's session ends",
            unit="s",
            range=Range(least=MIN_SESSION_TIMEOUT_SECONDS, most=MAX_SECONDS),
            group=LIMITS,
            metavar="S",
        ),
    )
    round_timeout_seconds: float = field(
        default=60.0,
        metadata=about(
            "longest time a round waits for a live agent, once others have answered",
            unit="s",
            range=Range(above=0, most=MAX_SECONDS),
            group=LIMITS,
            metavar="S",
        ),
    )
    quorum: float = field(
        default=0.0,
        metadata=about(
            "gradients with which a round closes once its deadline has passed; 0 in a run without a quorum",
            range=Range(above=0, most=MAX_AGENTS, note="below 1: a share of its agents"),
            group=ROUNDS,
            metavar="N|SHARE",
            unset="all that take part",
        ),
    )
    deadline_seconds: float = field(
        default=0.0,
        metadata=about(
            "with a quorum, how long a round waits for the other agents",
            unit="s",
            range=Range(least=0, most=MAX_SECONDS, note="0: learnt from earlier rounds"),
            group=ROUNDS,
            metavar="S",
        ),
    )
    max_staleness: int = field(
        default=0,
        metadata=about(
            "with a quorum, largest age, in rounds, of a gradient that counts",
            unit="rounds",
            range=Range(least=0, most=MAX_STALENESS),
            group=ROUNDS,
        ),
    )
    min_agents: int = field(
        default=0,
        metadata=about(
            "number of agents to start with when not all have joined after --start-seconds",
            range=Range(least=0, most="agents", note="0: all"),
            group=ROUNDS,
            unset="all of them",
        ),
    )
    improve: int = field(
        default=0,
        metadata=about(
            "number of improvement steps, after each of which an agent may hold a better policy",
            range=Range(least=0, most=MAX_IMPROVEMENT_STEPS, note="0: policies are judged only"),
            group=IMPROVEMENT,
            metavar="STEPS",
        ),
    )
    evaluation_rounds: int = field(
        default=0,
        metadata=about(
            "with improvement, rounds of each step in which the held policies are evaluated",
            unit="rounds",
            range=Range(least=1, most=MAX_IMPROVEMENT_ROUNDS),
            group=IMPROVEMENT,
            unset="60",
        ),
    )
    trial_rounds: int = field(
        default=0,
        metadata=about(
            "with improvement, rounds of each step in which new policies are tried",
            unit="rounds",
            range=Range(least=1, most=MAX_IMPROVEMENT_ROUNDS),
            group=IMPROVEMENT,
            unset="30",
        ),
    )
    explore: float = field(
        default=0.0,
        metadata=about(
            "with improvement, share of the steps in which any action is taken, drawn uniformly",
            symbol="ε",
            range=Range(above=0, most=1, note="without it nothing is known of other actions"),
            group=IMPROVEMENT,
            metavar="SHARE",
            unset="0.1",
        ),
    )
    confidence: float = field(
        default=0.0,
        metadata=about(
            "with improvement, one-sided confidence of the bound on its gain that a new policy has to pass",
            range=Range(above=0.5, below=1),
            group=IMPROVEMENT,
            metavar="P",
            unset="0.95",
        ),
    )
    secure_sums: bool = field(
        default=False,
        metadata=about(
            "whether the coordinator receives only sums over agents, masked until all of a round are added",
            group=ROUNDS,
            unset="off",
        ),
    )
    min_cohort: int = field(
        default=0,
        metadata=about(
            "with secure sums, smallest number of processes whose sum is formed",
            range=Range(least=2, most="agents"),
            group=ROUNDS,
            unset="3",
        ),
    )
    dp_epsilon: float = field(
        default=0.0,
        metadata=about(
            "promise of differential privacy to every agent",
            symbol="ε",
            range=Range(above=0, most=MAX_EPSILON, or_zero=True, note="0: none"),
            setting=None,
        ),
    )
    dp_delta: float = field(
        default=0.0,
        metadata=about(
            "with differential privacy, probability with which the promise may fail",
            symbol="δ",
            range=Range(above=0, below=1),
            setting=None,
        ),
    )
    dp_vectors: int = field(
        default=0,
        metadata=about(
            "with differential privacy, number of vectors that an agent may send",
            range=Range(least=1, most=MAX_VECTORS),
            setting=None,
        ),
    )
    dp_noise_multiplier: float = field(
        default=0.0,
        metadata=about(
            "with differential privacy, deviation of the noise in a sum over the bound of the clip",
            symbol="z",
            range=Range(above=0, below=math.inf),
            setting=None,
        ),
    )
    dp_gradient_bound: float = field(
        default=0.0,
        metadata=about(
            "with differential privacy, bound of the clip for gradients",
            range=Range(above=0, below=math.inf),
            setting=None,
        ),
    )
    dp_curvature_bound: float = field(
        default=0.0,
        metadata=about(
            "with differential privacy, bound of the clip for curvatures",
            range=Range(above=0, below=math.inf),
            setting=None,
        ),
    )
    dp_influence_bound: float = field(
        default=0.0,
        metadata=about(
            "with differential privacy, bound of the clip for influences",
            range=Range(above=0, below=math.inf),
            setting=None,
        ),
    )


IMPROVEMENT_DEFAULTS: dict[str, int | float] = {
    "evaluation_rounds": 60,
    "trial_rounds": 30,
    "explore": 0.1,
    "confidence": 0.95,
}
"""What holds of a run with improvement steps where it is not said; without such steps all are 0."""
DEFAULT_MIN_COHORT = 3
"""`min_cohort` of a run with secure sums where it is not said."""
