"""Problems of a run that continues: failed agents, warnings, and lost agents at its end."""

import logging
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cospan.cli.output.progress import View
from cospan.cli.run_folder.run_result import AgentRow, DepartedAgent, RunOutcome, matters
from cospan.client.step_source import AT_END
from cospan.wire.text import listed

log = logging.getLogger(__name__)

_FEWEST_SHARES = 4
"""Fewest agents for which a median share is meaningful."""
_OWN_WEIGHT, _USUAL_WEIGHT = 0.1, 0.5
"""Warn of a site whose shared weight is below the first number, where the median site's is above the second."""
_CORRELATED, _STANDARD_ERRORS = 0.1, 3.0
"""Warn of a site whose TD errors one step apart have a correlation above the first number, and above this multiple
of its standard error."""
_MOST_GAPS = 3
"""Parts of the observation, or periods, that are warned of."""
_UNEXPLAINED, _UNEXPLAINED_TIMES = 0.1, 5.0
"""Warn of a site whose unexplained share exceeds both the first number and this multiple of the median site's."""


@dataclass(slots=True)
class _Warning:
    text: str
    agents: list[str] = field(default_factory=list)


class Warnings:
    """Warnings of agents; each kind is shown once."""

    def __init__(self, view: View) -> None:
        """`view` shows the warnings."""
        self._view = view
        self._found: dict[str, _Warning] = {}

    def add(self, agent: str, kind: str, text: str) -> None:
        """Takes a warning.

        Args:
            agent: its name.
            kind: equal for equal warnings of several agents.
            text: one sentence that names the agent.
        """
        if kind == AT_END:
            log.info("%s", text)
            self._view.note(text)
            return
        log.warning("%s", text)
        if kind not in self._found:
            self._found[kind] = _Warning(text)
            self._view.tell(f"cospan: warning: {text}")
        self._found[kind].agents.append(agent)

    def sentences(self) -> list[str]:
        """One for each kind, for a summary."""
        return [
            each.text + (f" (the same of {listed(each.agents[1:])})" if len(each.agents) > 1 else "")
            for each in self._found.values()
        ]


def with_causes(outcome: RunOutcome, losses: Mapping[str, str], left: Collection[str]) -> RunOutcome:
    """The outcome with the failures' own sentences, including agents whose end the coordinator did not see.

    Args:
        outcome: of the coordinator, which does not receive the sentences: they may show an observation or a reward.
        losses: why agents failed, by name.
        left: the agents that left on request.
    """
    known = {gone.agent_id for gone in outcome.departures}
    told = [replace(gone, cause=losses.get(gone.agent_id, gone.cause)) for gone in outcome.departures]
    more = [DepartedAgent(name, outcome.rounds, why) for name, why in losses.items() if name not in known]
    departures = tuple(replace(gone, asked=gone.agent_id in left) for gone in (*told, *more))
    return replace(outcome, agents=max(0, outcome.agents - len(more)), departures=departures)


def unlike_sites(agents: Sequence[AgentRow], rank: int, rank_in_use: int | None) -> list[str]:
    """A sentence on the sites that the fleet serves much worse than most, if any.

    Args:
        agents: what each has learnt.
        rank: of the run.
        rank_in_use: see `RunOutcome`.
    """
    if any(agent.shared_weight is not None for agent in agents):
        return _served_alone(agents, all_in_use=rank_in_use == rank)
    return _poorly_explained(agents, rank)


def _served_alone(agents: Sequence[AgentRow], *, all_in_use: bool) -> list[str]:
    """On those that have fallen back to their own data."""
    known = [(agent.shared_weight, agent.id) for agent in agents if agent.shared_weight is not None]
    usual = statistics.median(weight for weight, _ in known)
    own = sorted(each for each in known if each[0] < _OWN_WEIGHT)
    if len(known) < _FEWEST_SHARES or usual <= _USUAL_WEIGHT or not own:
        return []
    sites = listed([f"{name} ({_below(weight)})" for weight, name in own])
    rank = "; every direction of the basis is in use, so a larger rank may serve them" if all_in_use else ""
    return [
        f"the shared weight is {usual:.2f} at the median site, and below {_OWN_WEIGHT} at {sites}: such sites may "
        f"be of another kind; they answer from their own data, so sharing costs them little{rank}"
    ]


def _below(weight: float) -> str:
    """A weight below `_OWN_WEIGHT` with so many digits that it also reads as such; two if these do."""
    return next(text for digits in range(2, 18) if float(text := f"{weight:.{digits}f}") < _OWN_WEIGHT)


def _poorly_explained(agents: Sequence[AgentRow], rank: int) -> list[str]:
    """On those whose rewards the shared subspace explains badly."""
    known = [(agent.id, agent.explained_share) for agent in agents if agent.explained_share is not None]
    if len(known) < _FEWEST_SHARES:
        return []
    usual = statistics.median(share for _, share in known)
    least = max(_UNEXPLAINED, _UNEXPLAINED_TIMES * (1.0 - usual))
    poor = sorted((share, name) for name, share in known if 1.0 - share > least)
    if not poor:
        return []
    sites = listed([f"{name} ({share:.0%})" for share, name in poor])
    return [
        f"the shared subspace explains {usual:.0%} of the rewards' pattern at the median site, and far less "
        f"at {sites}: such sites may be of another kind; run them as a fleet of their own, or raise the rank, "
        f"now {rank}"
    ]


def lacking_features(agents: Sequence[AgentRow]) -> list[str]:
    """A sentence on the sites whose TD errors are correlated from step to step, if any: what to do about it."""
    found: list[tuple[float, str]] = []
    for agent in agents:
        first, spread = (*agent.td_error_correlation, None)[0], (*agent.td_error_correlation_error, None)[0]
        if first is not None and spread is not None and first > max(_CORRELATED, _STANDARD_ERRORS * spread):
            found.append((first, agent.id))
    if not found:
        return []
    sites = listed([f"{name} ({value:.1f})" for value, name in sorted(found, key=lambda each: -each[0])])
    return [
        f"TD errors are correlated from step to step at {sites}: the features there lack something that persists; "
        "add what the site knows of its own past or surroundings, or finer features of what they have"
    ]


def features_to_add(agents: Sequence[AgentRow]) -> list[str]:
    """A sentence on each part of the observation, or period, that TD errors depend on beyond the features."""
    found: dict[str, list[tuple[float, str]]] = {}
    for agent in agents:
        for name, share in agent.feature_gaps.items():
            if matters(share):
                found.setdefault(name, []).append((share, agent.id))
    worst_first = sorted(found.items(), key=lambda each: -max(each[1])[0])
    return [_gap(name, sites) for name, sites in worst_first[:_MOST_GAPS]]


def _gap(name: str, sites: list[tuple[float, str]]) -> str:
    where = listed([f"{agent} ({share:.0%})" for share, agent in sorted(sites, reverse=True)])
    remedy = (
        "add that time to the observation and the features"
        if name.startswith("time ")
        else "add finer features of it"
    )
    return f"TD errors depend on {name} beyond the features at {where}, in shares of their variance: {remedy}"


def lost_agents(outcome: RunOutcome) -> list[str]:
    """The agents that left without being asked to."""
    return [gone.agent_id for gone in outcome.departures if not gone.asked]
