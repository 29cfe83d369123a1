"""The errors that callers of Cospan may catch, and the gRPC status of those that are sent to peers.

Errors with no meaning outside one part are defined there, as subclasses of these.

    CospanError
    ├── UsageError ─────────── the caller asked for something that cannot be; exit code 2
    │   ├── InvalidValueError
    │   ├── ForkedProcessError
    │   └── WorkloadError
    ├── WorkloadBehaviourError  the user's environment, features or policy broke the contract
    ├── InterruptedRunError ─── a signal ended a run before its end; exit code 75
    ├── AgentsLostError ─────── a run reached its end without some of its agents; exit code 3
    ├── RunFileError ────────── a file is not what it should be
    ├── RemoteError ─────────── the other side said no; one class per reason, see `REASONS`
    │   ├── InvalidMessageError
    │   ├── FeatureMismatchError
    │   ├── AgentIdTakenError
    │   ├── NoFreeSiteError
    │   ├── SessionUnknownError
    │   ├── RunFinishedError
    │   ├── OutOfTurnError
    │   ├── DrainingError
    │   ├── MessageTooLargeError
    │   ├── TooManyStreamsError
    │   ├── RateLimitedError
    │   ├── TooManyAgentsError
    │   ├── IdentityMismatchError
    │   ├── AdminRequiredError
    │   └── InternalError
    ├── CertificateError ────── no trust between the two ends; found here, before a word was said
    │   ├── CertificateRequiredError
    │   ├── CertificateExpiredError
    │   ├── CertificateRefusedError
    │   └── CoordinatorUntrustedError
    ├── ForeignRunError ─────── the coordinator now holds another run
    ├── StepsBelowFloorError ── the run's uploads would show more than this agent allows
    ├── BasisRefusedError ───── the coordinator sent a basis that the method cannot have led to
    ├── RunTooLargeError ────── the run's rounds need more memory than this agent may use
    ├── StaleCoordinatorError ─ a coordinator that was replaced by a newer one still answers
    └── CoordinatorUnavailableError  no answer came in time

Each leaf has a stable `reason`. Over gRPC a `RemoteError` is a status code with one google.rpc.ErrorInfo that
carries the reason; nothing ever looks at the text.
"""

from typing import ClassVar

DOMAIN = "cospan"


class CospanError(Exception):
    """The root. Its text is one sentence that names the thing, its value and what to do."""

    reason: ClassVar[str] = "COSPAN"
    exit_code: ClassVar[int] = 1


class UsageError(CospanError):
    """The caller asked for something that cannot be."""

    reason = "USAGE"
    exit_code = 2


class InvalidValueError(UsageError):
    """A setting has a value that is not allowed."""

    reason = "INVALID_VALUE"


class ForkedProcessError(UsageError):
    """This process was forked while a coordinator, a relay or an agent ran in its parent."""

    reason = "FORKED_PROCESS"


class WorkloadError(UsageError):
    """A workload cannot be found or loaded."""

    reason = "WORKLOAD"


class WorkloadBehaviourError(CospanError):
    """An environment, a feature map or a policy broke its contract."""

    reason = "WORKLOAD_BEHAVIOUR"


class InterruptedRunError(CospanError):
    """A signal ended a run, or a part in one, before its end; the command can be started again."""

    reason = "INTERRUPTED"
    exit_code = 75


class AgentsLostError(CospanError):
    """A run reached its end with fewer agents than it began with."""

    reason = "AGENTS_LOST"
    exit_code = 3


class RunFileError(CospanError):
    """A file of a run is missing, unreadable, or of another run."""

    reason = "RUN_FILE"


class ForeignRunError(CospanError):
    """The coordinator holds another run than the one this agent belongs to."""

    reason = "FOREIGN_RUN"


class StepsBelowFloorError(CospanError):
    """The run has fewer steps a round than this process allows, so that its uploads would show single steps."""

    reason = "STEPS_BELOW_FLOOR"


class BasisRefusedError(CospanError):
    """A basis is not orthonormal, or has turned farther than the method can turn it."""

    reason = "BASIS_REFUSED"


class RunTooLargeError(CospanError):
    """The rounds of a run need more memory than this agent may use."""

    reason = "RUN_TOO_LARGE"


