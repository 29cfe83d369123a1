"""The error tree: its table is complete, each reason is unique, and each error comes back from a gRPC status."""

import re

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import DebugInfo, ErrorInfo
from google.rpc.status_pb2 import Status

from cospan.wire import errors
from cospan.wire.codec.error_status import from_rpc_error, status_code, to_status, to_trailing_metadata
from cospan.wire.errors import (
    DOMAIN,
    REASONS,
    AgentsLostError,
    CoordinatorUnavailableError,
    CospanError,
    InternalError,
    InterruptedRunError,
    InvalidMessageError,
    MessageTooLargeError,
    RemoteError,
    UsageError,
)

KEY = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...] | None


def descendants(kind: type[CospanError]) -> list[type[CospanError]]:
    return [below for child in kind.__subclasses__() for below in (child, *descendants(child))]


def own(kind: type[CospanError]) -> bool:
    """Whether a class is of the tree, and not of some test."""
    return kind.__module__ == errors.__name__


TREE = [CospanError, *filter(own, descendants(CospanError))]
LEAVES = [kind for kind in TREE if not any(own(child) for child in kind.__subclasses__())]
REMOTE_LEAVES = [kind for kind in LEAVES if issubclass(kind, RemoteError)]


class FakeRpcError(grpc.RpcError):
    """What a synchronous channel raises, as far as anybody looks at it."""

    def __init__(self, code: grpc.StatusCode | None, details: str | None, metadata: Metadata) -> None:
        super().__init__()
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Metadata:
        return self._metadata


def answer(code: grpc.StatusCode | None, text: str | None = "no", metadata: Metadata = ()) -> CospanError:
    return from_rpc_error(FakeRpcError(code, text, metadata), address="host:15051")


def with_details(*details: object) -> Metadata:
    """Trailing metadata with a Status that holds the given messages."""
    status = Status(code=3, message="no")
    for detail in details:
        status.details.add().Pack(detail)  # type: ignore[arg-type]
    return ((KEY, status.SerializeToString()),)


# The tree -------------------------------------------------------------------------------------------------------


def test_the_table_holds_every_leaf_of_the_remote_errors_once() -> None:
    assert sorted(REASONS.values(), key=lambda kind: kind.__name__) == sorted(
        REMOTE_LEAVES, key=lambda kind: kind.__name__
    )
    assert all(reason == kind.reason for reason, kind in REASONS.items())
    assert len(REASONS) >= 8


def test_reasons_are_unique_over_the_whole_tree() -> None:
    reasons = [kind.reason for kind in TREE]
    assert len(set(reasons)) == len(reasons) == len(TREE)
    assert all("reason" in vars(kind) for kind in TREE), "an inherited reason is not a class's own"


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_class_is_named_and_explained(kind: type[CospanError]) -> None:
    assert kind is CospanError or kind.__name__.endswith("Error")
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", kind.reason), "google.rpc.ErrorInfo asks for UPPER_SNAKE_CASE"
    assert len(kind.reason) <= 63
    assert kind not in LEAVES or vars(kind)["remedy"].endswith(".")
    assert str(vars(kind).get("__doc__") or "").strip().endswith(".")
    code = {InterruptedRunError: 75, AgentsLostError: 3}.get(kind, 1)
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else code)


@pytest.mark.parametrize("kind", REMOTE_LEAVES, ids=lambda kind: kind.__name__)
def test_every_remote_leaf_has_a_code_of_its_own_choice(kind: type[RemoteError]) -> None:
    assert "code" in vars(kind)
    code = status_code(kind)
    assert code not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}
    assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, "no peer answers with it"
    # Only a coordinator that is about to be unreachable says what gRPC says of one that is.
    assert (code is grpc.StatusCode.UNAVAILABLE) == (kind is errors.DrainingError)
    assert isinstance(kind.retryable, bool)


def test_the_tree_is_drawn_at_the_head_of_its_module() -> None:
    """With the same children under the same parents."""
    drawn: dict[str, str] = {}
    parents = [""]
    for line in str(errors.__doc__).splitlines():
        if found := re.match(r"^    ((?:[│ ]   )*)(?:[├└]── )?(\w+Error)\b", line):
            depth = len(found[1]) // 4 + ("──" in line.split(found[2])[0])
            parents[depth:] = [found[2]]
            drawn[found[2]] = parents[depth - 1] if depth else ""
    assert drawn == {kind.__name__: kind.__base__.__name__ if kind is not CospanError else "" for kind in TREE}


