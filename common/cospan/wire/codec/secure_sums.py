"""The messages of secure sums ↔ protobuf: members, their keys and proofs, and masked vectors."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import KEY_BYTES, Member
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec.checks import require, sorted_agent_ids
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_CERTIFICATES_BYTES, MAX_GROUP, MAX_SIGNATURE_BYTES
from cospan.wire.secure_sums.proof import KeyProof

EPOCH_ID_BYTES = 32
_WORD: np.dtype[np.uint64] = np.dtype("<u8")


def encode_members(members: Iterable[Member]) -> list[pb.SumMember]:
    """Members as their messages."""
    return [pb.SumMember(agent_ids=each.agent_ids, public_key=each.public_key) for each in members]


def decode_members(messages: Sequence[pb.SumMember], field: str) -> tuple[Member, ...]:
    """Members from their messages, in the same order.

    Raises:
        InvalidMessageError: there are too many, or a key or a name is malformed.
    """
    if not messages:
        return ()
    require(len(messages) <= MAX_GROUP, f"{field} has {len(messages)} members; at most {MAX_GROUP} are allowed")
    return tuple(
        Member(
            _exactly(each.public_key, KEY_BYTES, f"{field}.public_key"),
            sorted_agent_ids(each.agent_ids, f"{field}.agent_ids"),
        )
        for each in messages
    )


def encode_proofs(proofs: Mapping[bytes, KeyProof]) -> list[pb.KeyProof]:
    """Proofs of keys as their messages."""
    return [
        pb.KeyProof(public_key=key, certificates=proof.certificates, signature=proof.signature)
        for key, proof in proofs.items()
    ]


def decode_proofs(messages: Sequence[pb.KeyProof], field: str) -> dict[bytes, KeyProof]:
    """Public key → proof; whether it proves something is not looked at.

    Raises:
        InvalidMessageError: there are too many, one is too large, or a key is malformed or has two.
    """
    require(len(messages) <= MAX_GROUP, f"{field} has {len(messages)} proofs; at most {MAX_GROUP} are allowed")
    found: dict[bytes, KeyProof] = {}
    for each in messages:
        key = _exactly(each.public_key, KEY_BYTES, f"{field}.public_key")
        require(key not in found, f"{field} has two proofs for one key")
        found[key] = KeyProof(
            _at_most(each.certificates, MAX_CERTIFICATES_BYTES, f"{field}.certificates"),
            _at_most(each.signature, MAX_SIGNATURE_BYTES, f"{field}.signature"),
        )
    return found


def fill_membership(message: pb.Membership, membership: m.SumMembers) -> None:
    """Writes an epoch's members into a message."""
    message.MergeFromString(_members_bytes(membership.members))
    message.key_proofs.extend(encode_proofs(membership.key_proofs))


_NEWEST: list[tuple[tuple[Member, ...], bytes]] = []
"""The members that were encoded last, and their bytes: a coordinator names the same ones to every session."""


def _members_bytes(members: tuple[Member, ...]) -> bytes:
    if not _NEWEST or _NEWEST[0][0] is not members:
        _NEWEST[:] = [(members, pb.Membership(members=encode_members(members)).SerializeToString())]
    return _NEWEST[0][1]


def decode_membership(stamp: m.Stamp, message: pb.Membership, field: str) -> m.SumMembers:
    """An epoch's members; whether a process may send in it is `Membership.problem_for`.

    Raises:
        InvalidMessageError: a field is malformed, or there is no member.
    """
    members = decode_members(message.members, f"{field}.members")
    require(bool(members), f"{field} has no members")
    require(all(each.agent_ids for each in members), f"{field}.members has a member without agents")
    return m.SumMembers(stamp, members, decode_proofs(message.key_proofs, f"{field}.key_proofs"))


def decode_epoch_id(value: bytes, field: str) -> bytes:
    """The id of an epoch; empty where there is none.

    Raises:
        InvalidMessageError: it has another length.
    """
    return _exactly(value, EPOCH_ID_BYTES, field) if value else b""


def fill_masked(message: pb.MaskedVector, vector: m.MaskedVector) -> None:
    """Writes a masked vector into a message."""
    message.epoch_id = vector.epoch_id
    message.words = np.ascontiguousarray(vector.words, dtype=_WORD).tobytes()


def decode_masked(message: pb.SubspaceGradient, spec: RunSpecification) -> m.MaskedVector:
    """The vector of a round, a read-only view of the message's bytes.

    Raises:
        InvalidMessageError: it is none, has another length than the layout of the round, or comes with numbers or
            names beside it.
    """
    if message.WhichOneof("payload") != "masked":
        raise InvalidMessageError("gradient.payload must be masked; this run has secure sums")
    numbers = message.HasField("head_second_moment") or message.HasField("pooled") or message.HasField("td_error")
    if numbers or message.bounded_agent_ids or message.improved_agent_ids:
        raise InvalidMessageError("gradient has numbers or names beside a masked vector, which holds all numbers")
    expected, data = layout_of(spec, message.round).words * _WORD.itemsize, message.masked.words
    if len(data) != expected:
        raise InvalidMessageError(
            f"gradient.masked.words has {len(data)} bytes; the vector of round {message.round} has {expected}"
        )
    epoch_id = _exactly(message.masked.epoch_id, EPOCH_ID_BYTES, "gradient.masked.epoch_id")
    return m.MaskedVector(np.frombuffer(data, dtype=_WORD), epoch_id, message.weight)


def _exactly(value: bytes, length: int, field: str) -> bytes:
    if len(value) != length:
        raise InvalidMessageError(f"{field} has {len(value)} bytes; it must have {length}")
    return value


def _at_most(value: bytes, length: int, field: str) -> bytes:
    if len(value) > length:
        raise InvalidMessageError(f"{field} has {len(value)} bytes; at most {length} are allowed")
    return value
