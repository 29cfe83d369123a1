"""Gradients in an agent's file that its coordinator may ask for again: npz arrays, and back."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Float

from cospan.client.files.agent_result import AgentResult
from cospan.client.session.machine import KeptGradient
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.messages import decode_agent_message, encode_agent_message
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import GradientUpload

_BASES, _COVARIANCES = "kept_bases", "kept_head_covariances"
_UPLOADS, _SIZES = "kept_uploads", "kept_sizes"
KEPT = (_BASES, _COVARIANCES, _UPLOADS, _SIZES)
"""The names of what is kept, in a file."""


def kept_values(kept: Sequence[KeptGradient]) -> dict[str, Any]:
    """Gradients and the bases and head covariances that they were taken at, by the names of a file."""
    messages = [encode_agent_message(each.upload).SerializeToString() for each in kept]
    bases = np.stack([each.basis for each in kept]) if kept else np.zeros((0, 0, 0))
    covariances = [each.head_covariance for each in kept if each.head_covariance is not None]  # of all, or of none
    sizes = np.array([len(message) for message in messages], np.int64)
    return {
        _BASES: bases,
        _COVARIANCES: np.stack(covariances) if covariances else np.zeros((0, 0, 0)),
        _UPLOADS: np.frombuffer(b"".join(messages), np.uint8),
        _SIZES: sizes,
    }


def loaded_kept(result: AgentResult, spec: RunSpecification) -> tuple[KeptGradient, ...]:
    """The gradients of a file; none where it holds none, or what is no gradient of this run.

    Without them the rounds are learnt again, so a file of an older version is as good as before.
    """
    bases = result.values.get(_BASES, np.zeros((0, 0, 0)))
    if bases.ndim != 3 or bases.shape[1:] != (spec.feature_dim, spec.rank):
        return ()
    covariances = result.values.get(_COVARIANCES, np.zeros((0, 0, 0)))
    with_covariances = len(bases) if spec.method.has_head_covariance else 0
    if covariances.ndim != 3 or len(covariances) != with_covariances:
        return ()
    if with_covariances and covariances.shape[1:] != (spec.rank, spec.rank):
        return ()
    data, sizes = (
        result.values.get(_UPLOADS, np.zeros(0, np.uint8)),
        result.values.get(_SIZES, np.zeros(0, np.int64)),
    )
    if data.dtype != np.uint8 or sizes.shape != (len(bases),) or sizes.dtype != np.int64:
        return ()
    ends = np.cumsum(sizes).tolist()
    if (sizes < 0).any() or (ends and ends[-1] != len(data)):
        return ()
    encoded = data.tobytes()
    spec = replace(spec, secure_sums=False, min_cohort=0)  # a file holds what was learnt, before it was masked
    uploads = [_decoded(encoded[end - size : end], spec) for end, size in zip(ends, sizes.tolist(), strict=True)]
    known = [upload for upload in uploads if upload is not None]
    if len(known) < len(uploads):
        return ()
    return tuple(
        KeptGradient(upload, _matrix(basis), None if covariance is None else _matrix(covariance))
        for upload, basis, covariance in zip_longest(known, bases, covariances)
    )


def _matrix(values: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    return np.ascontiguousarray(values, dtype=np.float64)


def _decoded(data: bytes, spec: RunSpecification) -> GradientUpload | None:
    try:
        message = decode_agent_message(pb.CollaborateRequest.FromString(data), spec)
    except (DecodeError, InvalidMessageError):
        return None
    return message if isinstance(message, GradientUpload) else None
