"""One agent: its site, its learner and its results."""

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.improver import features_joined_with
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.feeds.told import FeedSettings, Outcome
from cospan.client.files.result_file import save_result
from cospan.client.files.state_file import ONE_AGENT
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.learning_client import LearningClient
from cospan.client.session import machine as session
from cospan.client.session.background_run import BackgroundRun
from cospan.client.session.coordinator_address import AddressSource
from cospan.client.session.learning_session import AgentEnd
from cospan.client.session.settings import ClientSettings
from cospan.client.session.transport import GrpcTransport, Transport
from cospan.client.value_function import ValueFunction
from cospan.client.value_uncertainty import Interval
from cospan.client.workload import AnySite, FeatureMap, Workload
from cospan.core.specification import SITE_PREFIX, RunSpecification, agent_id_problem
from cospan.wire.address import DEFAULT_COORDINATOR
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import Welcome
from cospan.wire.notes import waited
from cospan.wire.security.tls import TlsFiles

if TYPE_CHECKING:
    import cospan.client.feeds.feed
    import cospan.client.feeds.site_feed

__all__ = ["Agent", "AgentEnd", "ClientSettings", "default_agent_id"]

_WITHOUT_SITE = "without-site"


def default_agent_id(index: int) -> str:
    """The default name of the agent of site `index`."""
    return f"{SITE_PREFIX}{index}"


