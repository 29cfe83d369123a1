"""The words that two members share for a round."""

import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from cospan.core.secure_sums.fixed_point import Words
from cospan.wire.secure_sums.keys import PairKeys

_NONCE_BYTES = 12
_FIRST_BLOCK = bytes(4)
"""ChaCha20's block counter, which the package takes in front of the nonce of RFC 8439."""
_WORD_BYTES = 8


class Stream:
    """ChaCha20 (RFC 8439) under the stream key, from block 0, with the nonce HMAC-SHA256(nonce key, message)[:12].

    So the words are a pseudorandom function of the message: who does not know the keys cannot look for two messages
    with one nonce, and of 2^20 rounds two have the same with probability 2^−57.
    """

    def __init__(self, keys: PairKeys) -> None:
        """Prepares the cipher, which takes longer than the words of a short vector."""
        self._nonce_key = keys.nonce_key
        self._cipher = Cipher(ChaCha20(keys.stream_key, bytes(16)), None).encryptor()

    def words(self, message: bytes, count: int) -> Words:
        """The `count` words of a message, read as little-endian integers."""
        return np.frombuffer(self.of_message(message, bytes(_WORD_BYTES * count)), dtype="<u8")

    def of_message(self, message: bytes, zeros: bytes) -> bytes:
        """The stream of a message, as many bytes as there are zeros."""
        nonce = hmac.digest(self._nonce_key, message, "sha256")[:_NONCE_BYTES]
        self._cipher.reset_nonce(_FIRST_BLOCK + nonce)
        return self._cipher.update(zeros)

    def words_of_nonce(self, nonce: bytes, count: int) -> Words:
        """The first `count` words of the stream with a nonce of 12 bytes."""
        self._cipher.reset_nonce(_FIRST_BLOCK + nonce)
        return np.frombuffer(self._cipher.update(bytes(_WORD_BYTES * count)), dtype="<u8")
