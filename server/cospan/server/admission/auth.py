"""Who a peer is, and how a coordinator proves who it is itself: certificates on their way in and out of gRPC."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import grpc

from cospan.wire.security.certificate import uris_of_pem
from cospan.wire.security.identity import Identity, of_certificate, without_certificate
from cospan.wire.security.tls import TlsMaterial, TlsSource


@runtime_checkable
class Call(Protocol):
    """What a call's context knows of the peer; gRPC's own context class is none that can be named."""

    def peer(self) -> str | None:
        """Its address."""
        ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the handshake has verified."""
        ...


def peer_identity(context: Call) -> Identity:
    """Who calls: the names in its certificate, which the handshake has verified; without TLS its address.

    `Identity.key` is what limits count by.

    Raises:
        IdentityMismatchError: the certificate, or a URI in it, is malformed.
    """
    facts = context.auth_context()
    address = context.peer() or ""
    if list(facts.get("transport_security_type", ())) == [b"ssl"]:
        # Not what gRPC makes of the names: there a host name could pass for a URI, and a NUL byte for an end.
        return of_certificate(uris_of_pem(b"".join(facts.get("x509_pem_cert", ()))), address=address)
    return without_certificate(address=address)


def server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """Mutual TLS that shows the newest certificate at every handshake; a client must show one as well."""
    shown = source.material

    def newest() -> Any:
        """What is new since the last handshake, None for nothing; called by gRPC's threads, one at a time."""
        nonlocal shown
        source.refresh()
        if source.material is shown:
            return None
        shown = source.material
        return _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(_configuration(shown), newest, require_client_authentication=True)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.authority
    )