class Agent(LearningClient[SiteLearner]):
    """One agent of a fleet.

    From joining to what was learnt:

        agent = Agent("queues", index=7, coordinator="127.0.0.1:15051")
        agent.run()                              # until the run is over; or: async with agent: …
        agent.value(observation); agent.gain; agent.save("site-7.npz")

    Where a control loop runs elsewhere in this process, and the agent only sees it:

        with Agent("queues", index=7, feed=FeedSettings()) as agent:     # learns in the background
            agent.observe(observation, reward, sequence=n)
    """

    def __init__(
        self,
        workload: Workload | str,
        *,
        index: int | None = None,
        coordinator: AddressSource = DEFAULT_COORDINATOR,
        agent_id: str | None = None,
        site_claim_id: str | None = None,
        transport: Transport | None = None,
        tls: TlsFiles | None = None,
        settings: ClientSettings | None = None,
        feed: FeedSettings | None = None,
    ) -> None:
        """Prepares an agent; nothing is connected yet.

        Args:
            workload: a workload, or its name as on the command line.
            index: the site of the workload; without it the coordinator assigns a free one.
            coordinator: HOST:PORT, [IPV6]:PORT, unix:PATH, @FILE for the address that a file holds, or a function
                that returns one; file and function are asked again at each connection, in a thread.
            agent_id: the agent's name in the run; `site-<index>` if omitted.
            site_claim_id: a name that outlives this process, such as that of its container, by which a restarted
                process gets the same site. Only without `index`; random if omitted.
            transport: how to reach the coordinator; gRPC to `coordinator` if omitted.
            tls: certificate, key and authority for mutual TLS; the certificate must speak for the agent. Read again
                when the files change. No TLS where left out.
            settings: what it keeps, how long it waits, and what it refuses; the defaults if omitted.
            feed: how it takes the steps that `observe` tells; if omitted, it steps the environment of its site.

        Raises:
            WorkloadError: there is no such workload or site.
            InvalidValueError: the name is not one that an agent may have; or a file of `tls` cannot be used; or
                observations of the site cannot be told.
            BacklogError: the backlog of the feed cannot be used.
        """
        super().__init__(
            load_workload(workload),
            transport or GrpcTransport(coordinator, tls=tls),
            ONE_AGENT,
            settings or ClientSettings(),
        )
        self.index = index
        self.agent_id, self._site_claim_id = _identity(index, agent_id, site_claim_id)
        """The agent's name, a placeholder until the coordinator assigns a site; and the site claim."""
        self._site: AnySite | None = None
        self._is_silent = False
        self._in_background: BackgroundRun[AgentEnd] | None = None
        self._site_feed: cospan.client.feeds.site_feed.SiteFeed | None = None
        if feed is not None:
            # Few agents have one, and what it needs takes a tenth of the time in which an agent starts.
            from cospan.client.feeds.site_feed import SiteFeed

            self._site_feed = SiteFeed.opened(self.workload, index, self.agent_id, self.settings, feed)
            self.on_round.append(lambda _, round_number: self._site_feed_of.mark(round_number))
            self._site_feed.on_silence = self._feed_silent

    @property
    def name(self) -> str:
        """The same as `agent_id`."""
        return self.agent_id

    # What it sees of a control loop ------------------------------------------------------------------------------

    @property
    def _site_feed_of(self) -> "cospan.client.feeds.site_feed.SiteFeed":
        if self._site_feed is None:
            raise InvalidValueError(
                f"{self._title} steps the environment of its site; to tell it, make it with feed=FeedSettings()"
            )
        return self._site_feed

    @property
    def feed(self) -> "cospan.client.feeds.feed.Feed":
        """The feed: where it stands, and several steps at once.

        Raises:
            InvalidValueError: it has none.
        """
        return self._site_feed_of.feed

    def observe(
        self, observation: Any, reward: float | None = None, *, sequence: int | None = None, at: Any = None
    ) -> Outcome:
        """Tells a step of the control loop; from any thread. It never waits for learning, the fleet or the network.

        When it returns, the step is in the backlog; if the agent keeps a file, it is durable, which takes the time
        that the disk needs. Told again, a step counts once.

        Args:
            observation: as the environment of the site would give it, or the columns of the mapping by name. None
                to tell a late reward of step `sequence`.
            reward: of the step that begins in the observation (see `FeedSettings.reward_at_next`). None if it comes
                later; nan if it never will.
            sequence: the number of the step. The next one has the next number; a skipped number is a gap, across
                which nothing is learnt. Without it `at` numbers the steps if their time step is known; else each
                call is the next step, and one that is repeated counts twice.
            at: the time: a datetime, an ISO 8601 text, or a number. An interval that is not one step is a gap.

        Raises:
            StepRefusedError: it is out of order, contradicts what was told, or is no step of this site.
            BacklogFullError: the backlog has reached its limit.
            BacklogError: the disk is full or broken.
            FeedClosedError: the agent has ended.
            InvalidValueError: the agent has no feed.
        """
        return self.feed.observe(observation, reward, sequence=sequence, at=at)

    def _note_slow_feed(self, feed: "cospan.client.feeds.feed.Feed", specification: RunSpecification) -> None:
        """Says at the beginning that a round of this feed takes longer than the others' rounds wait."""
        step, length = feed.form.step_seconds, specification.method.steps_per_round
        if step is not None and step * length > specification.round_timeout_seconds:
            self._note(
                f"{length} steps of {waited(step)} take {waited(step * length)}, and once others have answered, "
                f"a round waits {specification.round_timeout_seconds:g} s for this one; give the coordinator "
                f"--round-timeout-seconds {2 * step * length:g}",
                level=logging.WARNING,
            )

    def _feed_silent(self, seconds: float) -> None:
        """Tells coordinator and user that the feed is silent, or is not any more; in the learning thread."""
        self._post_from_thread(session.FeedSilent(seconds))
        if bool(seconds) != self._is_silent:
            self._is_silent = bool(seconds)
            if seconds:
                self._note(f"no step has come for {waited(seconds)}; it waits", level=logging.WARNING)

    def _saved(self, rounds: int) -> None:
        super()._saved(rounds)
        if self._site_feed is not None:
            self._site_feed.saved(rounds)

    # The session -------------------------------------------------------------------------------------------------

    def _make_sites(self, specification: RunSpecification) -> tuple[tuple[str, ...], FeatureMap]:
        # The features are those of the workload, whichever site it will be.
        site = make_site(self.workload, self.index or 0, specification.seed)
        if self.index is None:
            close_site(site)
            return (), features_joined_with(site, specification, 0)
        self._site = site if self._site_feed is None else self._site_feed.site_of(site)
        return (self.agent_id,), features_joined_with(self._site, specification, self.index)

    def _close_sites(self) -> None:
        if self._site is not None:
            close_site(self._site)
        if self._site_feed is not None:
            self._site_feed.feed.close()

    def _make_learner(self, welcome: Welcome) -> SiteLearner:
        if self._site is None:
            assert welcome.site_index is not None
            self._site = make_site(self.workload, welcome.site_index, welcome.specification.seed)
            self.index = welcome.site_index
            (self.agent_id,) = welcome.agent_ids
        assert self.index is not None
        if self._site_feed is not None:
            self._note_slow_feed(self._site_feed.feed, welcome.specification)
        make = ImprovingLearner if welcome.specification.improve else SiteLearner
        return make(
            self._site,
            welcome.specification,
            name=self.agent_id,
            index=self.index,
            with_baseline=self.settings.with_baseline is not False,
            first_round=welcome.first_round,
            share_td_error=self.settings.share_td_error,
        )

    # In the background of a control loop --------------------------------------------------------------------------

    def __enter__(self) -> "Agent":
        """Takes part in a thread of its own, until the block ends. Any thread may call `observe` and `value`."""
        self._in_background = BackgroundRun(self.run_async, self.stop, f"agent-{self.name}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the run. A failure of the agent is raised, unless the block itself failed."""
        assert self._in_background is not None
        self._in_background.end(raising=kind is None)

    def wait_until_over(self, seconds: float | None = None) -> AgentEnd | None:
        """Within `with`: waits for the end of the run; None where it has not come in time. Raises as `run` does."""
        if self._in_background is None:
            raise InvalidValueError("wait_until_over() works within `with agent:` only")
        return self._in_background.wait(seconds)

    # What it has learnt ---------------------------------------------------------------------------------------

    @property
    def gain(self) -> float:
        """The estimated mean reward per step (averaged iterates of η)."""
        return float(self._learnt().gain.mean[0])

    @property
    def weights(self) -> Float[np.ndarray, " d"]:
        """The learnt value weights ẑ (averaged iterates of B w), shape (d,)."""
        return self._learnt().weights.mean

    @property
    def value_function(self) -> ValueFunction:
        """A copy of what it has learnt so far, which does not change while the agent learns."""
        learner = self._learnt()
        return ValueFunction.of_learner(learner, learner.site.features)

    def value(self, observation: Any) -> float:
        """The estimated differential value of an observation, φ(s)ᵀ ẑ: defined up to a constant."""
        return self.value_function.value(observation)

    def values(self, observations: Sequence[Any] | np.ndarray) -> Float[np.ndarray, " n"]:
        """The estimated differential values of several observations, shape (n,)."""
        return self.value_function.values(observations)

    def interval(self, observation: Any, other: Any = None, *, coverage: float = 0.9) -> Interval:
        """An interval of V(observation) − V(other); see `ValueFunction.interval`.

        Each call computes it from all that the agent has learnt so far: for several, ask one `value_function`.
        """
        return self.value_function.interval(observation, other, coverage=coverage)

    def gain_interval(self, *, coverage: float = 0.9) -> Interval:
        """An interval of the gain; see `ValueFunction.gain_interval`."""
        return self.value_function.gain_interval(coverage=coverage)

    @property
    def policy(self) -> GreedyPolicy:
        """The policy that it holds, in a run with improvement steps; it does not change while the agent learns on.

        Raises:
            InvalidValueError: the run has no improvement steps, or the site's policy can only be judged.
        """
        learner = self._learnt()
        if not isinstance(learner, ImprovingLearner):
            raise InvalidValueError(
                f"{self._title} takes part in a run without improvement steps, so its policy is that of its site; "
                "start the run with --improve"
            )
        if learner.improver.policy is None:
            raise InvalidValueError(learner.improver.problem)
        return learner.improver.policy

    def save(self, path: Path | str) -> None:
        """Writes what was learnt as an npz file, whole or not at all; `resume_from` and
        `ValueFunction.load` take it.

        Call it from a function of `on_round`, or when the run is over.
        """
        learner = self._learnt()
        assert self.run_id is not None
        save_result(Path(path), learner, run_id=self.run_id)


def _identity(index: int | None, agent_id: str | None, site_claim_id: str | None) -> tuple[str, str]:
    """The agent's name and its site claim, which is empty if the site is known.

    Raises:
        InvalidValueError: the arguments contradict each other, or a name is not allowed.
    """
    if index is None and agent_id is not None:
        raise InvalidValueError(f"agent {agent_id!r} has no site; give its index, or leave out its name")
    if index is not None and site_claim_id is not None:
        raise InvalidValueError(f"site {index} is named by its index; leave out the site claim {site_claim_id!r}")
    if index is None:
        name = claim = secrets.token_hex(16) if site_claim_id is None else site_claim_id
        found = _WITHOUT_SITE, claim
    else:
        name = default_agent_id(index) if agent_id is None else agent_id
        found = name, ""
    problem = agent_id_problem(name)
    if problem is not None:
        raise InvalidValueError(problem)
    return found
