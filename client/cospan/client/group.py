"""Many agents in one process: one stream, one upload with the exact sum of their gradients."""

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
from jaxtyping import Float, Int

from cospan.client.agent import default_agent_id
from cospan.client.decisions.improver import DEFAULT_OPTIONS, Options, features_joined_with
from cospan.client.environment.workload_loader import load_workload
from cospan.client.files.group_file import GROUP, AnyGroup
from cospan.client.files.result_file import Learnt, save_result
from cospan.client.files.state_file import StateFile
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner, group_name, no_privacy, no_warm_up
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.client.learning.site_learner import FAILED, Warned
from cospan.client.learning.source_group import SourceGroup
from cospan.client.learning_client import LearningClient
from cospan.client.session.coordinator_address import AddressSource
from cospan.client.session.settings import ClientSettings
from cospan.client.session.transport import GrpcTransport, Transport
from cospan.client.value_function import ValueFunction
from cospan.client.workload import FeatureMap, Workload
from cospan.core.specification import RunSpecification
from cospan.wire.address import DEFAULT_COORDINATOR
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.limits import MAX_GROUP
from cospan.wire.messages import Welcome
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)

MOST_OWN_FILES = 1_000
"""Agents of a group, at most, that get files of their own at its end: each takes some milliseconds."""


