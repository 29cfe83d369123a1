"""Whose key it is: what a proof has to be, and each way in which it is none."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cospan.core.secure_sums.membership import Member
from cospan.wire.errors import InvalidValueError, MembershipRefusedError
from cospan.wire.secure_sums import availability
from cospan.wire.secure_sums.proof import KeyProof, check_proof, proof_of
from cospan.wire.security import authority
from cospan.wire.security.tls import TlsFiles, TlsMaterial, read_tls

DAY = 86400.0
MEMBER = Member(bytes(range(32)), ("site-1", "site-2"))


def issued(folder: Path, *uris: str) -> TlsMaterial:
    if not (folder / "ca.pem").exists():
        authority.make_authority(folder, name="the fleet's", days=30)
    authority.issue(folder, "agent", uris=uris, days=1)
    return read_tls(TlsFiles(*(folder / "agent" / file for file in ("cert.pem", "key.pem", "ca.pem"))))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> TlsMaterial:
    return issued(tmp_path_factory.mktemp("fleet"), "cospan:agents:site-0..9")


@pytest.fixture(scope="module")
def proof(material: TlsMaterial) -> KeyProof:
    return proof_of(MEMBER, material)


def test_a_process_proves_its_key(material: TlsMaterial, proof: KeyProof) -> None:
    check_proof(MEMBER, proof, material.authority, time.time())


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (replace(MEMBER, public_key=bytes(32)), "signature is not by the key"),
        (replace(MEMBER, agent_ids=("site-1",)), "signature is not by the key"),
        (replace(MEMBER, agent_ids=("site-1site-2",)), "signature is not by the key"),
        (replace(MEMBER, agent_ids=("site-2", "site-1")), "signature is not by the key"),
    ],
)
def test_it_proves_no_other_key_and_no_other_agents(
    material: TlsMaterial, proof: KeyProof, member: Member, text: str
) -> None:
    with pytest.raises(MembershipRefusedError, match=text):
        check_proof(member, proof, material.authority, time.time())


def test_a_certificate_of_other_agents_proves_nothing(material: TlsMaterial) -> None:
    """As of an agent that names a neighbour's name with a key of its own."""
    foreign = replace(MEMBER, agent_ids=("site-9", "site-10"))
    with pytest.raises(MembershipRefusedError, match="does not speak for 'site-10'"):
        check_proof(foreign, proof_of(foreign, material), material.authority, time.time())


def test_an_observer_is_no_agent(tmp_path: Path) -> None:
    observer = issued(tmp_path, "cospan:observer")
    with pytest.raises(MembershipRefusedError, match="does not speak for"):
        check_proof(MEMBER, proof_of(MEMBER, observer), observer.authority, time.time())


@pytest.mark.parametrize("uri", ["cospan:relay:site-0..9", "cospan:relay:*"])
def test_a_relay_proves_no_key_for_the_agents_that_it_brings(uri: str, tmp_path: Path) -> None:
    relay = issued(tmp_path, uri)
    with pytest.raises(MembershipRefusedError, match="does not speak for"):
        check_proof(MEMBER, proof_of(MEMBER, relay), relay.authority, time.time())


def test_another_authority_proves_nothing(tmp_path: Path, material: TlsMaterial) -> None:
    """As one that the coordinator has made: it has issued a certificate for the same names."""
    forged = issued(tmp_path, "cospan:agents:*")
    with pytest.raises(MembershipRefusedError, match="does not lead to the authority"):
        check_proof(MEMBER, proof_of(MEMBER, forged), material.authority, time.time())


@pytest.mark.parametrize("days", [-1.0, 2.0])
def test_certificates_have_their_time(material: TlsMaterial, proof: KeyProof, days: float) -> None:
    with pytest.raises(MembershipRefusedError, match="not valid at validation time"):
        check_proof(MEMBER, proof, material.authority, time.time() + days * DAY)


@pytest.mark.parametrize(
    ("certificates", "signature"),
    [
        (b"", b""),
        (None, b""),
        (None, bytes(70)),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None),
    ],
)
def test_damaged_proofs_prove_nothing(
    material: TlsMaterial, proof: KeyProof, certificates: bytes | None, signature: bytes | None
) -> None:
    damaged = KeyProof(
        proof.certificates if certificates is None else certificates,
        proof.signature if signature is None else signature,
    )
    with pytest.raises(MembershipRefusedError, match="not proven"):
        check_proof(MEMBER, damaged, material.authority, time.time())


def test_long_chains_are_not_read(material: TlsMaterial, proof: KeyProof) -> None:
    long = replace(proof, certificates=proof.certificates * 1000)
    with pytest.raises(MembershipRefusedError, match="at most"):
        check_proof(MEMBER, long, material.authority, time.time())


def test_a_missing_proof_is_named(material: TlsMaterial) -> None:
    with pytest.raises(MembershipRefusedError, match="'site-1', 'site-2' comes without a proof"):
        check_proof(MEMBER, None, material.authority, time.time())


def test_keys_of_other_kinds_sign_nothing(material: TlsMaterial) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InvalidValueError, match="not on an elliptic curve"):
        proof_of(MEMBER, replace(material, key=key))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, material: TlsMaterial) -> None:
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    with pytest.raises(InvalidValueError, match=r"install it with cospan\[tls\]"):
        proof_of(MEMBER, material)
    with pytest.raises(InvalidValueError, match=r"install it with cospan\[tls\]"):
        check_proof(MEMBER, None, material.authority, 0.0)
