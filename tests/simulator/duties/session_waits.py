"""How long a process waits for its coordinator: attempts, heartbeats, questions, and when it gives up.

The time without progress is the sum of what was spent without a session, and in sessions that soon broke without
progress. Progress, a round that becomes durable, sets it back. The time that a draining coordinator has asked for
is not spent, nor is that of a process which first ends its own round.
"""

from collections.abc import Sequence

from runs import SESSION_TIMEOUT

from cospan.client.session import machine as session
from cospan.wire.errors import RemoteError, RunFinishedError, SessionUnknownError
from cospan.wire.messages import AgentMessage, BasisUpdate, Drain, Heartbeat, Welcome

_ROUNDING_SECONDS = 1e-6
_HEARTBEAT_SECONDS = SESSION_TIMEOUT / 4.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0
_QUESTIONS_PER_TIMEOUT = 4.0
_SHORTEST_ANSWER_SECONDS, _LONGEST_ANSWER_SECONDS = 2.0, 10.0
_PAUSE_AFTER_FAILURE_SECONDS, _LATE_ANSWER_SECONDS = 1.0, 1.0
_LONGEST_ABSENCE_SECONDS = 300.0


class SessionWaits:
    """The times of one process, by its own clock."""

    def __init__(self, now: float, progress_seconds: float) -> None:
        self._progress_seconds = progress_seconds
        self._spent, self._since = 0.0, now
        """Time without progress up to `since`, from which it counts on where there is no session."""
        self._phase = session.Phase.OFFLINE
        self._opened = 0.0
        self._has_progressed = False
        self._durable = -1
        self._is_over = self._is_prepared = False
        self._drained_at: float | None = None
        self._resume_at = float("-inf")
        self._attempts = 0
        self._sent_at = self._heard_at = now
        self._asked_at: float | None = None
        self._answer_by = 0.0
        self._ask_at = float("inf")
        self._has_failed = self._was_excused = False

    def stepped(
        self,
        event: session.Event,
        state: session.SessionState,
        commands: Sequence[session.Command],
        now: float,
        *,
        was_learning: bool,
    ) -> None:
        """Holds a step against the times; `was_learning`: a gradient was being computed for a session before it."""
        if self._is_over:
            return
        self._is_over = state.phase in (session.Phase.DONE, session.Phase.FAILED)
        fails = any(isinstance(each, session.Fail) for each in commands)
        may_fail = (
            session.StreamBroke | session.Tick | session.LearningFailed | session.Received | session.Unanswered
        )
        assert isinstance(event, may_fail) or not fails, "a process gives up, and nothing has happened"
        self._judge(event, state, commands, now, was_learning=was_learning)
        if self._phase in (session.Phase.OFFLINE, session.Phase.JOINING) and not fails:
            measured = now - max(state.lost_since, state.resume_at)
            away = abs(measured - self._without_progress(now))
            assert away <= _ROUNDING_SECONDS, "a process measures its time without progress wrongly"
        if any(isinstance(each, session.Transmit | session.TransmitMasked) for each in commands):
            self._sent_at = now

    def _judge(
        self,
        event: session.Event,
        state: session.SessionState,
        commands: Sequence[session.Command],
        now: float,
        *,
        was_learning: bool,
    ) -> None:
        match event:
            case session.Described():
                self._attempts = 0
            case session.Prepared():
                self._is_prepared, self._spent, self._since = True, 0.0, now
            case session.Connected():
                self._phase, self._sent_at = session.Phase.JOINING, now
            case session.Received():
                self._received(event, state, now)
            case session.StreamBroke():
                self._broke(event, commands, now, was_learning=was_learning)
            case session.GradientReady() if self._phase is session.Phase.LAGGING:
                self._since = now
                self._check_attempt(commands, now, soon=True)
            case session.Regrouped():
                self._close(now, wanted=True)
                self._check_attempt(commands, now, soon=True)
            case session.Answered() | session.Unanswered():
                self._questioned(event, state, commands, now)
            case session.Tick():
                self._ticked(state, commands, now)
            case _:
                pass

    # Progress ------------------------------------------------------------------------------------------------

    def _received(self, event: session.Received, state: session.SessionState, now: float) -> None:
        message = event.message
        self._hear(state, now)
        if isinstance(message, Welcome):
            self._phase, self._opened, self._has_progressed = session.Phase.ACTIVE, now, False
            self._spent += now - self._since
            self._attempts, self._sent_at = 0, now
        if isinstance(message, Welcome | BasisUpdate):
            if message.stamp.durable_round > self._durable or self._durable < 0:
                self._spent, self._opened, self._has_progressed = 0.0, now, True
                self._drained_at, self._attempts = None, 0
            self._durable = message.stamp.durable_round
        if isinstance(message, Drain):
            self._drained_at = now if self._drained_at is None else self._drained_at
            longest = self._drained_at + _LONGEST_ABSENCE_SECONDS
            self._resume_at = min(now + message.resume_after_seconds, longest)

    def _close(self, now: float, *, wanted: bool = False) -> None:
        if self._phase is session.Phase.ACTIVE:
            until = self._heard_at if self._has_failed else now
            held = until - self._opened
            if not self._has_progressed and not wanted and held < SESSION_TIMEOUT:
                self._spent += held
            self._since = until
        self._phase, self._asked_at, self._has_failed = session.Phase.OFFLINE, None, False

    def _without_progress(self, now: float) -> float:
        return min(self._spent + now - self._since, now - self._resume_at)

    def _check_given_up(self, commands: Sequence[session.Command], waited: float) -> bool:
        """Whether the process has given up, which it does when it has waited for as long as it may."""
        fails = any(isinstance(each, session.Fail) for each in commands)
        late = waited - self._progress_seconds
        assert not fails or late >= -_ROUNDING_SECONDS, "a process gives up before its time"
        assert fails or late <= _ROUNDING_SECONDS, "a process waits for longer than it may"
        return fails

    # Attempts ------------------------------------------------------------------------------------------------

    def _broke(
        self, event: session.StreamBroke, commands: Sequence[session.Command], now: float, *, was_learning: bool
    ) -> None:
        error = event.error
        if isinstance(error, RunFinishedError) and self._durable >= 0:
            ends = [type(each) for each in commands]
            assert ends == [session.Conclude], "a process ends in order with its run"
            return
        self._close(now)
        if isinstance(error, SessionUnknownError):
            if was_learning and self._without_progress(now) < self._progress_seconds:
                assert not commands, "a process that was given up ends its round first"
                self._spent += now - self._since
                self._phase, self._since = session.Phase.LAGGING, now
                return
        elif isinstance(error, RemoteError) and not error.retryable:
            assert any(isinstance(each, session.Fail) for each in commands), "an error that stays ends a process"
            return
        if not self._check_given_up(commands, self._without_progress(now)):
            self._check_attempt(commands, now)

    def _check_attempt(self, commands: Sequence[session.Command], now: float, *, soon: bool = False) -> None:
        tries = [each for each in commands if isinstance(each, session.Connect | session.Inquire)]
        assert len(tries) == len(commands) == 1, "a process without a stream tries again"
        self._phase = session.Phase.OFFLINE
        assert isinstance(tries[0], session.Connect) == self._is_prepared, "a process with its site made connects"
        pause = tries[0].after_seconds
        if soon:
            assert not pause, "a process that is ready connects at once"
            return
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._attempts, 30))
        asked_for = self._resume_at - now
        assert pause >= max(longest / 2.0, asked_for) - _ROUNDING_SECONDS, "a process tries again too soon"
        assert pause <= max(longest, asked_for) + _ROUNDING_SECONDS, "a process tries again too late"
        self._attempts += 1

    # An open session -----------------------------------------------------------------------------------------

    def _ticked(self, state: session.SessionState, commands: Sequence[session.Command], now: float) -> None:
        if self._phase is session.Phase.LAGGING:
            self._check_given_up(commands, now - self._since)
        elif self._phase is session.Phase.JOINING:
            self._check_given_up(commands, self._without_progress(now))
        elif self._phase is not session.Phase.ACTIVE:
            assert not commands, "a process without a stream sends nothing"
        else:
            self._check_question(state, commands, now)
            beats = [each.message for each in commands if isinstance(each, session.Transmit)]
            others = [each for each in commands if not isinstance(each, session.Transmit | session.Ask)]
            assert not others, "a clock leads to questions and heartbeats"
            self._check_heartbeat(beats, now)
            seldom = session.tick_seconds(state) > _HEARTBEAT_SECONDS / 2.0
            assert not seldom, "a process looks at its clock too seldom for its heartbeats"

    def _check_heartbeat(self, beats: Sequence[AgentMessage], now: float) -> None:
        assert all(isinstance(message, Heartbeat) for message in beats), "a clock leads to heartbeats"
        late = now - self._sent_at - _HEARTBEAT_SECONDS
        assert not beats or late >= -_ROUNDING_SECONDS, "a heartbeat comes before its time"
        assert beats or late <= _ROUNDING_SECONDS, "a heartbeat is left out"

    # Questions -----------------------------------------------------------------------------------------------

    def _pause(self, state: session.SessionState) -> float:
        """Of this process between a sign of life and a question: 0.75 to 1.25 times the mean."""
        mean = max(_SHORTEST_ANSWER_SECONDS, self._progress_seconds / _QUESTIONS_PER_TIMEOUT)
        return mean * (0.75 + 0.5 * state.spread)

    def _ends(self) -> float:
        """When the progress timeout ends, without a sign of life."""
        return max(self._heard_at, self._resume_at) + self._progress_seconds

    def _hear(self, state: session.SessionState, now: float) -> None:
        self._heard_at, self._ask_at = now, now + self._pause(state)
        self._has_failed = self._was_excused = False

    def _check_question(self, state: session.SessionState, commands: Sequence[session.Command], now: float) -> None:
        questions = [each for each in commands if isinstance(each, session.Ask)]
        late = now - self._ask_at
        assert not questions or self._asked_at is None, "a process asks one question at a time"
        assert not questions or late >= -_ROUNDING_SECONDS, "a process asks before its time"
        assert questions or self._asked_at is not None or late <= _ROUNDING_SECONDS, "a question is left out"
        for question in questions:
            usual = 0.0 if self._has_failed else self._pause(state)
            shortest = max(_SHORTEST_ANSWER_SECONDS, usual)
            within = min(_LONGEST_ANSWER_SECONDS, max(shortest, self._ends() - now))
            assert abs(question.within_seconds - within) <= _ROUNDING_SECONDS, "an answer has another time"
            self._asked_at, self._answer_by = now, now + within

    def _questioned(
        self,
        event: session.Answered | session.Unanswered,
        state: session.SessionState,
        commands: Sequence[session.Command],
        now: float,
    ) -> None:
        if self._phase is not session.Phase.ACTIVE or self._asked_at is None:
            return
        if any(isinstance(each, session.Connect) for each in commands):
            assert isinstance(event, session.Answered), "an answer shows that another coordinator is there"
            self._close(now)
            self._attempts += 1
            return
        asked_at, self._asked_at = self._asked_at, None
        assert state.stamp is not None
        # A relay answers with the stamp of an older copy's coordinator, just before it ends the stream.
        if isinstance(event, session.Answered) and event.stamp.incarnation == state.stamp.incarnation:
            self._hear(state, now)
        elif now > self._answer_by + _LATE_ANSWER_SECONDS and not self._was_excused:
            self._ask_at, self._was_excused = now, True  # the process stood still itself
        else:
            soonest = now + _PAUSE_AFTER_FAILURE_SECONDS
            by = min(asked_at + self._pause(state), self._ends() - _LONGEST_ANSWER_SECONDS)
            self._ask_at, self._has_failed = max(soonest, by), True
