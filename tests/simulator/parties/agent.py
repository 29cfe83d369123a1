"""An agent process, with a simulated learner; what it sends can come late, again, or be a lie."""

import random
from collections import deque
from typing import Any

import numpy as np
from runs import SESSION_TIMEOUT, join

from cospan.client.session import machine as session
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError, SessionUnknownError
from cospan.wire.messages import (
    AgentMessage,
    BasisUpdate,
    GradientUpload,
    Join,
    MaskedVector,
    RoundDeclined,
    Welcome,
)
from simulator import toy
from simulator.parties.masks import Masks
from simulator.parties.network import Connection
from simulator.parties.session_process import SessionProcess, Surroundings
from simulator.witness import is_refusal

_HEARTBEAT_SECONDS = SESSION_TIMEOUT / 4.0
_HOLDS_BACK_SECONDS = 3.0
_HANG_STEP_SECONDS = 0.5


class AgentProcess(SessionProcess):
    """Hosts one agent or more, and takes part until its run is over, it gives up, or it is killed."""

    def __init__(self, around: Surroundings, rng: random.Random, agents: tuple[str, ...], generation: int) -> None:
        self.agents, self.generation = agents, generation
        self.learning_slowness = 1.0
        self.hangs_for = 0.0
        self.holds_back = False
        self.is_convicted = False
        """Whether it has ended because it was refused, after a lie."""
        self.repeats = 0
        self.sent: deque[GradientUpload] = deque(maxlen=4)
        self._learning = False
        self._held_back: GradientUpload | None = None
        self._transmitted = float("-inf")
        self._unknown_tokens: set[str] = set()
        self._learnt_at: dict[int, np.ndarray] = {}
        super().__init__(around, rng)

    def prepare(self, specification: RunSpecification) -> None:
        """Makes the site, which takes a moment."""
        instance = f"{'+'.join(self.agents)} {self.generation}"
        if specification.secure_sums:
            self.masks = Masks(instance, self._around.witness.secure_sums)
        joining = join(*self.agents, instance=instance, feature_dim=toy.D)
        self.later(0.05, lambda: self.post(session.Prepared(joining)))

    def end(self, command: session.Conclude | session.Fail) -> None:
        """The process is over as well."""
        error = command.error if isinstance(command, session.Fail) else None
        self._around.witness.agent_ended(error, lied=self.lied, exhausted=self.waited_in_vain)
        self.is_convicted = self.lied and is_refusal(error)
        self._hang_up()
        self.alive = False
        self.ended()

    def _tick(self) -> None:
        super()._tick()
        if self.alive and self.state.phase is session.Phase.ACTIVE:
            silent = self.clock() - self._transmitted
            assert silent <= _HEARTBEAT_SECONDS, "an agent in an open session sends no heartbeat"
            idle = self.masks is not None and self.masks.owes and self.state.learning is None
            assert not idle, "a member of a sum neither learns, nor sends, nor declines"

    # Learning ------------------------------------------------------------------------------------------------

    def learn(self, command: session.Learn) -> None:
        """Begins a round; a gradient follows."""
        assert not self._learning, "one round is learnt at a time"
        self._learning = True
        mean = self._around.settings.learn_seconds * self.learning_slowness
        number, basis = command.round, command.basis
        self._learnt_at[number] = basis
        self._around.witness.learns(self, number, basis)

        def ready() -> None:
            if self.hangs_for > 0.0:
                self.hangs_for -= _HANG_STEP_SECONDS
                self.later(_HANG_STEP_SECONDS, ready)
                return
            self._learning = False
            self.post(session.GradientReady(GradientUpload(number, toy.contribution(self.agents, number, basis))))

        self.later(self.rng.uniform(0.5, 1.5) * mean, ready)

    # Messages ------------------------------------------------------------------------------------------------

    def took(self, message: Any) -> None:
        """What it notes of a message."""
        if self.masks is not None:
            self.masks.took(message)
        if isinstance(message, BasisUpdate | Welcome):
            self._forget_sent(message.stamp.round, message.basis)
        if isinstance(message, Welcome):
            self._transmitted = self.clock()
            self._unknown_tokens.discard(message.session_token)  # its end was lost in a restart

    def _forget_sent(self, number: int, basis: np.ndarray) -> None:
        """What was learnt at a basis that a coordinator has taken back is not repeated."""
        same = np.array_equal(self._learnt_at.get(number, basis), basis)
        kept = [each for each in self.sent if each.round < number or (each.round == number and same)]
        self.sent = deque(kept, maxlen=4)

    def received(self, connection: Connection, message: Any) -> None:
        """A message; where it repeats itself, it does so whenever a round opens."""
        network = self._around.network
        if isinstance(message, Welcome) and self.state.token is None and network.lost_answers:
            network.lost_answers -= 1
            connection.reset()
            return
        super().received(connection, message)
        number = self.open_round
        if self.repeats and self.alive and number is not None and isinstance(message, BasisUpdate | Welcome):
            self.repeats -= 1
            for again in [each for each in self.sent if each.round <= number]:
                self.upload(again)

    def _broke(self, error: CospanError) -> None:
        if isinstance(error, SessionUnknownError) and self.state.token is not None:
            self._unknown_tokens.add(self.state.token)
        super()._broke(error)

    def outgoing(self, message: AgentMessage) -> AgentMessage | None:
        """Gradients may come later than they could."""
        self._transmitted = self.clock()
        if isinstance(message, Join) and message.resumption is not None:
            unknown = message.resumption.session_token in self._unknown_tokens
            assert not unknown, "an agent resumes a session that it was told is gone"
        if self.masks is not None and isinstance(message, GradientUpload | RoundDeclined):
            self.masks.answered()
        if not isinstance(message, GradientUpload):
            return message
        if self.holds_back and self._held_back is None:
            self.holds_back, self._held_back = False, message
            connection = self.connection
            self.later(_HOLDS_BACK_SECONDS, lambda: self._send_held_back(connection))
            return None
        self.upload(message)
        self._send_held_back(self.connection)
        return None

    def upload(self, message: GradientUpload) -> None:
        """Sends a gradient over the open connection."""
        masked = isinstance(message.contribution, MaskedVector)
        assert masked or self.masks is None, "an upload without masks leaves its process"
        self.sent.append(message)
        self._around.witness.uploads(message.agent_ids or self.agents, message)
        if self.connection is not None:
            self.connection.send(0, message)

    @property
    def open_round(self) -> int | None:
        """The round whose gradient is taken from it now; None without one."""
        state = self.state
        is_open = state.phase is session.Phase.ACTIVE and state.is_open and state.stamp is not None
        return state.stamp.round if is_open and state.stamp is not None else None

    def _send_held_back(self, connection: Connection | None) -> None:
        """A gradient that was held back follows, unless its stream is over: then it is kept, and sent again."""
        held, self._held_back = self._held_back, None
        number = self.open_round
        is_same = connection is not None and connection is self.connection
        if held is not None and is_same and number is not None and held.round <= number:
            self.upload(held)
