"""The words of a pair by the vectors of RFC 8439."""

import hashlib
import hmac

import numpy as np

from cospan.wire.secure_sums.keys import PairKeys
from cospan.wire.secure_sums.streams import Stream


def test_words_are_the_keystream_of_rfc_8439() -> None:
    """Appendix A.1, test vectors 1 and 5: block 0 with the zero key; again, after another nonce, the first."""
    stream = Stream(PairKeys(bytes(32), bytes(32)))
    first = (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    fifth = (
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d"
    )
    for nonce, expected in ((bytes(12), first), (bytes([*[0] * 11, 2]), fifth), (bytes(12), first)):
        words = stream.words_of_nonce(nonce, 8)
        assert words.astype("<u8").tobytes().hex() == expected
        assert words[0] == int.from_bytes(bytes.fromhex(expected)[:8], "little")


def test_the_nonce_is_an_hmac_of_the_message() -> None:
    keys = PairKeys(bytes(range(32)), bytes(range(32, 64)))
    stream = Stream(keys)
    nonce = hmac.new(keys.nonce_key, b"a round", hashlib.sha256).digest()[:12]
    assert np.array_equal(stream.words(b"a round", 5), stream.words_of_nonce(nonce, 5))
    assert not np.array_equal(stream.words(b"a round", 5), stream.words(b"another", 5))
    assert np.array_equal(stream.words(b"a round", 300)[:5], stream.words(b"a round", 5))
