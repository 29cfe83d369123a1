"""Authentication of gRPC peers by their certificates, and the coordinator's own TLS credentials."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import grpc

from cospan.wire.security.certificate import uris_of_pem
from cospan.wire.security.identity import Identity, of_certificate, without_certificate
from cospan.wire.security.tls import TlsMaterial, TlsSource


@runtime_checkable
class Call(Protocol):
    """The methods of a call's context that identify the peer; gRPC's own context class is private."""

    def peer(self) -> str | None:
        """Its address."""
        ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Properties that the TLS handshake has verified."""
        ...


def peer_identity(context: Call) -> Identity:
    """The identity in the peer's verified certificate, or without TLS its address; limits count by `Identity.key`.

    Raises:
        IdentityMismatchError: the certificate, or a URI in it, is malformed.
    """
    facts = context.auth_context()
    address = context.peer() or ""
    if list(facts.get("transport_security_type", ())) == [b"ssl"]:
        # gRPC's own parsing would let a DNS name pass for a URI, and end a name at a NUL byte.
        return of_certificate(uris_of_pem(b"".join(facts.get("x509_pem_cert", ()))), address=address)
    return without_certificate(address=address)


def server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """Credentials for mutual TLS; every handshake uses the newest certificate on disk."""
    current = source.material

    def renewed() -> Any:
        """The configuration if it has changed since the last handshake, else None; gRPC serialises the calls."""
        nonlocal current
        source.refresh()
        if source.material is current:
            return None
        current = source.material
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(_configuration(current), renewed, require_client_authentication=True)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.authority
    )