class AgentGroup(LearningClient[AnyGroup]):
    """Several agents of a fleet, hosted by one process; each sees and learns what it would alone.

        group = AgentGroup("queues", range(1000), coordinator="127.0.0.1:15051")
        group.run()                              # until the run is over; or: async with group: …
        group.gains; group.weights; group.save("agents")

    Where a member breaks its contract after its first round, the group learns on without it, unless its workload
    steps all members at once and the failing one is unknown: then the group leaves the run.
    """

    def __init__(
        self,
        workload: Workload | str,
        indices: Sequence[int],
        *,
        coordinator: AddressSource = DEFAULT_COORDINATOR,
        transport: Transport | None = None,
        tls: TlsFiles | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        """Prepares a group; nothing is connected yet.

        Args:
            workload: a workload, or its name as on the command line.
            indices: which sites of the workload these are; the agents are called `site-<index>`.
            coordinator: HOST:PORT, [IPV6]:PORT, unix:PATH, @FILE for the address that a file holds, or a function
                that returns one; file and function are asked again at each connection, in a thread.
            transport: how to reach the coordinator; gRPC to `coordinator` if omitted.
            tls: certificate, key and authority for mutual TLS; the certificate must speak for all of the agents.
            settings: what it keeps, how long it waits, and what it refuses; the defaults if omitted.

        Raises:
            WorkloadError: there is no such workload.
            InvalidValueError: there are no agents, too many, or one twice; the settings have `share_td_error`; or a
                file of `tls` cannot be used.
            RunFileError: `state_file` of the settings is no folder.
        """
        self.indices = _checked(indices)
        settings = settings or ClientSettings()
        if settings.share_td_error:
            raise InvalidValueError("share_td_error is for single agents, and a group sends one sum; leave it out")
        folder = settings.state_file
        if folder is not None and not Path(folder).is_dir():
            raise RunFileError(f"{folder} is no folder; a group writes a file for each agent, so name a folder")
        super().__init__(
            load_workload(workload),
            transport or GrpcTransport(coordinator, group_size=len(self.indices), tls=tls),
            GROUP,
            settings,
            agents=len(self.indices),
        )
        self.agent_ids = tuple(default_agent_id(index) for index in self.indices)
        """The agents' names, in the order of their sites."""
        self._sites: GroupSites | None = None
        self._learner_begun: AnyGroup | None = None
        self._joined_as: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the group is called, in sentences and as a file."""
        return group_name(self.indices)

    @property
    def _title(self) -> str:
        return self.name

    def _make_sites(self, specification: RunSpecification) -> tuple[tuple[str, ...], FeatureMap]:
        if specification.method.warm_up_rounds:
            raise InvalidValueError(no_warm_up(specification))
        if problem := no_privacy(specification):
            raise InvalidValueError(problem)
        self._sites = self._made_sites(specification)
        self._joined_as = tuple(sorted(self.agent_ids))
        if not specification.improve:
            return self._joined_as, self._sites.features
        return self._joined_as, features_joined_with(self._sites.single[0], specification, self.indices[0])

    def _made_sites(self, specification: RunSpecification) -> GroupSites:
        return GroupSites.of(
            self.workload,
            self.indices,
            specification.feature_dim,
            specification.seed,
            one_by_one=bool(specification.improve),
            sampled_every=specification.method.sampled_every(specification.agents),
        )

    def _close_sites(self) -> None:
        if self._learner_begun is not None:
            self._learner_begun.close()  # without those of members that it has dropped, which are closed
        elif self._sites is not None:
            self._sites.close()

    def _hosted(self) -> tuple[str, ...] | None:
        learner = self._learner_begun
        names = self._joined_as if learner is None else tuple(sorted(learner.names))
        if names == self._joined_as:
            return None
        self._joined_as = names
        return names

    def _make_learner(self, welcome: Welcome) -> AnyGroup:
        assert self._sites is not None
        if self._learner_begun is not None and self._learner_begun.failures:
            # All begin again, and the environments of members that were dropped are closed.
            self._learner_begun.close()
            self._learner_begun = self._sites = None
            self._sites = self._made_sites(welcome.specification)
        self._learner_begun = learner = group_of(
            self._sites,
            welcome.specification,
            names=self.agent_ids,
            with_baseline=self.settings.with_baseline is True,
            first_round=welcome.first_round,
        )
        learner.on_failure.append(self._on_failure)
        return learner

    def _on_failure(self, agent: Learnt, why: str) -> None:
        """A member leaves the group; what it has learnt stays in a file of its own."""
        log.warning("%s failed: %s", agent.name, why)
        if self.state_path is not None and agent.last_round is not None:
            assert self.run_id is not None
            try:
                save_result(self.state_path.parent / f"{agent.name}.npz", agent, run_id=self.run_id)
            except RunFileError as failure:
                log.error("%s", failure)
        for tell in self.on_warning:
            tell(cast("Self", self), Warned(agent.name, FAILED, why))

    def _write_last(self, state_file: StateFile[AnyGroup]) -> None:
        state_file.finish()
        if self.learner is not None and self.learner.rounds and has_own_files(self.learner):
            self.save(state_file.path.parent)

    # What they have learnt ------------------------------------------------------------------------------------

    @property
    def gains(self) -> Float[np.ndarray, " n"]:
        """The estimated mean reward per step of each agent (averaged iterates of η), by `agent_ids`."""
        return np.asarray(self._learnt().gains[self._places()])

    @property
    def weights(self) -> Float[np.ndarray, "n d"]:
        """The learnt value weights ẑ of each agent (averaged iterates of B w), by `agent_ids`.

        Of a fleet of more than 1,000 agents those outside the sample are zero in the first rounds (docs/adr/0041).
        """
        return np.asarray(self._learnt().weights[self._places()])

    def _places(self) -> Int[np.ndarray, " n"]:
        """Where the learner keeps each agent: large groups are in another order than their sites."""
        return np.asarray(np.argsort(self._learnt().indices))

    @property
    def value_functions(self) -> tuple[ValueFunction, ...]:
        """What each agent has learnt so far, in the order of their sites; they stay as they are."""
        group = self._learnt()
        found = [ValueFunction.of_learner(agent, group.features) for agent in group.agents()]
        return tuple(found[place] for place in self._places())

    def save(self, folder: Path | str) -> None:
        """Writes what each agent has learnt, as a file of its own, the same as of one that is alone.

        Call it from a function of `on_round`, or when the run is over.

        Raises:
            RunFileError: one cannot be written.
        """
        assert self.run_id is not None
        save_agents(self._learnt(), Path(folder), run_id=self.run_id)


def has_own_files(group: AnyGroup) -> bool:
    """Whether its agents get files of their own at its end; those of a large group are in its one file alone."""
    return len(group.names) <= MOST_OWN_FILES


def group_of(
    sites: GroupSites,
    specification: RunSpecification,
    *,
    names: Sequence[str],
    with_baseline: bool,
    first_round: int = 0,
    options: Options = DEFAULT_OPTIONS,
) -> AnyGroup:
    """The learners of a group, as its run needs them; see `GroupLearner`, `ImprovingGroup` and `SourceGroup`."""
    indices = [index for block in sites.indices for index in block]
    if sites.sources:  # each refreshes as it would by itself
        places = np.argsort(indices).tolist()
        return SourceGroup(
            [sites.sources[place] for place in places],
            specification,
            names=names,
            indices=[indices[place] for place in places],
            with_baseline=with_baseline,
            first_round=first_round,
        )
    if not specification.improve:
        return GroupLearner(sites, specification, names=names, with_baseline=with_baseline, first_round=first_round)
    return ImprovingGroup(
        sites.single,
        specification,
        names=names,
        indices=indices,
        with_baseline=with_baseline,
        first_round=first_round,
        options=options,
    )


def save_agents(group: AnyGroup, folder: Path, *, run_id: str) -> None:
    """Writes `<id>.npz` of each agent of a group; they can all be made again from the group's own file.

    Raises:
        RunFileError: one cannot be written.
    """
    for agent in group.agents():
        save_result(folder / f"{agent.name}.npz", agent, run_id=run_id, durable=False)


def indices_of(text: str) -> tuple[int, ...]:
    """The sites that a text such as `0-99,200-299` names, in order.

    Raises:
        InvalidValueError: it names none, one twice, or too many, or is written otherwise.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidValueError(
                f"ids is {text[:80]!r}, and {part.strip()[:40]!r} in it is no range of sites; write it as 0-99, or "
                "as 0-99,200-299"
            )
        if last - first >= MAX_GROUP:
            raise InvalidValueError(_too_many(last - first + 1))
        found += range(first, last + 1)
    return _checked(sorted(found))


def _checked(indices: Sequence[int]) -> tuple[int, ...]:
    found = tuple(indices)
    if not found:
        raise InvalidValueError("a group has no agents; name at least one site")
    if len(found) > MAX_GROUP:
        raise InvalidValueError(_too_many(len(found)))
    twice = next((first for first, second in itertools.pairwise(found) if second == first), None)
    if twice is not None:
        raise InvalidValueError(f"ids names site {twice} twice; name each site once")
    if sorted(found) != list(found):
        raise InvalidValueError("the sites of a group must be in ascending order; sort them")
    return found


def _too_many(count: int) -> str:
    return f"a group of {count} agents is too large; it must be 1 to {MAX_GROUP}, so start several processes"