# There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REMOTE_LEAVES, ids=lambda kind: kind.__name__)
def test_an_error_comes_back_as_what_it_was(kind: type[RemoteError]) -> None:
    error = kind("the rank is 9; it must be 1 to 4 — see §2")
    status = to_status(error)
    back = answer(status_code(error), status.message, to_trailing_metadata(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert status.code == status_code(error).value[0]
    assert len(status.details) == 1
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (kind.reason, "cospan")


@pytest.mark.parametrize("kind", REMOTE_LEAVES, ids=lambda kind: kind.__name__)
def test_the_error_of_an_asynchronous_call_comes_back_too(kind: type[RemoteError]) -> None:
    metadata = grpc.aio.Metadata(("other", "text"), *to_trailing_metadata(kind("no")))
    error = grpc.aio.AioRpcError(status_code(kind), grpc.aio.Metadata(), metadata, details="no")
    assert type(from_rpc_error(error, address="host:15051")) is kind


def test_the_reason_decides_and_not_the_code_or_the_text() -> None:
    metadata = to_trailing_metadata(InvalidMessageError("RUN_FINISHED"))
    assert type(answer(grpc.StatusCode.UNAVAILABLE, "RUN_FINISHED", metadata)) is InvalidMessageError


def test_the_reason_is_found_among_other_details_and_other_metadata() -> None:
    ours = ErrorInfo(reason="RUN_FINISHED", domain=DOMAIN)
    metadata = with_details(DebugInfo(detail="x"), ErrorInfo(reason="INTERNAL", domain="envoy.example"), ours)
    assert metadata is not None
    found = answer(grpc.StatusCode.OUT_OF_RANGE, "over", (("server", "x"), ("trace-bin", b"\0"), *metadata))
    assert type(found) is REASONS["RUN_FINISHED"]


# Answers that are not ours --------------------------------------------------------------------------------------

STRANGE: dict[str, Metadata] = {
    "none": None,
    "empty": (),
    "other keys": (("content-type", "application/grpc"), ("trace-bin", b"\x00\x01")),
    "garbage": ((KEY, b"\xff\xff\xff\xff"),),
    "empty status": ((KEY, b""),),
    "no details": with_details(),
    "foreign domain": with_details(ErrorInfo(reason="INVALID_MESSAGE", domain="googleapis.com")),
    "unknown reason": with_details(ErrorInfo(reason="FROM_THE_FUTURE", domain=DOMAIN)),
    "reason of an inner node": with_details(ErrorInfo(reason="REMOTE", domain=DOMAIN)),
    "reason of a local error": with_details(ErrorInfo(reason="WORKLOAD", domain=DOMAIN)),
    "other detail": with_details(DebugInfo(detail="x")),
    "detail of no type": ((KEY, Status(details=[Any(type_url="nonsense", value=b"\xff")]).SerializeToString()),),
    "broken detail": (
        (
            KEY,
            Status(
                details=[Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")]
            ).SerializeToString(),
        ),
    ),
}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_foreign_answer_is_still_an_error_of_ours(code: grpc.StatusCode, name: str) -> None:
    error = answer(code, "something", STRANGE[name])
    assert type(error) in LEAVES
    assert "something" in str(error)
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        assert type(error) is CoordinatorUnavailableError
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert type(error) is MessageTooLargeError
    else:
        assert type(error) is InternalError
        assert code.name in str(error)


@pytest.mark.parametrize("text", ["", None])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_nobody_answering_says_where_and_what_to_do(code: grpc.StatusCode, text: str | None) -> None:
    error = answer(code, text, None)
    assert type(error) is CoordinatorUnavailableError
    assert "host:15051" in str(error)
    assert code.name in str(error)
    assert "cospan coordinator" in str(error)


def test_a_call_without_a_status_is_an_error_of_ours() -> None:
    """`grpc.RpcError` itself has no `code`; and that of a call which has not ended is None."""
    for error in (grpc.RpcError("odd"), FakeRpcError(None, None, None)):
        translated = from_rpc_error(error, address="host:15051")
        assert type(translated) is InternalError
        assert "host:15051" in str(translated)
