"""Where an agent's steps come from: an environment, a log, or a control loop that runs elsewhere.

`StepSource` says what each of them promises. A learner asks for L steps a round and knows nothing else of its
source, so the same transitions give the same bits wherever they come from.

**Steps, transitions and cuts.** A round has L slots between L + 1 consecutive rows of observations. A slot is a
transition where its two rows follow one another in time and the reward between them is known; else it is a *cut*:
nothing is learnt across it, and no transition is made up (`Trajectory.is_transition`). The last row of a round is
the first of the next one. An environment has no cuts, and its trajectories have no mask at all.

**The end.** A source that has given all that it has is `at_end`. It can still be asked: every slot is a cut then.
The agent stays in the run with what it has learnt, and nothing counts twice.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from cospan.client.environment.plain_values import SavedState
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import CospanError

AT_END = "end"
"""The kind of the one warning that is none: the source has given all that it has."""


class SourceInterruptedError(CospanError):
    """`StepSource.interrupt` ended a wait for steps that have not been taken yet."""

    reason = "SOURCE_INTERRUPTED"
    remedy = "Nothing: the process was asked to end while it waited for steps."


class SourceWarning(NamedTuple):
    """Something about a source that the user should know and that does not stop the agent.

    Attributes:
        kind: equal for equal warnings of several agents, as "action".
        text: one sentence.
    """

    kind: str
    text: str


@runtime_checkable
class StepSource(Protocol):
    """The steps of one site, in order. The learning thread calls all but `interrupt`.

    A source must promise four things:

    * **Order.** Each transition is given once, in the order in which it happened, whatever the round length.
    * **No invention.** What it does not know is a cut: a missing row, a restart, another file.
    * **Repeatability.** The same source, begun again, gives the same bits; `go_on` continues where `saved` was
      asked, or says why it cannot.
    * **No surprise.** What cannot be learnt from raises in `advance`, before anything of that round is learnt.
    """

    @property
    def steps(self) -> int:
        """Transitions given so far; cuts do not count."""
        ...

    @property
    def reward_sum(self) -> float:
        """The sum of their rewards, added one after another."""
        ...

    @property
    def at_end(self) -> bool:
        """Whether all has been given. An environment, a feed, and a log that is followed never are."""
        ...

    def advance(self, steps: int) -> Trajectory:
        """The next L slots: φ of L + 1 rows, L rewards, and which of the slots are transitions.

        It may block until the steps have been taken.

        Raises:
            SourceInterruptedError: `interrupt` was called.
            WorkloadBehaviourError: the source broke its contract, or has data that cannot be learnt from.
        """
        ...

    def take_warnings(self) -> list[SourceWarning]:
        """The warnings since the last call."""
        ...

    def interrupt(self) -> None:
        """Ends a wait within `advance`, now or later; from any thread. A source that never waits ignores it."""
        ...

    def close(self) -> None:
        """Releases what it holds; it is not asked again."""
        ...

    def saved(self) -> SavedState | None:
        """Where it stands between two rounds, for `go_on`; None where it cannot tell."""
        ...

    def go_on(self, steps: int, reward_sum: float, saved: SavedState | None) -> str:
        """Continues after `steps` transitions: from what `saved` gave, else with data not given before.

        Returns:
            The reason why it could not continue there; empty where it continues exactly.

        Raises:
            WorkloadBehaviourError: its data have changed, so that no continuation is possible.
        """
        ...
