"""What can be wrong with a step that is told, and with the backlog."""

from cospan.wire.errors import CospanError


class FeedError(CospanError):
    """A step was not accepted; nothing of it counts."""

    reason = "FEED"
    remedy = "The text says what is wrong with the step; correct it and send it again."


class StepRefusedError(FeedError):
    """A step is out of order, contradicts an earlier one, or is no step of this site."""

    reason = "STEP_REFUSED"
    remedy = "Correct the step; sent again as it is, it is refused again."


class BacklogFullError(FeedError):
    """The backlog holds as many steps as it may."""

    reason = "BACKLOG_FULL"
    remedy = "Send the step again later; see whether the run continues (`cospan status`), or raise --feed-limit."


class BacklogError(FeedError):
    """The file of the backlog cannot be used: it is of another agent, damaged, in use, or the disk is full."""

    reason = "BACKLOG"
    remedy = "Make room, or name another --output; a step that was not accepted can be sent again."


class FeedClosedError(FeedError):
    """The agent has ended, so nothing will learn from the step."""

    reason = "FEED_CLOSED"
    remedy = "Start the agent again; it continues from its file."
