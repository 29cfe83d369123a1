"""Members, proofs and masked vectors on the wire, and what is refused of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from codec_examples import BASIS, JOIN, METHOD, MOMENT, SPEC, STAMP, Change, D, R, matrix, refused, sent, set_to

from cospan.core.method import Aggregation
from cospan.core.run_fields import Participation
from cospan.core.secure_sums.membership import Member
from cospan.wire import messages as m
from cospan.wire.codec.fast_path import message_reader
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_CERTIFICATES_BYTES, max_membership_bytes
from cospan.wire.secure_sums.proof import KeyProof

SECURE = replace(
    SPEC,
    method=replace(METHOD, warm_up_rounds=0, aggregation=Aggregation.MEAN, row_scaled=False),
    participation=Participation.ALL,
    quorum=0.0,
    deadline_seconds=0.0,
    max_staleness=0,
    secure_sums=True,
    min_cohort=2,
)
WORDS = D * R + R * (R + 1) // 2 + 1
VECTOR = m.MaskedVector(np.arange(WORDS, dtype=np.uint64) << np.uint64(50), b"e" * 32, 2.0)
UPLOAD = m.GradientUpload(4, VECTOR, ("a", "b"))
ONE, TWO = Member(b"\x01" * 32, ("a",)), Member(b"\x02" * 32, ("b", "c"))
PROOFS = {ONE.public_key: KeyProof(b"certificate", b"signature")}
MEMBERS = m.SumMembers(STAMP, (ONE, TWO), PROOFS)


def test_a_masked_vector_comes_back() -> None:
    for read in (lambda data: decode_agent_message(data, SECURE), None):
        request = encode_agent_message(UPLOAD)
        back = read(sent(request)) if read else message_reader(SECURE)(request.SerializeToString())
        assert isinstance(back, m.GradientUpload)
        vector = back.contribution
        assert isinstance(vector, m.MaskedVector)
        np.testing.assert_array_equal(vector.words, VECTOR.words)
        assert (back.round, back.agent_ids, vector.epoch_id, vector.weight) == (4, ("a", "b"), b"e" * 32, 2.0)


def test_members_come_back() -> None:
    joining = replace(JOIN, sum_members=(Member(b"\x03" * 32, ()),), key_proofs=PROOFS)
    assert decode_agent_message(sent(encode_agent_message(joining)), SECURE) == joining
    assert decode_coordinator_message(sent(encode_coordinator_message(MEMBERS))) == MEMBERS
    welcome = m.Welcome(STAMP, "token", SECURE, BASIS, STAMP.round, True, ("a",), membership=MEMBERS)
    back = decode_coordinator_message(sent(encode_coordinator_message(welcome)))
    assert isinstance(back, m.Welcome)
    assert back.membership == MEMBERS
    update = m.BasisUpdate(STAMP, BASIS, epoch_id=b"e" * 32)
    told = decode_coordinator_message(sent(encode_coordinator_message(update)))
    assert isinstance(told, m.BasisUpdate)
    assert told.epoch_id == b"e" * 32


def test_a_declined_round_comes_back_in_a_run_with_secure_sums_alone() -> None:
    declined = encode_agent_message(m.RoundDeclined(7))
    assert decode_agent_message(sent(declined), SECURE) == m.RoundDeclined(7)
    with pytest.raises(InvalidMessageError, match="has no secure sums"):
        decode_agent_message(declined, SPEC)


def test_the_members_are_encoded_once_for_all_sessions() -> None:
    other = replace(MEMBERS, key_proofs={})
    assert decode_coordinator_message(sent(encode_coordinator_message(other))) == other
    assert len(encode_coordinator_message(MEMBERS).SerializeToString()) < max_membership_bytes(3)


UPLOAD_CHANGES: dict[str, tuple[str, Change]] = {
    "no words": ("has 0 bytes; the vector of round 4 has", set_to("gradient.masked.words", b"")),
    "too few words": ("bytes; the vector of round 4 has", set_to("gradient.masked.words", bytes(8 * WORDS - 8))),
    "half a word": ("bytes; the vector of round 4 has", set_to("gradient.masked.words", bytes(8 * WORDS + 4))),
    "short epoch": ("epoch_id has 31 bytes", set_to("gradient.masked.epoch_id", bytes(31))),
    "no epoch": ("epoch_id has 0 bytes", set_to("gradient.masked.epoch_id", b"")),
    "plain": ("payload must be masked", set_to("gradient.dense", matrix(np.ones((D, R))))),
    "second moment beside": ("beside a masked vector", set_to("gradient.head_second_moment", matrix(MOMENT))),
    "pooled beside": ("beside a masked vector", set_to("gradient.pooled", matrix(np.ones((D, 1))))),
    "error beside": ("beside a masked vector", set_to("gradient.td_error", 0.5)),
    "names beside": ("beside a masked vector", set_to("gradient.bounded_agent_ids", ["a"])),
    "policies beside": ("beside a masked vector", set_to("gradient.improved_agent_ids", ["a"])),
    "no weight": ("weight is 0.0", set_to("gradient.weight", 0.0)),
}


@pytest.mark.parametrize("name", UPLOAD_CHANGES)
def test_a_malformed_vector_is_refused(name: str) -> None:
    match, change = UPLOAD_CHANGES[name]
    request = encode_agent_message(UPLOAD)
    change(request)
    with pytest.raises(InvalidMessageError) as error:
        decode_agent_message(sent(request), SECURE)
    assert match in refused(error)


def test_a_masked_vector_in_another_run_is_refused() -> None:
    method = replace(SECURE.method, preconditioned=False)
    plain = replace(SECURE, method=method, secure_sums=False, min_cohort=0)
    with pytest.raises(InvalidMessageError, match=r"payload is missing; it must be dense or factored"):
        decode_agent_message(encode_agent_message(UPLOAD), plain)


MEMBER_CHANGES: dict[str, tuple[str, Any]] = {
    "no members": ("has no members", lambda message: message.members.__delitem__(slice(None))),
    "short key": ("public_key has 31 bytes", lambda message: setattr(message.members[0], "public_key", bytes(31))),
    "no agents": ("a member without agents", lambda message: message.members[0].agent_ids.clear()),
    "bad name": ("members.agent_ids", lambda message: message.members[0].agent_ids.append("a/b")),
    "long certificate": (
        "certificates has",
        lambda message: setattr(message.key_proofs[0], "certificates", bytes(MAX_CERTIFICATES_BYTES + 1)),
    ),
    "long signature": (
        "signature has 257 bytes",
        lambda message: setattr(message.key_proofs[0], "signature", bytes(257)),
    ),
    "two proofs": ("two proofs for one key", lambda message: message.key_proofs.append(message.key_proofs[0])),
}


@pytest.mark.parametrize("name", MEMBER_CHANGES)
def test_a_malformed_membership_is_refused(name: str) -> None:
    match, change = MEMBER_CHANGES[name]
    response = encode_coordinator_message(MEMBERS)
    change(response.membership)
    with pytest.raises(InvalidMessageError) as error:
        decode_coordinator_message(sent(response))
    assert match in refused(error)


def test_an_epoch_id_of_another_length_is_refused() -> None:
    response = encode_coordinator_message(m.BasisUpdate(STAMP, BASIS))
    response.basis_update.epoch_id = bytes(5)
    with pytest.raises(InvalidMessageError, match="epoch_id has 5 bytes"):
        decode_coordinator_message(sent(response))
