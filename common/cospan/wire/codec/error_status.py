"""Errors as gRPC statuses with one google.rpc.ErrorInfo, and back."""

from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from cospan.wire.errors import DOMAIN, REASONS, CoordinatorUnavailableError, CospanError, InternalError, RemoteError
from cospan.wire.text import MAX_SENTENCE, printable

_DETAILS_KEY = "grpc-status-details-bin"
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def status_code(error: RemoteError | type[RemoteError]) -> grpc.StatusCode:
    """The code with which an error travels. Errors hold its name, so that one who stays at home needs no gRPC."""
    return grpc.StatusCode[error.code]


def to_status(error: RemoteError) -> Status:
    """The google.rpc.Status of an error: its code, its sentence, and ErrorInfo with its reason."""
    detail = Any()
    detail.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN))
    return Status(code=status_code(error).value[0], message=str(error), details=[detail])


def to_trailing_metadata(error: RemoteError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the status' details."""
    return ((_DETAILS_KEY, to_status(error).SerializeToString()),)


def from_rpc_error(error: grpc.RpcError, *, address: str) -> CospanError:
    """The error that the other side meant; total: any RpcError gives one, even one without a status.

    Whatever the details are, its sentence is on one line, printable and bounded.
    """
    code = error.code() if hasattr(error, "code") else None
    if code is None:
        shown = printable(repr(error), MAX_SENTENCE)
        return InternalError(f"the call to the coordinator at {address} failed without a status: {shown}")
    text = printable(error.details() or "", MAX_SENTENCE)
    reason = _reason(error)
    if reason in REASONS:
        return REASONS[reason](text)
    if code in _UNREACHABLE:
        return CoordinatorUnavailableError(
            f"the coordinator at {address} does not answer ({text or code.name}); "
            "check the address, and that `cospan coordinator` runs there"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return REASONS["MESSAGE_TOO_LARGE"](text)
    return InternalError(f"the coordinator at {address} answered {code.name}: {text}")


def _reason(error: grpc.RpcError) -> str | None:
    """The reason in the ErrorInfo of our domain, if there is one."""
    for entry in error.trailing_metadata() or ():
        key, value = cast("tuple[str, bytes]", entry)
        if key != _DETAILS_KEY:
            continue
        try:
            status = Status.FromString(value)
            for detail in status.details:
                info = ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return str(info.reason)
        except DecodeError:
            return None
    return None


__all__ = ["from_rpc_error", "status_code", "to_status", "to_trailing_metadata"]
