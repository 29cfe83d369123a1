"""Keys by the vectors of RFC 7748 and RFC 5869, and whom a pair's keys are for."""

import pytest

from cospan.wire.errors import MembershipRefusedError
from cospan.wire.secure_sums.keys import KeyPair, expanded

ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
EPOCH = bytes(range(32))


def test_shared_secrets_are_those_of_rfc_7748() -> None:
    """Section 6.1."""
    alice, bob = KeyPair(bytes.fromhex(ALICE)), KeyPair(bytes.fromhex(BOB))
    assert alice.public_key.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public_key.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.shared_secret(bob.public_key).hex() == bob.shared_secret(alice.public_key).hex() == secret


def test_keys_are_derived_as_in_rfc_5869() -> None:
    """Appendices A.1 and A.3."""
    secret = bytes([0x0B] * 22)
    assert expanded(secret, bytes(range(0xF0, 0xFA)), 42, salt=bytes(range(13))).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert expanded(secret, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_both_members_derive_the_same_keys_and_others_do_not() -> None:
    alice, bob, carol = KeyPair(bytes.fromhex(ALICE)), KeyPair(bytes.fromhex(BOB)), KeyPair(bytes([7] * 32))
    keys = alice.pair_keys(bob.public_key, EPOCH)
    assert keys == bob.pair_keys(alice.public_key, EPOCH)
    assert len({keys.nonce_key, keys.stream_key}) == 2
    others = [
        alice.pair_keys(bob.public_key, bytes(32)),
        alice.pair_keys(carol.public_key, EPOCH),
        carol.pair_keys(bob.public_key, EPOCH),
    ]
    found = {key for pair in [keys, *others] for key in (pair.nonce_key, pair.stream_key)}
    assert len(found) == 8


def test_the_keys_of_a_pair_stay_the_same() -> None:
    """Members of another make have to derive them, so a change of any byte is a change of the protocol."""
    alice, bob = KeyPair(bytes.fromhex(ALICE)), KeyPair(bytes.fromhex(BOB))
    keys = alice.pair_keys(bob.public_key, EPOCH)
    assert (keys.nonce_key.hex(), keys.stream_key.hex()) == (
        "cb0a762bea8b75c0cab438fc5a3cfd4c9f8e7987068578ba0ced08a74d5fb0a1",
        "4f67246ec4464d0b21c0fab4f36acb1e48bc7807d8f99d4a627f38bb40070657",
    )
    assert bytes(keys.nonce_key).hex() not in repr(keys)


def test_a_process_has_a_key_of_its_own() -> None:
    assert KeyPair().public_key != KeyPair().public_key


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"", "has 0 bytes"),
        (bytes(31), "has 31 bytes"),
        (bytes(33), "has 33 bytes"),
        (bytes(32), "low order"),
        (bytes([1, *[0] * 31]), "low order"),
        (bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "low order"),
    ],
)
def test_keys_that_make_no_secret_are_refused(key: bytes, text: str) -> None:
    with pytest.raises(MembershipRefusedError, match=text):
        KeyPair().shared_secret(key)
