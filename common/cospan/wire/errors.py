"""The errors that callers of Cospan may catch, and the gRPC status of those that are sent to peers.

Errors with no meaning outside one part are defined there, as subclasses of these.

    CospanError
    ├── UsageError ─────────── the caller asked for something that cannot be; exit code 2
    │   ├── InvalidValueError
    │   ├── ForkedProcessError
    │   ├── IntervalUnknownError
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
    ├── WeakPrivacyError ── the run lacks the privacy that this agent demands
    ├── BasisRefusedError ───── the coordinator sent a basis that the method cannot have led to
    ├── MembershipRefusedError  the coordinator named members for a secure sum that cannot be
    ├── BudgetSpentError ────── the agent has sent all vectors of its privacy budget
    ├── RunTooLargeError ────── the run's rounds need more memory than this agent may use
    ├── StaleCoordinatorError ─ a coordinator that was replaced by a newer one still answers
    └── CoordinatorUnavailableError  no answer came in time

Each leaf has a stable `reason` and a general `remedy`; docs/reference/errors.md is made of them (`make reference`).
The text of an error is more specific. Over gRPC a `RemoteError` is a status code with one google.rpc.ErrorInfo that
carries the reason; nothing ever looks at the text.
"""

from typing import ClassVar

DOMAIN = "cospan"


class CospanError(Exception):
    """The root. Its text is one sentence that names the thing, its value and what to do."""

    reason: ClassVar[str] = "COSPAN"
    remedy: ClassVar[str] = "`cospan COMMAND --debug` shows where; report it."
    exit_code: ClassVar[int] = 1


class UsageError(CospanError):
    """The caller asked for something that cannot be."""

    reason = "USAGE"
    exit_code = 2


class InvalidValueError(UsageError):
    """A setting has a value that is not allowed."""

    reason = "INVALID_VALUE"
    remedy = (
        "The message says which values are allowed, and where this one comes from: a flag, the environment, "
        "cospan.toml."
    )


class ForkedProcessError(UsageError):
    """This process was forked while a coordinator, a relay or an agent ran in its parent."""

    reason = "FORKED_PROCESS"
    remedy = "Start processes with `multiprocessing.get_context('spawn')`."


class IntervalUnknownError(UsageError):
    """What was learnt does not tell how sure it is: of another preset, or of too few rounds."""

    reason = "INTERVAL_UNKNOWN"
    remedy = "Learn with the preset `practical`, which alone has intervals of values; for the gain run 8 rounds."


class WorkloadError(UsageError):
    """A workload cannot be found or loaded."""

    reason = "WORKLOAD"
    remedy = (
        "Give `package.module:name`, installed or in the working folder; not with the name of an installed module."
    )


class WorkloadBehaviourError(CospanError):
    """An environment, features or a policy broke their contract, or a module of the user raised."""

    reason = "WORKLOAD_BEHAVIOUR"
    remedy = (
        "The message says where: a shape, a NaN, an exception. Run the site by hand, as docs/own-fleet.md shows."
    )


class InterruptedRunError(CospanError):
    """A signal (Ctrl-C, SIGTERM) ended a run, or a part in one, before its end."""

    reason = "INTERRUPTED"
    remedy = "As the message says: `cospan run --resume RUN`, or start the coordinator or agent again."
    exit_code = 75


class AgentsLostError(CospanError):
    """A run reached its end with fewer agents than it began with."""

    reason = "AGENTS_LOST"
    remedy = "The summary gives each cause; `--allow-losses` makes the exit code 0."
    exit_code = 3


class RunFileError(CospanError):
    """A file of a run is missing, damaged, in use, or of another run; or the disk is full."""

    reason = "RUN_FILE"
    remedy = "Name another folder, or make room; the message, and `cospan runs`, name the process that uses it."


class ForeignRunError(CospanError):
    """The coordinator holds another run than the one this agent belongs to."""

    reason = "FOREIGN_RUN"
    remedy = "Restore the coordinator's old state, or start the agent again."


