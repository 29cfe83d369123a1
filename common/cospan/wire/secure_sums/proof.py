"""Whose a member's key is: signed by the key of its TLS certificate, verified by the fleet's authority.

Without proofs a coordinator could name keys of its own in place of those of an agent's neighbours, and read what it
uploads. This module is imported where `cryptography` is not installed; its functions need it.
"""

from dataclasses import dataclass

from cospan.core.secure_sums.membership import Member
from cospan.wire.errors import IdentityMismatchError, InvalidValueError, MembershipRefusedError
from cospan.wire.secure_sums.availability import require_cryptography
from cospan.wire.security.certificate import uris_of_der
from cospan.wire.security.identity import of_certificate
from cospan.wire.security.tls import TlsMaterial
from cospan.wire.text import listed, printable

_CONTEXT = b"cospan secure sums 1: key"
"""No message that TLS signs begins so; so neither signature can be taken for the other."""


@dataclass(frozen=True, slots=True)
class KeyProof:
    """What a member shows for its key.

    Attributes:
        certificates: its TLS certificate, PEM, with the intermediate certificates after it where there are any.
        signature: of the context and `Member.encoded`, by the certificate's key: ECDSA with SHA-256, DER.
    """

    certificates: bytes
    signature: bytes


def proof_of(member: Member, material: TlsMaterial) -> KeyProof:
    """The proof for the own key.

    Raises:
        InvalidValueError: the TLS key is not one on an elliptic curve, or `cryptography` is not installed.
    """
    require_cryptography()
    from cospan.wire.secure_sums.signatures import UnprovenError, signature_of

    try:
        return KeyProof(material.certificate, signature_of(_CONTEXT + member.encoded, material.key))
    except UnprovenError as failure:
        raise InvalidValueError(
            f"the key of the TLS certificate {failure}; secure sums need one that is, as `cospan certs issue` makes"
        ) from failure


def check_proof(member: Member, proof: KeyProof | None, authority: bytes, now: float) -> None:
    """Checks that a member's key is that of a process that may speak for all its agents.

    Args:
        member: its key and agents.
        proof: what it shows.
        authority: PEM of the authorities that the caller trusts.
        now: seconds since 1970; certificates must be valid then.

    Raises:
        MembershipRefusedError: the proof is missing or malformed, its certificate is of another authority, expired
            or of other agents, or the signature is not of this key and these agents.
        InvalidValueError: `cryptography` is not installed.
    """
    require_cryptography()
    from cospan.wire.secure_sums.signatures import UnprovenError, signer_of

    name = listed([repr(agent_id) for agent_id in member.agent_ids], 3)
    if proof is None:
        raise MembershipRefusedError(f"the key of {name} comes without a proof, so it may be anybody's")
    try:
        signed = _CONTEXT + member.encoded
        certificate = signer_of(signed, proof.signature, proof.certificates, authority, now)
        of_certificate(uris_of_der(certificate), address="").require_agents(member.agent_ids)
    except (UnprovenError, IdentityMismatchError) as failure:
        raise MembershipRefusedError(f"the key of {name} is not proven: {printable(str(failure))}") from failure
