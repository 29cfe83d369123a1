"""Whose a member's key is: signed by the key of its TLS certificate, verified by the fleet's authority."""

from dataclasses import dataclass

from cospan.core.secure_sums.membership import Member
from cospan.wire.security.tls import TlsMaterial


@dataclass(frozen=True, slots=True)
class KeyProof:
    """What a member shows for its key.

    Attributes:
        certificate: its TLS certificate, PEM, with the intermediate certificates after it where there are any.
        signature: of `signed_bytes` by the certificate's key: ECDSA with SHA-256, DER.
    """

    certificate: bytes
    signature: bytes


def proof_of(member: Member, material: TlsMaterial) -> KeyProof:
    """The proof for the own key.

    Raises:
        InvalidValueError: the TLS key is not an elliptic curve's.
    """
    raise NotImplementedError


def check_proof(member: Member, proof: KeyProof | None, authority: bytes, now: float) -> None:
    """Checks that a member's key is that of a process that may speak for all its agents.

    Args:
        member: its key and agents.
        proof: what it shows.
        authority: PEM of the authorities that the caller trusts.
        now: seconds since 1970.

    Raises:
        MembershipRefusedError: the proof is missing, malformed, of other agents, or of another authority.
    """
    raise NotImplementedError
