"""A cluster's DNS: NAME.NAMESPACE.svc.cluster.local has the addresses of the ready endpoints of that Service.

Usage: python dns.py LISTEN APISERVER TOKEN
"""

import contextlib
import json
import socket
import ssl
import struct
import sys
import time
import urllib.request

_SECONDS = 1.0
"""For how long an answer of the API server is kept."""
_NO_SUCH_NAME, _A = 3, 1


class Endpoints:
    """What the API server knows of Services."""

    def __init__(self, server: str, token: str) -> None:
        self._server, self._headers = server, {"Authorization": f"Bearer {token}"}
        self._trust = ssl._create_unverified_context()
        self._kept: dict[str, tuple[float, list[str] | None]] = {}

    def of(self, name: str) -> list[str] | None:
        """The addresses of a name; None if it is not one of a Service."""
        until, found = self._kept.get(name, (0.0, None))
        if time.monotonic() >= until:
            found = self._asked(name.split("."))
            self._kept[name] = (time.monotonic() + _SECONDS, found)
        return found

    def _asked(self, labels: list[str]) -> list[str] | None:
        if len(labels) != 5 or labels[2:] != ["svc", "cluster", "local"]:
            return None
        address = f"{self._server}/api/v1/namespaces/{labels[1]}/endpoints/{labels[0]}"
        request = urllib.request.Request(address, headers=self._headers)
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(request, context=self._trust, timeout=2) as answer,
        ):
            subsets = json.load(answer).get("subsets") or []
            return [each["ip"] for subset in subsets for each in subset.get("addresses") or []]
        return None


def answered(query: bytes, endpoints: Endpoints) -> bytes:
    """The answer to a query with one question (RFC 1035, section 4.1)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    addresses = endpoints.of(".".join(labels).lower())
    found = addresses if addresses and kind == _A else []
    flags = 0x8580 | (0 if addresses is not None else _NO_SUCH_NAME)
    header = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
    records = [b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 1, 4) + socket.inet_aton(each) for each in found]
    return header + query[12 : at + 5] + b"".join(records)


def main(listen: str, server: str, token: str) -> None:
    """Answers until it is killed."""
    endpoints = Endpoints(server, token)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((listen, 53))
        while True:
            query, peer = listener.recvfrom(512)
            with contextlib.suppress(IndexError, struct.error, UnicodeDecodeError):
                listener.sendto(answered(query, endpoints), peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