class StaleCoordinatorError(CospanError):
    """What answers is an older incarnation of the coordinator than this agent has met."""

    reason = "STALE_COORDINATOR"


class CoordinatorUnavailableError(CospanError):
    """No coordinator answered within the time allowed."""

    reason = "COORDINATOR_UNAVAILABLE"


class CertificateError(CospanError):
    """Two ends cannot speak because one of them does not trust the other's certificate."""

    reason = "CERTIFICATE"


class CertificateRequiredError(CertificateError):
    """The coordinator asks for a client certificate, and none was shown."""

    reason = "CERTIFICATE_REQUIRED"


class CertificateExpiredError(CertificateError):
    """The own certificate is not valid any more, or not yet."""

    reason = "CERTIFICATE_EXPIRED"


class CertificateRefusedError(CertificateError):
    """The coordinator does not accept the own certificate, as when another authority has issued it."""

    reason = "CERTIFICATE_REFUSED"


class CoordinatorUntrustedError(CertificateError):
    """What answers cannot prove that it is the coordinator."""

    reason = "COORDINATOR_UNTRUSTED"


class RemoteError(CospanError):
    """The other side refused. Each leaf has a gRPC code and says whether trying again can help."""

    reason = "REMOTE"
    code: ClassVar[str] = "UNKNOWN"
    retryable: ClassVar[bool] = False


class InvalidMessageError(RemoteError):
    """A message has a field that is malformed or out of range."""

    reason = "INVALID_MESSAGE"
    code = "INVALID_ARGUMENT"


class FeatureMismatchError(RemoteError):
    """The agent's features are not those of the run."""

    reason = "FEATURE_MISMATCH"
    code = "FAILED_PRECONDITION"


class AgentIdTakenError(RemoteError):
    """Another process with a live stream hosts an agent of this name."""

    reason = "AGENT_ID_TAKEN"
    code = "ALREADY_EXISTS"
    retryable = True


class NoFreeSiteError(RemoteError):
    """Every site of the workload has its agent."""

    reason = "NO_FREE_SITE"
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class SessionUnknownError(RemoteError):
    """The session token is of no session of this run; join again."""

    reason = "SESSION_UNKNOWN"
    code = "NOT_FOUND"


class RunFinishedError(RemoteError):
    """The run is over and takes no agents."""

    reason = "RUN_FINISHED"
    code = "OUT_OF_RANGE"


class OutOfTurnError(RemoteError):
    """The message is well formed but not allowed at this moment."""

    reason = "OUT_OF_TURN"
    code = "ABORTED"


class DrainingError(RemoteError):
    """The coordinator goes down and comes back; try again then."""

    reason = "DRAINING"
    code = "UNAVAILABLE"
    retryable = True


class MessageTooLargeError(RemoteError):
    """A message exceeds the limit that follows from d, r and the size of the group."""

    reason = "MESSAGE_TOO_LARGE"
    code = "RESOURCE_EXHAUSTED"


class TooManyStreamsError(RemoteError):
    """The peer, or all together, have as many streams or calls open as the run allows."""

    reason = "TOO_MANY_STREAMS"
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class RateLimitedError(RemoteError):
    """The peer calls or sends more often than the run gives occasion to."""

    reason = "RATE_LIMITED"
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class TooManyAgentsError(RemoteError):
    """The run has known as many agents as it may."""

    reason = "TOO_MANY_AGENTS"
    code = "RESOURCE_EXHAUSTED"


class IdentityMismatchError(RemoteError):
    """The peer's certificate does not speak for an agent that it names."""

    reason = "IDENTITY_MISMATCH"
    code = "PERMISSION_DENIED"


class AdminRequiredError(RemoteError):
    """The call is for administrators, or for observers."""

    reason = "ADMIN_REQUIRED"
    code = "PERMISSION_DENIED"


class InternalError(RemoteError):
    """The coordinator failed; its log says how."""

    reason = "INTERNAL"
    code = "INTERNAL"


REASONS: dict[str, type[RemoteError]] = {error.reason: error for error in RemoteError.__subclasses__()}
"""The one table reason → error class, and with it gRPC code and advice."""
