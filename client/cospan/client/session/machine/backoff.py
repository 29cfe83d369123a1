"""The pause before an agent tries again to reach its coordinator: exponential backoff with jitter.

A coordinator on the same machine is asked more often: no network carries an attempt, a port that does not
listen refuses it at once, and no event tells an agent that the port listens again. An attempt costs about 0.4 ms
of CPU, so the rate is bounded for the whole fleet: its agents together make at most 180 attempts a second (7 % of
one core) or, from 134 agents on, as many as agents elsewhere make. After the first 50 attempts, 10 s or more, the
coordinator is down for longer than a restart takes, and every agent asks at the common rate.
"""

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0
_LONGEST_NEAR_SECONDS = 0.25
_NEAR_SECONDS_PER_AGENT = 0.0075
"""Of the longest pause: 1 / 180 s, divided by the mean of the jitter's factor, 0.75."""
_NEAR_ATTEMPTS = 50


def pause_seconds(attempts: int, jitter: float, *, near_agents: int | None = None) -> float:
    """Seconds to wait after a failed attempt.

    Args:
        attempts: failed attempts in a row before this one, at least 0.
        jitter: in [0, 1]; agents that lost the same coordinator draw it independently.
        near_agents: agents of the run by its specification, at least 1, where the coordinator is on this machine;
            None elsewhere.
    """
    longest = LONGEST_SECONDS
    if near_agents is not None and attempts < _NEAR_ATTEMPTS:
        longest = min(longest, max(_LONGEST_NEAR_SECONDS, _NEAR_SECONDS_PER_AGENT * near_agents))
    full = min(longest, FIRST_SECONDS * 2.0 ** min(attempts, 30))
    return full * (0.5 + 0.5 * jitter)
