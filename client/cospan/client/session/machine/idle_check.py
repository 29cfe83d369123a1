"""When an agent with an open stream asks whether its coordinator answers, and when the silence is too long.

An open stream alone is no sign of life: gRPC's threads answer keepalive pings also for a coordinator whose event
loop hangs. A coordinator that waits for slow agents has nothing to send either. So an agent that has received
nothing for some time asks a question that costs little. The answer shows that the coordinator runs, and the wait
continues without a bound. Without a message or an answer for `progress_timeout_seconds`, the coordinator counts as
unavailable.

Pure: a `Silence` is a value, and time is an argument (seconds, monotonic).
"""

import math
from dataclasses import dataclass, replace

SHORTEST_SECONDS = 2.0
"""The shortest mean interval between two questions, and the shortest time that a repeated question may take."""
LONGEST_ANSWER_SECONDS = 10.0
"""A coordinator that is busy with a large round may need some seconds for an answer."""
_QUESTIONS_PER_TIMEOUT = 4.0
_QUESTIONS_PER_SECOND = 100.0
"""What a whole fleet may ask its coordinator; an answer costs less than a millisecond of one core there."""
_SPREAD = 0.5
"""The agents of a fleet wait 0.75 to 1.25 intervals, so that those that hear of a round at once ask apart."""
_PAUSE_AFTER_FAILURE = 1.0
_LATE_SECONDS = 1.0
"""A question that fails this much later than its deadline shows that this process stood still itself."""


@dataclass(frozen=True, slots=True)
class IdleCheckTimes:
    """How one process asks.

    Attributes:
        progress_timeout_seconds: seconds without a sign of life after which the coordinator counts as unavailable.
        pause: seconds from a sign of life to the next question.
    """

    progress_timeout_seconds: float
    pause: float


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known of the coordinator behind an open stream.

    Attributes:
        heard_at: when the last message or answer came.
        ask_at: when the next question is due.
        asked_at: when the question that is under way was asked; None without one.
        answer_by: the deadline of that question.
        unanswered: how many questions have failed since `heard_at`.
        excused: whether one of those that failed was not counted, because this process stood still.
    """

    heard_at: float = 0.0
    ask_at: float = math.inf
    asked_at: float | None = None
    answer_by: float = 0.0
    unanswered: int = 0
    excused: bool = False


def times_of(progress_timeout_seconds: float, processes: float, spread: float) -> IdleCheckTimes:
    """The times of one of `processes` processes in a run; `spread` is its own number in [0, 1), drawn once."""
    interval = max(
        SHORTEST_SECONDS, progress_timeout_seconds / _QUESTIONS_PER_TIMEOUT, processes / _QUESTIONS_PER_SECOND
    )
    return IdleCheckTimes(progress_timeout_seconds, interval * (1.0 + _SPREAD * (spread - 0.5)))


def heard(silence: Silence, times: IdleCheckTimes, now: float) -> Silence:
    """After a message; a question that is under way stays under way."""
    return Silence(now, now + times.pause, silence.asked_at, silence.answer_by)


def answered(silence: Silence, times: IdleCheckTimes, now: float) -> Silence:
    """After an answer."""
    return heard(replace(silence, asked_at=None), times, now)


def is_due(silence: Silence, now: float) -> bool:
    """Whether a question is to be asked now; there is one at a time."""
    return silence.asked_at is None and now >= silence.ask_at


def asked(silence: Silence, times: IdleCheckTimes, now: float, *, excused_until: float = -math.inf) -> Silence:
    """With a question under way, which may take until `answer_by`: the last one until the progress timeout ends."""
    shortest = SHORTEST_SECONDS if silence.unanswered else max(SHORTEST_SECONDS, times.pause)
    left = max(silence.heard_at, excused_until) + times.progress_timeout_seconds - now
    return replace(silence, asked_at=now, answer_by=now + min(LONGEST_ANSWER_SECONDS, max(shortest, left)))


def unanswered(silence: Silence, times: IdleCheckTimes, now: float, *, excused_until: float = -math.inf) -> Silence:
    """After a question that failed; the next one is due soon enough to be over when the progress timeout ends.

    A question that fails long after its deadline is repeated and does not count, once: this process stood still,
    and the answer may have come meanwhile.
    """
    asked_at = now if silence.asked_at is None else silence.asked_at
    if now > silence.answer_by + _LATE_SECONDS and not silence.excused:
        return replace(silence, asked_at=None, ask_at=now, excused=True)
    end = max(silence.heard_at, excused_until) + times.progress_timeout_seconds
    ask_at = max(now + _PAUSE_AFTER_FAILURE, min(asked_at + times.pause, end - LONGEST_ANSWER_SECONDS))
    return replace(silence, asked_at=None, ask_at=ask_at, unanswered=silence.unanswered + 1)


def is_too_long(silence: Silence, times: IdleCheckTimes, now: float, *, excused_until: float = -math.inf) -> bool:
    """Whether the progress timeout has ended, and the last question was asked and not answered."""
    ended = now - max(silence.heard_at, excused_until) >= times.progress_timeout_seconds
    return ended and silence.unanswered > 0 and silence.asked_at is None
