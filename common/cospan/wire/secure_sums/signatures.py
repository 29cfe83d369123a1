"""Signatures by the keys of TLS certificates, and the chains of these; all of it of the package `cryptography`."""

import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from cospan.wire.security.certificate import MAX_CERTIFICATE

MAX_CHAIN = 2 * MAX_CERTIFICATE
"""Most bytes of a certificate with its intermediate ones, in PEM."""
_ALGORITHM = ec.ECDSA(SHA256())


class UnprovenError(Exception):
    """Why a signature proves nothing, in words."""


def signature_of(data: bytes, private_key: bytes) -> bytes:
    """ECDSA with SHA-256, DER.

    Args:
        data: what is signed.
        private_key: PEM, not encrypted.

    Raises:
        UnprovenError: the key is not on an elliptic curve.
    """
    key = load_pem_private_key(private_key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnprovenError("is not on an elliptic curve")
    return key.sign(data, _ALGORITHM)


def signer_of(data: bytes, signature: bytes, chain: bytes, authority: bytes, now: float) -> bytes:
    """The certificate, DER, whose key has signed the data.

    Args:
        data: what was signed.
        signature: as of `signature_of`.
        chain: PEM of the certificate and then of intermediate ones.
        authority: PEM of the authorities that are trusted.
        now: seconds since 1970; every certificate of the chain must be valid then.

    Raises:
        UnprovenError: there is no valid chain to an authority (RFC 5280, with the rules that web browsers add, for
            a client's certificate); or the signature is another.
    """
    if len(chain) > MAX_CHAIN:
        raise UnprovenError(f"its certificates have {len(chain)} bytes; at most {MAX_CHAIN} are read")
    try:
        leaf, *others = x509.load_pem_x509_certificates(chain)
        time = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)
        PolicyBuilder().store(_store(authority)).time(time).build_client_verifier().verify(leaf, others)
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise UnprovenError("the key of its certificate is not on an elliptic curve")
        key.verify(signature, data, _ALGORITHM)
    except InvalidSignature as failure:
        raise UnprovenError("its signature is not by the key of its certificate") from failure
    except (ValueError, VerificationError, UnsupportedAlgorithm) as failure:
        raise UnprovenError(
            f"its certificate does not lead to the authority of this process ({failure})"
        ) from failure
    return leaf.public_bytes(Encoding.DER)


@lru_cache(maxsize=4)
def _store(authority: bytes) -> Store:
    return Store(x509.load_pem_x509_certificates(authority))
