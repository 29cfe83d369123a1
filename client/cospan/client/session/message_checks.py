"""What an agent takes from a coordinator, beyond the form of single fields: pure checks, each with its refusal.

`cospan.wire.codec.messages` has checked every field by itself. Here it is compared with what the agent knows: its
own features and names, the specification that it was told first, the newest stamp, and the memory that it may use.
"""

from dataclasses import replace

from cospan.core.learning.posterior import HISTORY_PER_FEATURE
from cospan.core.specification import SITE_PREFIX, RunSpecification, message_numbers
from cospan.wire.errors import (
    CospanError,
    FeatureMismatchError,
    ForeignRunError,
    InvalidMessageError,
    OutOfTurnError,
    RunTooLargeError,
)
from cospan.wire.messages import Join, Stamp, Welcome

MEMORY_GIB = 4.0
"""Most memory that the rounds of one process may need, unless its user allows another bound."""
_GIB = float(2**30)
_COPIES = 3
"""Of a round's features: they, and what the largest step of the arithmetic makes of them."""
_STEP_BYTES = 512
"""Of the objects of one step of one agent: observation, reward, and vectors of a few numbers."""
_NUMBERS_IN_TABLE = 3
"""Of a kept transition by the number of its state: that, its observation and its reward."""
_MESSAGES = 8
"""Bases and gradients that a process holds at once where they are large."""


def feature_problem(specification: RunSpecification, feature_dim: int, fingerprint: str) -> CospanError | None:
    """The refusal of a run whose features are not the agent's own; None where they are, or may be."""
    if specification.feature_dim != feature_dim:
        return FeatureMismatchError(
            f"the agent's features have dimension {feature_dim}, those of the run {specification.feature_dim}; "
            "use the feature map of the run"
        )
    if specification.feature_fingerprint not in ("", fingerprint):
        return FeatureMismatchError(
            f"the agent's feature map is {fingerprint!r}, that of the run {specification.feature_fingerprint!r}; "
            "use the feature map of the run"
        )
    return None


def round_bytes(specification: RunSpecification, agents: int, *, in_table: bool = False) -> float:
    """About the memory that a process needs for a round of its agents and for what it keeps between rounds.

    n (L + 1) (3 · 8 d + 512) bytes for the transitions; 8 d² for each agent that keeps d × d sums, twice in a
    warm-up, five times for a posterior and 2 · 8 d for each transition of its history, else 8 r²; and the messages.

    Args:
        specification: of the run.
        agents: n, that the process hosts.
        in_table: whether they keep the numbers of states in place of features (`core.history`): 24 bytes for each.
    """
    d, r, method = specification.feature_dim, specification.rank, specification.method
    transitions = float(method.steps_per_round + 1) * (8 * _COPIES * d + _STEP_BYTES)
    if method.warm_up_rounds:
        kept = 16.0 * d * d
    elif method.has_head_covariance:
        history = HISTORY_PER_FEATURE * d
        if specification.rounds:
            history = min(history, specification.rounds * method.steps_per_round)
        kept = 8.0 * (5 * d * d + (_NUMBERS_IN_TABLE if in_table else 2 * d) * history)
    elif method.keeps_history:
        kept = 8.0 * d * d
    else:
        kept = 8.0 * r * r
    return agents * (transitions + kept) + _MESSAGES * 8.0 * message_numbers(d, r, specification.pooled_length)


def memory_problem(
    specification: RunSpecification, agents: int, memory_gib: float, *, in_table: bool = False
) -> CospanError | None:
    """The refusal of a run whose rounds need more memory than the process may use; None where they fit."""
    needed = round_bytes(specification, agents, in_table=in_table) / _GIB
    if needed <= memory_gib:
        return None
    hosted = "" if agents == 1 else f", for {agents} agents"
    return RunTooLargeError(
        f"the run has {specification.method.steps_per_round} steps a round with {specification.feature_dim} "
        f"features and rank {specification.rank}{hosted}: that needs about {needed:.3g} GiB, and this process may "
        f"use {memory_gib:g} GiB; join a run with fewer steps a round, or allow more with --memory-gib"
    )


def welcome_problem(welcome: Welcome, join: Join | None, described: RunSpecification | None) -> CospanError | None:
    """The refusal of a welcome that does not answer the join; None where it does.

    Args:
        welcome: what the coordinator says.
        join: what it answers.
        described: the specification that the site was made for.
    """
    if described is not None and not same_run(described, welcome.specification):
        return ForeignRunError(
            f"the coordinator now holds run {welcome.stamp.run_id}, whose specification is not the one that this "
            "agent has made its site for; restart the agent to join that one"
        )
    if not welcome.stamp.round <= welcome.first_round <= welcome.stamp.round + 1:
        return InvalidMessageError(
            f"welcome.first_round is {welcome.first_round} at round {welcome.stamp.round}; it must be that round "
            "or the next"
        )
    if join is None:
        return None
    problem = feature_problem(welcome.specification, join.feature_dim, join.feature_fingerprint)
    return problem or _site_problem(welcome, join)


def same_run(described: RunSpecification, welcomed: RunSpecification) -> bool:
    """Whether two specifications are one; the first agent to join fixes the fingerprint in between."""
    fixed = described.feature_fingerprint in ("", welcomed.feature_fingerprint)
    return fixed and replace(described, feature_fingerprint=welcomed.feature_fingerprint) == welcomed


def _site_problem(welcome: Welcome, join: Join) -> CospanError | None:
    """Whether it welcomes the agents that asked; of one without a name, the agent of one site."""
    if join.agent_ids:
        if welcome.agent_ids in ((), join.agent_ids):
            return None
        return InvalidMessageError(
            f"the coordinator welcomes {_counted(welcome.agent_ids)}, and {_counted(join.agent_ids)} asked to "
            "join; is it of another version?"
        )
    if welcome.site_index is not None and welcome.agent_ids == (f"{SITE_PREFIX}{welcome.site_index}",):
        return None
    site = "no site" if welcome.site_index is None else f"site {welcome.site_index}"
    return InvalidMessageError(
        f"the coordinator gives {site} to {_counted(welcome.agent_ids)}; one agent has asked for one site, and is "
        f"called {SITE_PREFIX}INDEX there"
    )


def _counted(agent_ids: tuple[str, ...]) -> str:
    return f"agent {agent_ids[0]}" if len(agent_ids) == 1 else f"{len(agent_ids)} agents"


def stamp_problem(known: Stamp | None, stamp: Stamp, rounds: int) -> CospanError | None:
    """The refusal of a stamp that cannot follow the newest one of the same run; None where it can.

    Args:
        known: the newest stamp; None before the first.
        stamp: of the message.
        rounds: of the run, 0 where it has no end.
    """
    if rounds and stamp.round > rounds:
        return InvalidMessageError(f"the coordinator speaks of round {stamp.round}; this run has {rounds} rounds")
    if known is None or known.incarnation != stamp.incarnation:
        return None
    least = min(known.round, known.durable_round)
    if stamp.round < least:
        return OutOfTurnError(
            f"the coordinator went back to round {stamp.round} without a restart, and had stored {least} rounds; "
            "is its state damaged?"
        )
    return None