class StepsBelowFloorError(CospanError):
    """The run has fewer steps per round than `--min-steps-per-round`; nothing was sent."""

    reason = "STEPS_BELOW_FLOOR"
    remedy = "Join a run with more steps; or lower the floor, knowing what uploads then show (docs/security.md)."


class WeakPrivacyError(CospanError):
    """The run lacks secure sums or the differential privacy that this agent demands; nothing was sent."""

    reason = "WEAK_PRIVACY"
    remedy = (
        "Join a run that has it; or leave out `--require-secure-sums` or `--max-epsilon`, knowing what uploads "
        "then show (docs/security.md)."
    )


class BasisRefusedError(CospanError):
    """The coordinator sent a basis that is not orthonormal, or turned farther than the method allows."""

    reason = "BASIS_REFUSED"
    remedy = (
        "The message names round, angle and bound: ask the operator of the coordinator. Nothing was sent for "
        "this basis."
    )


class MembershipRefusedError(CospanError):
    """The members that the coordinator named for a secure sum are too few, or a key is not proven."""

    reason = "MEMBERSHIP_REFUSED"
    remedy = (
        "The message names the member and the reason. All agents need certificates of one authority; ask the "
        "operator of the coordinator. Nothing was sent."
    )


class BudgetSpentError(CospanError):
    """The agent has sent as many vectors as its privacy budget allows, and sends no more."""

    reason = "BUDGET_SPENT"
    remedy = (
        "What was learnt is kept. Begin another run, with a budget of its own; give a run that may be resumed more "
        "vectors than rounds, as `--dp epsilon=8,delta=1e-5,vectors=12`."
    )


class RunTooLargeError(CospanError):
    """The rounds of a run need more memory than this agent may use."""

    reason = "RUN_TOO_LARGE"
    remedy = "Fewer steps a round, a smaller group, or a larger `--memory-gib`."


class StaleCoordinatorError(CospanError):
    """What answers is an older incarnation of the coordinator than this agent has met."""

    reason = "STALE_COORDINATOR"
    remedy = (
        "End the older one. After restoring a copy on a machine whose clock is behind: set the clock, or "
        "start the agents again."
    )


class CoordinatorUnavailableError(CospanError):
    """No answer, or no finished round, came within `--progress-timeout-seconds`."""

    reason = "COORDINATOR_UNAVAILABLE"
    remedy = "`cospan doctor --coordinator HOST:PORT`; if the coordinator hangs, end it and start it again."


class CertificateError(CospanError):
    """Two ends cannot speak because one of them does not trust the other's certificate."""

    reason = "CERTIFICATE"


class CertificateRequiredError(CertificateError):
    """The coordinator asks for a client certificate, and none was shown."""

    reason = "CERTIFICATE_REQUIRED"
    remedy = "Give `--tls-cert`, `--tls-key` and `--tls-ca`."


class CertificateExpiredError(CertificateError):
    """The own certificate is not valid any more, or not yet."""

    reason = "CERTIFICATE_EXPIRED"
    remedy = "`cospan certs renew CERTS NAME`; or the clock is wrong."


class CertificateRefusedError(CertificateError):
    """The coordinator does not accept the own certificate, as when another authority has issued it."""

    reason = "CERTIFICATE_REFUSED"
    remedy = "Use a certificate of the fleet's authority; `cospan doctor` compares them."


class CoordinatorUntrustedError(CertificateError):
    """What answers cannot prove that it is the coordinator."""

    reason = "COORDINATOR_UNTRUSTED"
    remedy = "Its certificate must contain the address that you connect to; check `--tls-ca`."


class RemoteError(CospanError):
    """The other side refused. Each leaf has a gRPC code and says whether trying again can help."""

    reason = "REMOTE"
    code: ClassVar[str] = "UNKNOWN"
    retryable: ClassVar[bool] = False


