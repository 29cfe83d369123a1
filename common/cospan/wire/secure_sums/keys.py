"""The key pair of a process, and the keys that it shares with each other member of an epoch.

X25519 (RFC 7748) and HKDF with SHA-256 (RFC 5869). A key pair lives in memory alone: a process that is started
again has another one, so another epoch, and what it computes again never meets a mask that was used before.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cospan.core.secure_sums.fixed_point import Words
from cospan.core.secure_sums.membership import KEY_BYTES
from cospan.wire.errors import MembershipRefusedError

_CONTEXT = b"cospan secure sums 1: pair"


@dataclass(frozen=True, slots=True)
class PairKeys:
    """What two members share in an epoch.

    Attributes:
        nonce_key: 32 bytes; of the HMAC that gives a round's nonce.
        stream_key: 32 bytes; of the ChaCha20 stream that gives a round's words.
    """

    nonce_key: bytes = field(repr=False)
    stream_key: bytes = field(repr=False)


class NewestVector(NamedTuple):
    """The newest vector that was masked with a key pair; see `cospan.wire.secure_sums.masker`."""

    round: int
    epoch_id: bytes
    announcement: bytes
    words: Words
    masked: Words


class KeyPair:
    """An X25519 key pair, and the newest vector that it has masked.

    Attributes:
        public_key: 32 bytes.
        newest: None where none was masked. It is kept here rather than by epoch, so that naming an earlier epoch
            again gains nothing.
    """

    def __init__(self, private: bytes | None = None) -> None:
        """Makes a new pair; or, for published vectors and tests, the one of a private key of 32 bytes."""
        self._private = (
            X25519PrivateKey.generate() if private is None else X25519PrivateKey.from_private_bytes(private)
        )
        self.public_key: bytes = self._private.public_key().public_bytes_raw()
        self.newest: NewestVector | None = None

    def shared_secret(self, public_key: bytes) -> bytes:
        """X25519 of the own private and another's public key, 32 bytes.

        Raises:
            MembershipRefusedError: the other key is not 32 bytes long, or is one of the few of low order, with
                which the secret would be known to everybody.
        """
        if len(public_key) != KEY_BYTES:
            raise MembershipRefusedError(f"a member's key has {len(public_key)} bytes; it must have {KEY_BYTES}")
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError as failure:
            raise MembershipRefusedError("a member's key is of low order; no secret can be made of it") from failure

    def pair_keys(self, public_key: bytes, epoch_id: bytes) -> PairKeys:
        """The keys shared with another member: HKDF of the secret, for this epoch and these two alone.

        The info is the context, the epoch id, and both public keys, the smaller one first; there is no salt.

        Raises:
            MembershipRefusedError: as of `shared_secret`.
        """
        first, second = sorted((self.public_key, public_key))
        derived = expanded(self.shared_secret(public_key), _CONTEXT + epoch_id + first + second, 2 * KEY_BYTES)
        return PairKeys(derived[:KEY_BYTES], derived[KEY_BYTES:])


def expanded(secret: bytes, info: bytes, length: int, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256 of a secret (RFC 5869)."""
    return HKDF(SHA256(), length, salt, info).derive(secret)
