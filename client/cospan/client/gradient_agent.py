"""An agent whose gradients come from a learner of your own, such as a network: it only holds the session."""

import importlib.metadata
import secrets
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cospan.client.session import machine as session
from cospan.client.session.coordinator_address import AddressSource
from cospan.client.session.driver import SessionDriver, SessionHooks
from cospan.client.session.learning_session import AgentEnd, LearningSession
from cospan.client.session.run_checks import check_basis
from cospan.client.session.settings import SessionSettings
from cospan.client.session.transport import GrpcTransport, Transport
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method
from cospan.core.specification import RunSpecification, agent_id_problem
from cospan.wire.address import DEFAULT_COORDINATOR
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import GradientUpload, Join
from cospan.wire.security.tls import TlsFiles


@runtime_checkable
class GradientSource(Protocol):
    """What learns. One thread calls its methods, one after the other."""

    @property
    def feature_dim(self) -> int:
        """d, the rows of a basis."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short text that is equal exactly for sources whose gradients may be added; all of a run share it."""
        ...

    def begin(self, specification: RunSpecification) -> None:
        """Makes ready for a run; before the first gradient, and again for another run."""
        ...

    def gradient(self, round_number: int, basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
        """Learns a round at B_t; what is sent of it, float64.

        The coordinator's next basis is Q of B_t + ζ (I − B_t B_tᵀ) Ḡ, with the mean Ḡ of the agents' gradients. A
        coordinator that was started again may ask for a round that was asked for before.
        """
        ...


class GradientAgent(LearningSession):
    """One agent of a fleet, around a `GradientSource`.

        agent = GradientAgent(source, agent_id="site-7", coordinator="127.0.0.1:15051")
        agent.run()                      # until the run is over
        agent.basis                      # the last one

    The source keeps its own state: a process that is started again begins with a new source.

    Attributes:
        basis: the last basis of the run, shape (d, r); None before the end.
        rounds: how many were learnt.
    """

    _learns = "source"

    def __init__(
        self,
        source: GradientSource,
        *,
        agent_id: str,
        coordinator: AddressSource = DEFAULT_COORDINATOR,
        workload: str = "",
        transport: Transport | None = None,
        tls: TlsFiles | None = None,
        settings: SessionSettings | None = None,
    ) -> None:
        """Nothing is connected yet.

        Args:
            source: what learns.
            agent_id: its name in the run.
            coordinator: HOST:PORT, [IPV6]:PORT, unix:PATH, @FILE or a function, as of an `Agent`.
            workload: a name of what is learnt, for people.
            transport: how to reach the coordinator; gRPC to `coordinator` if omitted.
            tls: certificate, key and authority for mutual TLS. No TLS where left out.
            settings: how long it waits, and what it refuses; the defaults if omitted.

        Raises:
            InvalidValueError: the name is not one that an agent may have; or a file of `tls` cannot be used.
        """
        problem = agent_id_problem(agent_id)
        if problem is not None:
            raise InvalidValueError(problem)
        self.agent_id, self.source, self.workload = agent_id, source, workload
        self.basis: Float[np.ndarray, "d r"] | None = None
        self.rounds = 0
        self._driver = SessionDriver(
            transport or GrpcTransport(coordinator, tls=tls), self._hooks(), settings or SessionSettings()
        )

    @property
    def name(self) -> str:
        """The same as `agent_id`."""
        return self.agent_id

    def stop(self, cause: str) -> None:
        """Asks it to leave the run; `run` returns soon after. Call it on the event loop's thread."""
        self._driver.post(session.StopRequested(cause, False))

    # The session ------------------------------------------------------------------------------------------------

    def _hooks(self) -> SessionHooks:
        """The source is called in the learning thread, so that heartbeats go on meanwhile."""
        return SessionHooks(
            name=lambda: self.agent_id,
            prepare=lambda specification: self._in_worker(partial(self._prepare, specification)),
            learn=lambda command: self._in_worker(partial(self._learn, command)),
            conclude=self._conclude,
            fail=self._fail,
        )

    def _conclude(self, command: session.Conclude) -> None:
        if not self._outcome.done():
            self.basis = command.basis
            self._outcome.set_result(AgentEnd(command.message, self.rounds, command.left))

    def _prepare(self, specification: RunSpecification) -> session.Event:
        """The run is looked at before anything is sent.

        Raises:
            InvalidValueError: the run's method needs more of an agent than gradients.
        """
        problem = _more_than_gradients(specification.method)
        if problem:
            raise InvalidValueError(
                f"agent {self.agent_id} has gradients alone, and the method of this run {problem}; start the "
                "coordinator with --preset paper"
            )
        self.source.begin(specification)
        return session.Prepared(
            Join(
                instance_id=secrets.token_hex(16),
                agent_ids=(self.agent_id,),
                feature_dim=self.source.feature_dim,
                feature_fingerprint=self.source.fingerprint,
                workload=self.workload,
                client_version=importlib.metadata.version("cospan"),
            )
        )

    def _learn(self, command: session.Learn) -> session.Event:
        """Learns a round.

        Raises:
            BasisRefusedError: the basis is not one that the method can have led to.
            WorkloadBehaviourError: the source gave no gradient of the basis' shape, or one that is not finite.
        """
        check_basis(command.basis, command.round, command.turn)
        gradient = np.asarray(self.source.gradient(command.round, command.basis), dtype=np.float64)
        rows, columns = command.basis.shape
        if gradient.shape != (rows, columns):
            raise WorkloadBehaviourError(
                f"the source of {self.agent_id} gave, in round {command.round}, a gradient of shape "
                f"{gradient.shape}; it must be ({rows}, {columns}), as the basis is"
            )
        if not np.isfinite(gradient).all():
            raise WorkloadBehaviourError(
                f"the source of {self.agent_id} gave, in round {command.round}, a gradient with entries that are "
                "not finite; take smaller steps"
            )
        self.rounds += 1
        return session.GradientReady(GradientUpload(command.round, Contribution(DenseMatrix(gradient))))


def _more_than_gradients(method: Method) -> str:
    """What else a method needs of an agent, in words; empty where it needs nothing."""
    needs = {
        "preconditions its steps with second moments of heads": method.preconditioned,
        "pools further numbers": method.sends_pooled,
        "learns a head covariance": method.has_head_covariance,
        "has a warm-up": method.warm_up_rounds > 0,
    }
    return " and ".join(what for what, is_needed in needs.items() if is_needed)