class InvalidMessageError(RemoteError):
    """A message has a field that is malformed or out of range."""

    reason = "INVALID_MESSAGE"
    remedy = "Use one version of Cospan on both sides, and a workload whose features and rewards stay finite."
    code = "INVALID_ARGUMENT"


class FeatureMismatchError(RemoteError):
    """The agent's features are not those of the run."""

    reason = "FEATURE_MISMATCH"
    remedy = "Use the same workload, and the same version of it, on both sides."
    code = "FAILED_PRECONDITION"


class AgentIdTakenError(RemoteError):
    """Another process with a live stream hosts an agent of this name."""

    reason = "AGENT_ID_TAKEN"
    remedy = (
        "Rename one of two agents with the same `--id`. An old process that hangs is given up at the session "
        "timeout; the agent retries until then."
    )
    code = "ALREADY_EXISTS"
    retryable = True


class NoFreeSiteError(RemoteError):
    """Every site of the workload has its agent."""

    reason = "NO_FREE_SITE"
    remedy = "Start fewer agents. A site is free again once its agent has left for good."
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class SessionUnknownError(RemoteError):
    """The session has ended meanwhile, or is of another run."""

    reason = "SESSION_UNKNOWN"
    remedy = "Nothing: the agent joins again by itself."
    code = "NOT_FOUND"


class RunFinishedError(RemoteError):
    """The run is over and takes no agents."""

    reason = "RUN_FINISHED"
    remedy = "Start another run."
    code = "OUT_OF_RANGE"


class OutOfTurnError(RemoteError):
    """A message that is not allowed at this moment; no Join within 20 s; a reader that is far behind."""

    reason = "OUT_OF_TURN"
    remedy = "For agents of another make see docs/protocol.md. From an agent of Cospan: report it."
    code = "ABORTED"


class DrainingError(RemoteError):
    """The coordinator goes down, to continue later."""

    reason = "DRAINING"
    remedy = "Start it again. Agents come back by themselves within their `--progress-timeout-seconds`."
    code = "UNAVAILABLE"
    retryable = True


class MessageTooLargeError(RemoteError):
    """A message exceeds the limit that follows from d, r and the size of the group."""

    reason = "MESSAGE_TOO_LARGE"
    remedy = "Use the same workload and `--rank` on both sides; or smaller groups."
    code = "RESOURCE_EXHAUSTED"


class TooManyStreamsError(RemoteError):
    """The peer, or all together, have as many streams or calls open as the run allows."""

    reason = "TOO_MANY_STREAMS"
    remedy = "A peer opens streams without end; the coordinator's log names it."
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class RateLimitedError(RemoteError):
    """The peer calls or sends more often than the run requires."""

    reason = "RATE_LIMITED"
    remedy = "Poll less often. If agents are restarted in a loop, stop the loop."
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class TooManyAgentsError(RemoteError):
    """The run has known as many agents as it may."""

    reason = "TOO_MANY_AGENTS"
    remedy = "Agent names change with each start: use constant names."
    code = "RESOURCE_EXHAUSTED"


class IdentityMismatchError(RemoteError):
    """The certificate does not speak for an agent that the peer names, or a name in it is malformed."""

    reason = "IDENTITY_MISMATCH"
    remedy = "`cospan certs issue CERTS --agent ID`, and use that certificate."
    code = "PERMISSION_DENIED"


class AdminRequiredError(RemoteError):
    """Reading needs an observer's certificate, stopping a run an administrator's."""

    reason = "ADMIN_REQUIRED"
    remedy = "`cospan certs issue CERTS --observer`, or `--admin`."
    code = "PERMISSION_DENIED"


class InternalError(RemoteError):
    """The coordinator failed in this call."""

    reason = "INTERNAL"
    remedy = "Its log has the traceback; report it."
    code = "INTERNAL"


REASONS: dict[str, type[RemoteError]] = {error.reason: error for error in RemoteError.__subclasses__()}
"""The one table reason → error class, and with it gRPC code and advice."""
