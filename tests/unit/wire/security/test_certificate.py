"""The URIs of a certificate, from its DER bytes: those that `cryptography` reads, and nothing that is malformed."""

import contextlib
import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cospan.server.admission.auth import peer_identity
from cospan.wire.errors import IdentityMismatchError
from cospan.wire.security.certificate import MAX_URI, uris_of_der, uris_of_pem

KEY = ec.derive_private_key(4, ec.SECP256R1())
NOW = datetime.datetime(2030, 1, 1)
NAMES = (
    x509.UniformResourceIdentifier("cospan:agent:site-7"),
    x509.DNSName("cospan-admin.example"),
    x509.UniformResourceIdentifier("spiffe://fleet/one"),
    x509.RFC822Name("cospan@example.org"),
)


def certificate(*extensions: x509.ExtensionType) -> bytes:
    """In DER; not critical are the extensions."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cospan:admin")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1, NOW, NOW + datetime.timedelta(days=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def element(tag: int, content: bytes) -> bytes:
    """One element as DER writes it."""
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    digits = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def naming(*uris: bytes) -> x509.UnrecognizedExtension:
    """Alternative names of whatever bytes."""
    names = b"".join(element(0x86, uri) for uri in uris)
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), element(0x30, names))


DER = certificate(x509.BasicConstraints(ca=False, path_length=None), x509.SubjectAlternativeName(NAMES))


def test_the_uris_are_read_and_no_other_names() -> None:
    assert uris_of_der(DER) == ("cospan:agent:site-7", "spiffe://fleet/one")
    assert uris_of_pem(ssl.DER_cert_to_PEM_cert(DER).encode()) == ("cospan:agent:site-7", "spiffe://fleet/one")


def test_a_certificate_without_names_or_extensions_names_nobody() -> None:
    assert uris_of_der(certificate(x509.SubjectAlternativeName(NAMES[1:2]))) == ()
    assert uris_of_der(certificate()) == ()


@pytest.mark.parametrize(
    "uri",
    [
        b"cospan:admin\0.example",
        b"cospan:agent:site-7\n",
        b"cospan:agent:\x1b[2Jsite-7",
        b"cospan:agent:site 7",
        b"cospan:agent:site-\x7f",
        b"cospan:agent:site-\x9b31m",
        "cospan:agent:\u202e7-etis".encode(),
        b"other:\r\n",
        b"",
        b"x" * (MAX_URI + 1),
    ],
)
def test_a_malformed_uri_spoils_the_whole_certificate(uri: bytes) -> None:
    """Whatever stands beside it: an authority that signs such a name has not looked at it."""
    with pytest.raises(IdentityMismatchError, match="malformed") as refusal:
        uris_of_der(certificate(naming(b"cospan:agent:site-7", uri)))
    assert str(refusal.value).isprintable()
    assert str(refusal.value).isascii()


def test_what_is_not_written_as_der_is_refused() -> None:
    two = certificate(naming(b"cospan:agent:a"), x509.BasicConstraints(ca=False, path_length=None))
    malformed = {
        "more behind it": DER + b"\0",
        "cut short": DER[:-1],
        "empty": b"",
        "no sequence": b"\x31" + DER[1:],
        "a long length": b"\x30\x84" + (len(DER) - 4).to_bytes(4) + DER[4:],
        "no definite length": b"\x30\x80" + DER[4:] + b"\0\0",
        "a long tag": b"\x3f" + DER[1:],
        "two lists of names": two.replace(bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11")),
    }
    for what, der in malformed.items():
        with pytest.raises(IdentityMismatchError, match="malformed"):
            pytest.fail(f"{what}: {uris_of_der(der)}")


@pytest.mark.parametrize("pem", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nAA?=\n-----END CERTIFICATE-----\n"])
def test_what_is_no_pem_is_refused(pem: bytes) -> None:
    with pytest.raises(IdentityMismatchError, match="malformed"):
        uris_of_pem(pem)


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    """Never another error; what is read is printable."""
    damaged = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from("scd")):
            case "s":
                damaged[at] = data.draw(st.integers(0, 255))
            case "c":
                del damaged[at:]
                damaged.extend(b"\0")
            case _:
                damaged[at:at] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(IdentityMismatchError):
        uris = uris_of_der(bytes(damaged))
        assert all(uri.isascii() and uri.isprintable() and " " not in uri for uri in uris)


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[!-~]{1,300}", fullmatch=True), min_size=1, max_size=4))
def test_every_printable_uri_is_read_as_it_is(uris: list[str]) -> None:
    assert uris_of_der(certificate(naming(*(uri.encode() for uri in uris)))) == tuple(uris)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(garbage: bytes) -> None:
    for read in (uris_of_der, uris_of_pem):
        with pytest.raises(IdentityMismatchError):
            read(garbage)


class Call:
    """A call's context of a peer with TLS."""

    def __init__(self, der: bytes) -> None:
        self._pem = ssl.DER_cert_to_PEM_cert(der).encode()

    def peer(self) -> str:
        return "ipv4:10.0.0.7:4242"

    def auth_context(self) -> dict[str, list[bytes]]:
        # gRPC's own list of URIs says something else, which must not be looked at.
        return {
            "transport_security_type": [b"ssl"],
            "x509_pem_cert": [self._pem],
            "peer_uri": [b"cospan:admin"],
            "x509_subject_alternative_name": [b"cospan:admin"],
            "x509_common_name": [b"cospan:admin"],
        }


def test_a_peer_is_whom_its_certificate_itself_names() -> None:
    assert peer_identity(Call(DER)).agent_ids == {"site-7"}
    assert not peer_identity(Call(DER)).rights


def test_a_peer_with_a_malformed_name_is_nobody() -> None:
    with pytest.raises(IdentityMismatchError, match="0x00"):
        peer_identity(Call(certificate(naming(b"cospan:agent:site-7", b"cospan:admin\0.example"))))
