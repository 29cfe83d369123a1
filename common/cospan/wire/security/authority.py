"""Certificates made with `cryptography`: a development authority, and what it issues.

A folder holds the authority's `ca.pem` and `ca.key`, and for each certificate a folder of its own with `cert.pem`,
`key.pem` and a copy of `ca.pem`: all that one end needs, to be copied to its machine. `ca.key` stays where it is.
"""

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.safe_files import read_bytes, writing_whole

CA_DAYS, LEAF_DAYS = 3650, 90
_CLOCK_SKEW = datetime.timedelta(minutes=5)
"""A new certificate is valid since a little while ago: the clocks of a fleet differ."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate on disk says.

    Attributes:
        path: of its PEM file.
        is_authority: whether it may issue others.
        names: its subject alternative names: URIs, host names and addresses.
        issuer: name of the authority that has issued it.
        serial: its serial number, in hexadecimal digits.
        not_before: from when on it is valid.
        not_after: until when.
        fingerprint: SHA-256 of its bytes, in hexadecimal digits.
    """

    path: Path
    is_authority: bool
    names: tuple[str, ...]
    issuer: str
    serial: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str

    @property
    def days_left(self) -> float:
        """Until it expires; below 0 where it has."""
        return (self.not_after - _now()).total_seconds() / 86400


def make_authority(folder: Path, *, name: str, days: float) -> Path:
    """Makes a certificate authority; its certificate's path.

    Raises:
        RunFileError: there is one already, or the folder cannot be written to.
    """
    certificate, key_file = folder / "ca.pem", folder / "ca.key"
    for path in (certificate, key_file):
        if path.exists():
            raise RunFileError(
                f"{path} is there already; choose another folder, for a new authority replaces no other"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
    )
    signed = builder.sign(key, hashes.SHA256())
    _make_folder(folder)
    _write(key_file, _pem_of(key), mode=0o600)
    _write(certificate, signed.public_bytes(Encoding.PEM), mode=0o644)
    return certificate


def issue(
    folder: Path, name: str, *, uris: Sequence[str], hosts: Sequence[str] = (), days: float = LEAF_DAYS
) -> Path:
    """Issues a certificate into the folder `name`; its path. With `hosts` it is one for a server.

    Raises:
        RunFileError: there is one of that name already; or the authority, or the disk, cannot be used.
        InvalidValueError: a host is neither a host name nor an address.
    """
    target = folder / name
    if target.exists():
        raise RunFileError(f"{target} is there already; renew it, or choose another --name")
    names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
    return _issue_into(folder, target, names, datetime.timedelta(days=days))


def renew(folder: Path, name: str, *, days: float | None = None) -> Path:
    """Issues a certificate again, for the same names, with a new key; its path.

    The lifetime is the former one's where `days` is left out. Key and certificate are replaced one after the other:
    a reader in between sees two that do not belong together, and reads again.

    Raises:
        RunFileError: there is none of that name; or the authority, or the disk, cannot be used.
    """
    if not (folder / name / "cert.pem").exists():
        raise RunFileError(
            f"{folder} holds no certificate {name!r} to renew; `cospan certs show {folder}` says which there are"
        )
    former = _load(folder / name / "cert.pem")
    try:
        names = former.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as failure:
        raise RunFileError(f"{folder / name / 'cert.pem'} has no names to issue it again for") from failure
    lifetime = former.not_valid_after_utc - former.not_valid_before_utc - _CLOCK_SKEW
    if days is not None:
        lifetime = datetime.timedelta(days=days)
    return _issue_into(folder, folder / name, list(names), lifetime)


def issued_names(folder: Path) -> list[str]:
    """What the authority of a folder has issued there, by name."""
    return sorted(path.parent.name for path in folder.glob("*/cert.pem"))


def read_certificate(path: Path) -> Certificate:
    """What a certificate says.

    Raises:
        RunFileError: the file is missing, or holds no certificate in PEM.
    """
    found = _load(path)
    names: tuple[str, ...] = ()
    with contextlib.suppress(x509.ExtensionNotFound):
        listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in listed)
    constraints = None
    with contextlib.suppress(x509.ExtensionNotFound):
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    return Certificate(
        path=path,
        is_authority=constraints is not None and constraints.ca,
        names=names,
        issuer=_common_name(found.issuer),
        serial=f"{found.serial_number:x}",
        not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc,
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
    )


def _issue_into(folder: Path, target: Path, names: list[x509.GeneralName], lifetime: datetime.timedelta) -> Path:
    if not (folder / "ca.pem").exists():
        raise RunFileError(f"{folder} holds no authority; make one with `cospan certs init {folder}`")
    authority, authority_key = _load(folder / "ca.pem"), _load_key(folder / "ca.key")
    is_server = any(not isinstance(name, x509.UniformResourceIdentifier) for name in names)
    # The coordinator's certificate also asks for its own health, as a client.
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if is_server else [])]
    key = ec.generate_private_key(ec.SECP256R1())
    left = authority.not_valid_after_utc - _now()
    days = min(lifetime, left) / datetime.timedelta(days=1)
    if left <= datetime.timedelta():
        raise RunFileError(
            f"the authority {folder / 'ca.pem'} has expired; make a new one with `cospan certs init`"
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])])
    builder = (
        _builder(subject, authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )
    signed = builder.sign(authority_key, hashes.SHA256())
    _make_folder(target)
    _write(target / "ca.pem", authority.public_bytes(Encoding.PEM), mode=0o644)
    _write(target / "key.pem", _pem_of(key), mode=0o600)
    _write(target / "cert.pem", signed.public_bytes(Encoding.PEM), mode=0o644)
    return target / "cert.pem"


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, of_authority: bool) -> x509.KeyUsage:
    """An authority's key signs certificates, any other one the messages of a handshake."""
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=not of_authority,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        decipher_only=False,
        **dict.fromkeys(unused, False),
    )


def _host(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    try:
        if not name or any(character.isspace() or character in ":/" for character in name):
            raise ValueError(name)
        return x509.DNSName(name)
    except ValueError as failure:
        raise InvalidValueError(f"{name!r} is neither a host name nor an address") from failure


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bytes(path))
    except OSError as failure:
        raise RunFileError(f"cannot read the certificate {path}: {failure.strerror}") from failure
    except ValueError as failure:
        raise RunFileError(f"{path} holds no certificate in PEM") from failure


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_bytes(path), password=None)
    except OSError as failure:
        raise RunFileError(f"cannot read the authority's key {path}: {failure.strerror}") from failure
    except (ValueError, TypeError) as failure:
        raise RunFileError(f"{path} holds no unencrypted key in PEM") from failure
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RunFileError(
            f"{path} is no key on an elliptic curve; only authorities of `cospan certs init` can issue"
        )
    return key


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise RunFileError(f"cannot make the folder {folder}: {failure.strerror}") from failure


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Writes a file whole or not at all; it has its mode from the start. It keeps its owner."""
    try:
        with writing_whole(path, mode=mode) as file:
            file.write(content)
            with contextlib.suppress(OSError):  # of a new file; or without root, which may change an owner
                owner = path.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
