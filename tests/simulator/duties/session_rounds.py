"""What a process sends and learns: one gradient for each round and basis, kept until the round is durable.

Written a second time, without the session's machine: judged from the messages and gradients that it was given.
"""

from collections.abc import Sequence

import numpy as np

from cospan.client.session import machine as session
from cospan.wire.messages import (
    AgentMessage,
    BasisUpdate,
    Disposition,
    GradientUpload,
    Heartbeat,
    Join,
    Leave,
    Receipt,
    Stamp,
    Welcome,
)


class SessionRounds:
    """What one process has learnt, and what it was told of its run."""

    def __init__(self) -> None:
        self._agents: tuple[str, ...] = ()
        self._has_stream = self._is_active = self._is_open = self._is_welcomed = self._is_over = False
        self._stamp: Stamp | None = None
        self._basis = np.zeros(0)
        self._token = ""
        self._newest = 0
        self._learning: tuple[int, np.ndarray] | None = None
        self._gradients: list[tuple[GradientUpload, np.ndarray]] = []
        self._welcomes = self._late = 0

    def stepped(
        self, event: session.Event, state: session.SessionState, commands: Sequence[session.Command]
    ) -> None:
        """Holds a step against what the process owes its coordinator."""
        if state.specification is not None and state.specification.secure_sums:
            return
        assert not (self._is_over and commands), "a session that is over does more"
        self._is_over = state.phase in (session.Phase.DONE, session.Phase.FAILED)
        if self._is_over:
            self._check_end(event, commands)
            return
        sent = [command.message for command in commands if isinstance(command, session.Transmit)]
        self._is_welcomed = isinstance(event, session.Received) and isinstance(event.message, Welcome)
        uploads, learns = self._owed(event, state, sent)
        tries = any(isinstance(each, session.Connect | session.Inquire) for each in commands)
        if tries or isinstance(event, session.StreamBroke):
            self._has_stream = self._is_active = False
        if state.token is None:
            self._token = ""
        self._check(state, commands, sent, uploads, learns=learns)

    def _check_end(self, event: session.Event, commands: Sequence[session.Command]) -> None:
        leaves = any(isinstance(each, session.Transmit) and isinstance(each.message, Leave) for each in commands)
        by_itself = isinstance(event, session.StopRequested | session.LearningFailed)
        if commands:
            assert leaves == (by_itself and self._has_stream), (
                "a process that leaves says so where a stream is open"
            )

    def _owed(
        self, event: session.Event, state: session.SessionState, sent: Sequence[AgentMessage]
    ) -> tuple[list[GradientUpload], bool]:
        """The gradients that an event lets it send, and whether it learns then."""
        match event:
            case session.Prepared(join=join):
                self._agents = join.agent_ids
            case session.Connected():
                self._has_stream = True
                self._check_join(sent)
            case session.Received(message=Welcome() as welcome):
                return self._welcomed(welcome, passes_on=state.passes_on)
            case session.Received(message=BasisUpdate() as update):
                return self._opened(update.stamp, update.basis, is_open=True)
            case session.Received(message=Receipt(disposition=disposition)):
                self._late += disposition is Disposition.LATE
            case session.GradientReady(upload=upload):
                if state.passes_on:
                    self._summed(upload)
                return self._ready(upload, passes_on=state.passes_on)
            case session.Regrouped(agent_ids=agent_ids):
                self._regrouped(agent_ids)
            case _:
                pass
        return [], False

    # What it is told -----------------------------------------------------------------------------------------

    def _check_join(self, sent: Sequence[AgentMessage]) -> None:
        assert len(sent) == 1, "a process joins once on a stream"
        join = sent[0]
        assert isinstance(join, Join), "a stream begins with a join"
        assert join.agent_ids == self._agents, "a process joins as the agents that it hosts"
        shown = join.resumption
        assert (shown is not None) == bool(self._token), "a process shows the session that it had"
        if shown is not None and self._stamp is not None:
            told = (self._token, self._stamp.run_id, self._newest)
            assert (shown.session_token, shown.run_id, shown.last_round) == told, "a process says what it knows"

    def _welcomed(self, welcome: Welcome, *, passes_on: bool) -> tuple[list[GradientUpload], bool]:
        self._is_active, self._token = True, welcome.session_token
        self._welcomes += 1
        if passes_on and not welcome.started and not welcome.stamp.round:
            self._gradients, self._learning = [], None  # the first round may be over more agents than a relay's sum
        is_open = welcome.started and welcome.first_round <= welcome.stamp.round
        return self._opened(welcome.stamp, welcome.basis, is_open=is_open)

    def _opened(self, stamp: Stamp, basis: np.ndarray, *, is_open: bool) -> tuple[list[GradientUpload], bool]:
        self._stamp, self._basis, self._is_open = stamp, basis, is_open
        self._newest = max(self._newest, stamp.round)
        self._gradients = [each for each in self._gradients if each[0].round >= stamp.durable_round]
        return self._part()

    def _regrouped(self, agent_ids: tuple[str, ...]) -> None:
        """Sums over agents that it hosts no more are of no use."""
        former, self._agents = self._agents, agent_ids
        self._gradients = [each for each in self._gradients if set(each[0].agent_ids or former).issubset(agent_ids)]

    # What it owes --------------------------------------------------------------------------------------------

    def _part(self) -> tuple[list[GradientUpload], bool]:
        """What it sends for the open round, and whether it learns that."""
        if not self._is_open:
            return [], False
        kept = self._of_open_round()
        if kept is not None:
            return [kept], False
        return [], self._learning is None

    def _of_open_round(self) -> GradientUpload | None:
        assert self._stamp is not None
        number = self._stamp.round
        found = (each for each, basis in self._gradients if each.round == number)
        bases = (basis for each, basis in self._gradients if each.round == number)
        same = (each for each, basis in zip(found, bases, strict=True) if np.array_equal(basis, self._basis))
        return next(same, None)

    def _summed(self, upload: GradientUpload) -> None:
        """Sums of rounds to come, by fewer agents than a relay sums now, are of no use: the others take part."""
        assert self._stamp is not None
        opened, agents = max(upload.round, self._stamp.round), set(upload.agent_ids or self._agents)
        self._gradients = [
            each
            for each in self._gradients
            if each[0].round <= opened or agents.issubset(each[0].agent_ids or self._agents)
        ]

    def _ready(self, upload: GradientUpload, *, passes_on: bool) -> tuple[list[GradientUpload], bool]:
        assert self._learning is not None, "a gradient that was not asked for is taken"
        number, basis = self._learning
        assert number == upload.round, "a gradient of another round is taken"
        self._learning = None
        self._gradients.append((upload, basis))
        if not self._is_active or self._stamp is None:
            return [], False
        if upload.round < self._stamp.round and self._is_open:
            if passes_on or upload.round < self._stamp.durable_round:
                self._gradients.pop()  # it counts now or never; a relay can sum again
            uploads, learns = self._part()
            return [upload, *uploads], learns
        if upload.round > self._stamp.round and self._of_open_round() is not None:
            return [], False  # it was sent when the round was opened again
        return self._part()

    def _check(
        self,
        state: session.SessionState,
        commands: Sequence[session.Command],
        sent: Sequence[AgentMessage],
        uploads: Sequence[GradientUpload],
        *,
        learns: bool,
    ) -> None:
        gradients = [message for message in sent if isinstance(message, GradientUpload)]
        assert list(map(id, gradients)) == list(map(id, uploads)), "a process sends what the open round may take"
        learnt = [command for command in commands if isinstance(command, session.Learn)]
        assert len(learnt) == learns, "a process learns what the open round lacks, and nothing else"
        for command in learnt:
            assert self._stamp is not None
            assert command.round == self._stamp.round, "a process learns a round that is not open"
            assert np.array_equal(command.basis, self._basis), "a process learns at the basis of the open round"
            self._learning = (command.round, command.basis)
        others = [message for message in sent if not isinstance(message, GradientUpload | Join)]
        assert all(isinstance(message, Heartbeat) for message in others), "a process sends nothing else"
        begins = sum(isinstance(command, session.Begin) for command in commands)
        assert begins == (self._welcomes == 1 and self._is_welcomed), "a process begins once"
        kept = [id(each.upload) for each in state.kept]
        assert kept == [id(each) for each, _ in self._gradients], "a process keeps what it may be asked for again"
        assert state.reconnects == max(0, self._welcomes - 1), "a process counts how often it came back"
        assert state.not_counted == self._late, "a process counts its late gradients"
