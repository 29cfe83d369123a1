"""Certificates on disk: read in one piece, checked, and read again when they change.

Everything here is Python's own `ssl`; `cryptography` is needed only to make certificates (`cospan certs`).
"""

import contextlib
import logging
import ssl
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cospan.wire.errors import CertificateExpiredError, InvalidValueError
from cospan.wire.files.safe_files import read_bytes

log = logging.getLogger(__name__)

_IGNORE_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where one end of a connection has its certificate, the certificate's key, and whom it trusts.

    Attributes:
        certificate: PEM, with the intermediate certificates after it where there are any.
        key: PEM, not encrypted.
        authority: PEM of the certificate authorities whose certificates are accepted from the other side.
    """

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What stood in the three files at one moment; certificate and key belong together."""

    certificate: bytes
    key: bytes
    authority: bytes

    def __repr__(self) -> str:
        return "TlsMaterial(…)"  # a key must not end in a log


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says.

    Attributes:
        serial: its serial number, in hexadecimal digits.
        issuer: name of the authority that has issued it.
        uris: the URIs among its subject alternative names.
        hosts: the host names and addresses among them.
        not_before: from when on it is valid, in seconds since 1970.
        not_after: until when, in seconds since 1970.
    """

    serial: str
    issuer: str
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    not_before: float
    not_after: float

    def time_problem(self, now: float) -> str | None:
        """Why it is not valid at a time, in words; None where it is."""
        if now > self.not_after:
            return f"expired on {_day(self.not_after)}"
        if now < self.not_before:
            return f"is not valid before {_day(self.not_before)}; is the clock right?"
        return None


def tls_files(certificate: str | None, key: str | None, authority: str | None) -> TlsFiles | None:
    """The three files that TLS needs; None where none of them is said.

    Raises:
        InvalidValueError: only some of them are said.
    """
    said = {"tls_cert": certificate, "tls_key": key, "tls_ca": authority}
    missing = [name for name, value in said.items() if not value]
    if len(missing) == len(said):
        return None
    if missing:
        have = [name for name in said if name not in missing]
        raise InvalidValueError(
            f"{' and '.join(have)} {_be(have)} said and {' and '.join(missing)} {_be(missing)} not; TLS needs all "
            "three of --tls-cert, --tls-key and --tls-ca"
        )
    assert certificate is not None
    assert key is not None
    assert authority is not None
    return TlsFiles(Path(certificate), Path(key), Path(authority))


def read_tls(files: TlsFiles) -> TlsMaterial:
    """What stands in the files.

    Raises:
        InvalidValueError: one cannot be read, is no PEM, or the key is not that of the certificate; also between
            the writing of a new certificate and of its key.
    """
    material = _read_all(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_pair(context, files)
    _load_authority(context, files.authority)
    if _read_all(files) != material:  # what has been checked is not what has been read
        raise InvalidValueError(
            f"{files.certificate}, its key or its authority is being written just now; try again"
        )
    return material


def certificate_facts(files: TlsFiles) -> CertificateFacts:
    """What the own certificate says, whether it is still valid or not.

    Raises:
        InvalidValueError: the files are not what they should be.
    """
    said = _shown_to(files, files.certificate, partial=True)
    names = said.get("subjectAltName", ())
    issuer = {key: value for part in said.get("issuer", ()) for key, value in part}
    return CertificateFacts(
        serial=str(said["serialNumber"]).lower(),
        issuer=issuer.get("commonName", "an authority without a name"),
        uris=tuple(value for kind, value in names if kind == "URI"),
        hosts=tuple(value for kind, value in names if kind in ("DNS", "IP Address")),
        not_before=float(ssl.cert_time_to_seconds(said["notBefore"])),
        not_after=float(ssl.cert_time_to_seconds(said["notAfter"])),
    )


def check_usable(files: TlsFiles, now: float) -> None:
    """Checks that one end can begin with these files at a time, in seconds since 1970.

    Raises:
        InvalidValueError: they are not what they should be.
        CertificateExpiredError: the certificate is not valid at that time.
    """
    read_tls(files)
    problem = certificate_facts(files).time_problem(now)
    if problem is not None:
        raise CertificateExpiredError(f"the certificate {files.certificate} {problem}; renew it first")


def is_issued_by_own_authority(files: TlsFiles) -> bool:
    """Whether the trusted authority has also issued the own certificate, as in a fleet with one authority."""
    try:
        _shown_to(files, files.authority, partial=False)
    except InvalidValueError:
        return False
    return True


class TlsSource:
    """The newest consistent content of three files.

    A certificate and its key are two files, and between the writing of one and of the other they do not belong
    together: until they do, the former pair stays in use, and the log says so once.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Reads the files.

        Raises:
            InvalidValueError: they are not what they should be.
        """
        self.files = files
        self._lock = threading.Lock()
        self._marks = _marks(files)
        self._material = read_tls(files)
        self._complaint = ""

    @property
    def material(self) -> TlsMaterial:
        """What is in use."""
        return self._material

    def refresh(self) -> bool:
        """Looks at the files; whether there is something new in use. From any thread."""
        with self._lock:
            marks = _marks(self.files)
            if marks == self._marks:
                return False
            try:
                material = read_tls(self.files)
            except InvalidValueError as failure:
                self._complain(str(failure))
                return False
            changed = material != self._material
            self._marks, self._complaint = marks, ""
            if changed:
                self._material = material
        if changed:
            log.info("the certificate %s was renewed and is in use from now on", self.files.certificate)
        return changed

    def _complain(self, problem: str) -> None:
        if problem != self._complaint:
            log.warning("the former certificate stays in use, for %s", problem)
        self._complaint = problem


def _marks(files: TlsFiles) -> tuple[object, ...]:
    """Something that differs whenever a file has changed."""
    marks: list[object] = []
    for field in fields(files):
        with contextlib.suppress(OSError):
            status = getattr(files, field.name).stat()
            marks.append(
                (field.name, status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode, status.st_uid)
            )
    return tuple(marks)


def _read_all(files: TlsFiles) -> TlsMaterial:
    return TlsMaterial(
        _read("tls_cert", files.certificate), _read("tls_key", files.key), _read("tls_ca", files.authority)
    )


def _read(setting: str, path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as failure:
        raise InvalidValueError(
            f"{setting} is {path}, which cannot be read: {failure.strerror}; name a PEM file that can be"
        ) from failure


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Loads certificate and key, and says what is wrong with them in a sentence."""
    try:
        # Without a password OpenSSL would ask for one on the terminal, and wait.
        context.load_cert_chain(files.certificate, files.key, password=b"")
    except ssl.SSLError as failure:
        if failure.reason == "KEY_VALUES_MISMATCH":
            problem = (
                f"{files.key} is not the key of the certificate {files.certificate}; name two that belong together"
            )
        else:
            problem = f"{files.certificate} and {files.key} are no certificate and its unencrypted key in PEM"
        raise InvalidValueError(problem) from failure
    except OSError as failure:
        raise InvalidValueError(
            f"{files.certificate} or {files.key} cannot be read: {failure.strerror}"
        ) from failure


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as failure:  # an SSLError is one
        raise InvalidValueError(f"tls_ca is {path}, which holds no certificate of an authority in PEM") from failure


def _shown_to(files: TlsFiles, authority: Path, *, partial: bool) -> dict[str, Any]:
    """The own certificate as a server sees it that trusts `authority`, by a handshake within this process.

    This is Python's only public way to decode a certificate, and to have it checked. The time is left out of it.

    Raises:
        InvalidValueError: the authority has not issued it; or the files are not what they should be.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        _load_pair(context, files)
    _load_authority(server, authority)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VerifyFlags(_IGNORE_TIME)
    if partial:
        server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
    try:
        for _ in range(3):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        return dict(ends[1].getpeercert() or {})
    except ssl.SSLError as failure:
        raise InvalidValueError(f"{files.certificate} was not issued by {authority}") from failure


def _be(named: list[str]) -> str:
    return "is" if len(named) == 1 else "are"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
