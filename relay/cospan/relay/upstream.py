"""A relay's own session with its coordinator, on behalf of agents that come and go."""

import asyncio
import importlib.metadata
import secrets
from collections.abc import Callable
from dataclasses import replace

from cospan.client.session import machine as session
from cospan.client.session.driver import SessionDriver, SessionHooks
from cospan.client.session.run_checks import check_basis
from cospan.client.session.settings import SessionSettings
from cospan.client.session.transport import Transport
from cospan.core.specification import RunSpecification
from cospan.relay.events import Refused, RoundOpened, RunFinished, UpstreamEvent, Welcomed
from cospan.relay.vectors import VectorsBelow
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.wire import errors
from cospan.wire.messages import AgentMessage, Finish, GradientUpload, Join, Welcome

_OF_SOME = (errors.AgentIdTakenError, errors.IdentityMismatchError, errors.TooManyAgentsError)
"""Errors of a join that concern some of its agents: without the new ones, the others are admitted."""


class Upstream:
    """A session on behalf of the relay's agents; `cospan.relay.engine` sums their gradients."""

    def __init__(
        self,
        transport: Transport,
        settings: SessionSettings,
        *,
        tell: Callable[[UpstreamEvent], None],
        fail: Callable[[errors.CospanError], None],
    ) -> None:
        """Connects to nothing yet.

        Args:
            transport: to the coordinator.
            settings: timeouts, and the runs that it rejects.
            tell: called with the coordinator's messages as events.
            fail: called once, if the session fails.
        """
        self.specification: asyncio.Future[RunSpecification] = asyncio.get_running_loop().create_future()
        """Of the run, once the coordinator has sent it."""
        self._tell, self._failed = tell, fail
        self._names: tuple[str, ...] = ()
        self._welcomed: frozenset[str] = frozenset()
        self._fingerprint = ""
        self._instance = secrets.token_hex(16)
        self._vectors = VectorsBelow()
        hooks = SessionHooks(
            name=lambda: "the relay",
            prepare=self._prepare,
            learn=self._open_round,
            conclude=self._conclude,
            fail=self._fail,
            welcomed=self._on_welcomed,
            outgoing=self._shortened,
            takes_over=self._takes_over,
            vectors=self._vectors,
        )
        self._driver = SessionDriver(transport, hooks, settings)

    # Requests of the relay ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins a session, and requests the specification."""
        self._welcomed = frozenset()
        self._driver.start()

    def host(self, agent_ids: tuple[str, ...], feature_fingerprint: str, offer: Offer | None = None) -> None:
        """Joins with these agents; without any it leaves until there are some. None of it after the end."""
        if self._driver.is_over:  # `start` would begin another session
            return
        if offer is not None:
            known = set(self._vectors.offer.members)
            new = {agent for member in offer.members if member not in known for agent in member.agent_ids}
            self._welcomed -= new  # with the keys that they have now
            self._vectors.offer = offer
        self._names, self._fingerprint = agent_ids, feature_fingerprint
        self._welcomed = self._welcomed.intersection(agent_ids)
        state = self._state
        if not agent_ids:
            self._driver.leave("the last of its agents is gone", returning=True)
            self.start()
        elif state.phase is session.Phase.PREPARING:
            self._driver.post(session.Prepared(self._join()))
        elif state.join is not None:
            self._driver.post(session.Regrouped(agent_ids))

    def upload(self, upload: GradientUpload) -> None:
        """Sends the sum of the open round."""
        if self._state.learning == upload.round:
            self._driver.post(session.GradientReady(upload))

    def decline(self, number: int) -> None:
        """Says that no sum of a round comes, if that is still open."""
        self._driver.post(session.Unsummed(number))

    def leave(self, cause: str) -> None:
        """Leaves the run for good."""
        self._driver.leave(cause, returning=False)
        self._driver.is_over = True

    async def close(self) -> None:
        """Ends the session; queued messages are sent first if that is still possible."""
        await self._driver.close()

    # Hooks of the session --------------------------------------------------------------------------------------

    @property
    def _state(self) -> session.SessionState:
        assert self._driver.state is not None, "start comes first"
        return self._driver.state

    def _prepare(self, specification: RunSpecification) -> None:
        if not self.specification.done():
            self.specification.set_result(specification)
        elif not _is_same(self.specification.result(), specification):
            foreign = errors.ForeignRunError(
                "the coordinator now holds another run; restart the relay to join that run"
            )
            self._driver.post(session.LearningFailed(foreign))
            return
        if self._names:
            self._driver.post(session.Prepared(self._join()))

    def _join(self) -> Join:
        described = self._state.described
        assert described is not None
        return Join(
            instance_id=self._instance,
            agent_ids=self._names,
            feature_dim=described.feature_dim,
            feature_fingerprint=self._fingerprint,
            workload=described.workload,
            client_version=importlib.metadata.version("cospan"),
        )

    def _on_welcomed(self, welcome: Welcome) -> None:
        self._welcomed = frozenset(welcome.agent_ids)
        self._tell(Welcomed(welcome))

    def _open_round(self, command: session.Learn) -> None:
        """Forwards a round; checks its basis first, because the agents would reject a bad one."""
        assert self._state.stamp is not None
        try:
            check_basis(command.basis, command.round, command.turn)
        except errors.BasisRefusedError as refusal:
            self._driver.post(session.LearningFailed(refusal))
        else:
            secure = self.specification.result().secure_sums
            epoch = self._vectors.epoch if secure else None
            self._tell(RoundOpened(self._state.stamp, command.round, command.basis, command.head_covariance, epoch))

    def _shortened(self, message: AgentMessage) -> AgentMessage:
        """An upload over all agents of the session names none: thousands of names would be most of its size."""
        join = self._state.join
        if isinstance(message, GradientUpload) and join is not None and message.agent_ids == join.agent_ids:
            return replace(message, agent_ids=())
        return message

    def _takes_over(self, failure: errors.CospanError) -> bool:
        """Whether the relay handles the failure itself: a join that failed because of its new agents."""
        if isinstance(failure, _OF_SOME) and self._welcomed and not self._welcomed.issuperset(self._names):
            self._tell(Refused(failure))
            return True
        return False

    def _conclude(self, command: session.Conclude) -> None:
        stamp = self._state.stamp
        if not command.left and stamp is not None and command.basis is not None:
            finish = Finish(stamp, command.cause, command.message, command.basis, command.head_covariance)
            self._tell(RunFinished(finish))

    def _fail(self, failure: Exception) -> None:
        if not isinstance(failure, errors.CospanError):
            unexpected = errors.CospanError(f"the session of the relay failed: {type(failure).__name__}: {failure}")
            unexpected.__cause__ = failure
            failure = unexpected
        if not self.specification.done():
            self.specification.set_exception(failure)
        self._failed(failure)


def _is_same(before: RunSpecification, after: RunSpecification) -> bool:
    """Whether two specifications are of one run; the first join sets the fingerprint in between."""
    return replace(before, feature_fingerprint=after.feature_fingerprint) == after
