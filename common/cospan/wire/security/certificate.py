"""The URIs that a certificate names, read from its DER bytes by a strict reader of the few parts that lead to them.

gRPC and Python's `ssl` hand names over as text, each with its own idea of NUL bytes, line ends and bytes that are
no text; the authority has signed bytes. So the bytes are read here: every length is definite and minimal, every
element ends where its parent does, and a URI is printable ASCII. A certificate that is not so is refused.
The signature, the dates and the chain were verified by the handshake. Layout: RFC 5280, sections 4.1 and 4.2.1.6.
"""

import base64
import binascii
from functools import lru_cache

from cospan.wire.errors import IdentityMismatchError

MAX_CERTIFICATE = 128 * 1024
"""Most bytes of a certificate in DER; OpenSSL takes about 100 KiB of certificates in a handshake."""
MAX_URI = 1024
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_SEQUENCE, _INTEGER, _OBJECT_ID, _BOOLEAN, _OCTETS = 0x30, 0x02, 0x06, 0x01, 0x04
_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3
_URI = 0x86
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_Element = tuple[int, bytes]


class _MalformedError(Exception):
    """Why it is no certificate, in words."""


def uris_of_pem(pem: bytes) -> tuple[str, ...]:
    """The URIs among the subject alternative names of a certificate in PEM; the first, where there are several.

    Raises:
        IdentityMismatchError: it is malformed, or a URI in it has a byte that is no printable ASCII character.
    """
    return _read(bytes(pem))


def uris_of_der(der: bytes) -> tuple[str, ...]:
    """The same of a certificate in DER.

    Raises:
        IdentityMismatchError: as of `uris_of_pem`.
    """
    try:
        return _uris(der)
    except _MalformedError as failure:
        raise _refusal(failure) from None


@lru_cache(maxsize=256)
def _read(pem: bytes) -> tuple[str, ...]:
    try:
        return _uris(_decoded(pem))
    except _MalformedError as failure:
        raise _refusal(failure) from None


def _refusal(failure: _MalformedError) -> IdentityMismatchError:
    return IdentityMismatchError(f"the certificate is malformed: {failure}; issue another one")


def _decoded(pem: bytes) -> bytes:
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0 or end - begin > 2 * MAX_CERTIFICATE:
        raise _MalformedError("there is no certificate in PEM")
    text = b"".join(pem[begin + len(_BEGIN) : end].split())
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as failure:
        raise _MalformedError("its PEM is no base64") from failure


def _uris(der: bytes) -> tuple[str, ...]:
    if len(der) > MAX_CERTIFICATE:
        raise _MalformedError(f"it has {len(der)} bytes; at most {MAX_CERTIFICATE} are read")
    signed, _, _ = _exactly(_only(der, _SEQUENCE, "certificate"), 3, "certificate")
    found: tuple[str, ...] | None = None
    for extension in _extensions(_inside(signed, _SEQUENCE, "signed part")):
        name, value = _extension(extension)
        if name == _ALTERNATIVE_NAMES:
            if found is not None:
                raise _MalformedError("it has two lists of alternative names")
            names = _elements(_only(value, _SEQUENCE, "alternative names"), "alternative names")
            found = tuple(_uri(content) for tag, content in names if tag == _URI)
    return found or ()


def _extensions(signed: bytes) -> list[_Element]:
    """Those of the signed part: version, serial number, algorithm, issuer, dates, subject, key, what may follow."""
    parts = _elements(signed, "signed part")
    fixed = [_VERSION, _INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE]
    if [tag for tag, _ in parts[: len(fixed)]] != fixed:
        if [tag for tag, _ in parts] == fixed[1:]:
            return []  # of version 1, which has no extensions
        raise _MalformedError("its signed part does not have the fields of a certificate")
    rest = parts[len(fixed) :]
    tags = [tag for tag, _ in rest]
    if tags != sorted(set(tags)) or not {_ISSUER_ID, _SUBJECT_ID, _EXTENSIONS}.issuperset(tags):
        raise _MalformedError("its signed part has a field that is out of place")
    if _EXTENSIONS not in tags:
        return []
    return _elements(_only(rest[-1][1], _SEQUENCE, "extensions"), "extensions")


def _extension(element: _Element) -> tuple[bytes, bytes]:
    """The object identifier of an extension and its value; whether it is critical is the handshake's concern."""
    parts = _elements(_inside(element, _SEQUENCE, "extension"), "extension")
    tags = [tag for tag, _ in parts]
    if tags not in ([_OBJECT_ID, _OCTETS], [_OBJECT_ID, _BOOLEAN, _OCTETS]):
        raise _MalformedError("an extension does not have the fields of one")
    return parts[0][1], parts[-1][1]


def _uri(content: bytes) -> str:
    if not 0 < len(content) <= MAX_URI:
        raise _MalformedError(f"a URI in it has {len(content)} bytes; it must have 1 to {MAX_URI}")
    for at, byte in enumerate(content):
        if not 0x21 <= byte <= 0x7E:
            shown = content[:80].decode("ascii", errors="backslashreplace")
            raise _MalformedError(
                f"the URI {shown!r} in it has the byte 0x{byte:02X} at {at}, which no URI may have"
            )
    return content.decode("ascii")


# Elements: tag, length, content -----------------------------------------------------------------------------------


def _elements(data: bytes, where: str) -> list[_Element]:
    """The elements that fill these bytes."""
    found: list[_Element] = []
    at = 0
    while at < len(data):
        at, element = _element(data, at, where)
        found.append(element)
    return found


def _element(data: bytes, at: int, where: str) -> tuple[int, _Element]:
    """The element that begins here, and where the next one does."""
    if len(data) - at < 2:
        raise _MalformedError(f"its {where} is cut short")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise _MalformedError(f"its {where} has a tag of several bytes")
    if length >= 0x80:
        count = length & 0x7F
        digits = data[start : start + count]
        start += count
        length = int.from_bytes(digits)
        if not 1 <= count <= 4 or len(digits) < count or digits[0] == 0 or length < 0x80:
            raise _MalformedError(f"its {where} has a length that is not written as DER writes it")
    if length > len(data) - start:
        raise _MalformedError(f"its {where} is cut short")
    return start + length, (tag, data[start : start + length])


def _exactly(data: bytes, count: int, where: str) -> list[_Element]:
    parts = _elements(data, where)
    if len(parts) != count:
        raise _MalformedError(f"its {where} has {len(parts)} parts; it must have {count}")
    return parts


def _only(data: bytes, tag: int, where: str) -> bytes:
    """The content of the one element in these bytes."""
    return _inside(_exactly(data, 1, where)[0], tag, where)


def _inside(element: _Element, tag: int, where: str) -> bytes:
    if element[0] != tag:
        raise _MalformedError(f"its {where} is an element of tag 0x{element[0]:02X}; it must be 0x{tag:02X}")
    return element[1]
