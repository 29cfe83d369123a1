"""Certificates of a fleet, and agents and channels that show them."""

import asyncio
from pathlib import Path
from typing import Any

from cryptography import x509
from runs import RINGS

from cospan.client.agent import Agent, AgentEnd
from cospan.wire.security import authority
from cospan.wire.security.identity import COORDINATOR
from cospan.wire.security.tls import TlsFiles

HOSTS = ("127.0.0.1",)


class Certificates:
    """A folder of `cospan certs`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.make_authority(folder, name=f"authority {folder.name}", days=2)

    def issue(self, name: str, *uris: str, hosts: tuple[str, ...] = (), days: float = 1.0) -> TlsFiles:
        authority.issue(self.folder, name, uris=uris, hosts=hosts, days=days)
        return self.files(name)

    def agent(self, index: int, **values: Any) -> TlsFiles:
        return self.issue(f"site-{index}", f"cospan:agent:site-{index}", **values)

    def coordinator(self, **values: Any) -> TlsFiles:
        return self.issue("coordinator", COORDINATOR, **{"hosts": HOSTS} | values)

    def files(self, name: str, trusting: Path | None = None) -> TlsFiles:
        folder = self.folder / name
        return TlsFiles(folder / "cert.pem", folder / "key.pem", (trusting or folder) / "ca.pem")

    def renew(self, name: str) -> str:
        """Issues it again; its new serial number."""
        return serial_of(authority.renew(self.folder, name).read_bytes())


def serial_of(pem: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"


def agents_of(certs: Certificates, count: int, address: str) -> list[Agent]:
    return [Agent(RINGS, index=index, coordinator=address, tls=certs.agent(index)) for index in range(count)]


async def ends(agents: list[Agent]) -> list[AgentEnd]:
    return await asyncio.gather(*(agent.run_async() for agent in agents))
