"""Channels to the coordinator, with or without TLS, and the diagnosis of failed connections.

A gRPC server that does not accept a client's certificate closes the connection without an alert, and with TLS 1.3
it does so after the handshake; all that the client sees is UNAVAILABLE. So after a failure `explain` connects once
more with Python's `ssl`: can the server's certificate be verified, does the server accept the client's, and if not,
why?
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
import grpc.aio

from cospan.client.session.proxy import proxy_of
from cospan.wire import fork_guard
from cospan.wire.address import parse_address
from cospan.wire.errors import (
    CertificateExpiredError,
    CertificateRefusedError,
    CertificateRequiredError,
    CoordinatorUnavailableError,
    CoordinatorUntrustedError,
    CospanError,
    InvalidValueError,
)
from cospan.wire.limits import NO_COMPRESSION
from cospan.wire.security.tls import TlsFiles, TlsSource, certificate_facts, is_issued_by_own_authority

_LOOK_SECONDS = 3.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What an HTTP/2 client sends first; a server that accepts the client answers with its settings."""
_WRONG_HOST = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_WRONG_TIME = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def open_channel(
    address: str, options: Sequence[tuple[str, int]], tls: TlsSource | None, *, proxied: bool = False
) -> grpc.aio.Channel:
    """A channel to the coordinator; with TLS it shows the certificate that is on disk now.

    With TLS the coordinator's certificate must be for the host of the address. gRPC may use a proxy that the
    environment names only where it is `proxied` (`cospan.client.session.proxy`).

    Raises:
        ForkedProcessError: this process was forked from one in which Cospan ran.
    """
    options = [*options, *(() if proxied else (("grpc.enable_http_proxy", 0),))]
    fork_guard.refuse_in_child()
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, compression=NO_COMPRESSION)
    tls.refresh()
    material = tls.material
    credentials = grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options, compression=NO_COMPRESSION)


async def explain(failure: CospanError, address: str, tls: TlsFiles | None) -> None:
    """Raises the reason of a failed connection where it is a certificate, or maybe a proxy; else returns.

    It takes some seconds at most. It does not return the reason: an error that is raised from itself, or that a
    frame of its own traceback names, is a cycle, and holds the connection until the garbage collector runs.
    """
    if isinstance(failure, CoordinatorUnavailableError):
        proxy = await proxy_of(address)
        if proxy is None or not proxy.is_read:  # a second look would not go through the proxy
            with contextlib.suppress(InvalidValueError):  # files that are just being written
                await asyncio.to_thread(_look_again, address, tls)
        if proxy is not None:
            raise CoordinatorUnavailableError(f"{failure}. {proxy.sentence(address)}")


class _Sight(Enum):
    """What the second connection has shown."""

    NOTHING = "no server, or no conclusion"
    PLAIN = "a server without TLS"
    TRUSTED = "the coordinator, which accepts the client"
    CLOSED = "the coordinator, which rejects the client's certificate, or its absence"


@dataclass(frozen=True, slots=True)
class _Distrust:
    """The other side's certificate cannot be verified."""

    verify_code: int
    message: str


def _look_again(address: str, tls: TlsFiles | None) -> None:
    """Raises CertificateError where one end does not trust the other."""
    sight = _probe(address, tls)
    if isinstance(sight, _Distrust):
        raise CoordinatorUntrustedError(_distrust(sight, address, tls))
    if tls is None:
        if sight in (_Sight.TRUSTED, _Sight.CLOSED):
            raise CertificateRequiredError(
                f"the coordinator at {address} asks for a client certificate, and none is named; "
                "say --tls-cert, --tls-key and --tls-ca"
            )
    elif sight is _Sight.PLAIN:
        raise CoordinatorUntrustedError(
            f"the server at {address} does not use TLS, so it cannot prove that it is the coordinator; "
            "check the address, or leave out the certificates"
        )
    elif sight is _Sight.CLOSED:
        raise _refusal(address, tls)


def _refusal(address: str, tls: TlsFiles) -> CospanError:
    """Why a coordinator that we trust does not take our certificate."""
    facts = certificate_facts(tls)
    problem = facts.time_problem(time.time())
    if problem is not None:
        return CertificateExpiredError(f"the certificate {tls.certificate} {problem}; renew it")
    if not is_issued_by_own_authority(tls):
        return CertificateRefusedError(
            f"the coordinator at {address} does not accept the certificate {tls.certificate}: {facts.issuer!r} has "
            f"issued it, and not the authority in {tls.authority}; use one that the fleet's authority has issued"
        )
    return CertificateRefusedError(
        f"the coordinator at {address} does not accept the certificate {tls.certificate} of {facts.issuer!r}; "
        "compare the coordinator's tls_ca with that authority, and its clock with this one"
    )


def _distrust(sight: _Distrust, address: str, tls: TlsFiles | None) -> str:
    if sight.verify_code in _WRONG_HOST:
        host = parse_address(address, "coordinator").host
        return f"the certificate shown at {address} is not for {host}; use an address that stands in it"
    if sight.verify_code in _WRONG_TIME:
        return f"the certificate shown at {address} is not valid now ({sight.message}); renew it, or set this clock"
    authority = "the authority" if tls is None else f"the authority in {tls.authority}"
    return f"the certificate shown at {address} is not of {authority} ({sight.message}); is that the coordinator?"


def _probe(address: str, tls: TlsFiles | None) -> _Sight | _Distrust:
    """Connects once more and watches; at most some seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if tls is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(tls.authority)
        with contextlib.suppress(OSError):  # a pair that is just being written; then we look without
            context.load_cert_chain(tls.certificate, tls.key, password=b"")
    where = parse_address(address, "coordinator")
    if where.is_unix:
        return _Sight.NOTHING
    try:
        with socket.create_connection((where.host, where.port), _LOOK_SECONDS) as raw:
            return _greet(context, raw, where.host)
    except OSError:
        return _Sight.NOTHING


def _greet(context: ssl.SSLContext, raw: socket.socket, host: str) -> _Sight | _Distrust:
    try:
        secured = context.wrap_socket(raw, server_hostname=host)
    except ssl.SSLCertVerificationError as failure:
        return _Distrust(failure.verify_code, failure.verify_message)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return _Sight.NOTHING  # as of a proxy whose other side is down
    except ssl.SSLError:
        return _Sight.PLAIN
    with secured:
        try:
            secured.sendall(_HTTP2_PREFACE)
            return _Sight.TRUSTED if secured.recv(1) else _Sight.CLOSED
        except TimeoutError:
            return _Sight.NOTHING
        except OSError:  # an alert, a reset: with TLS 1.3 a refusal comes after the handshake
            return _Sight.CLOSED
