"""`cospan certs`: a development certificate authority, and certificates for the ends of a fleet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cospan.cli.output.table import table
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.security.identity import ADMIN, COORDINATOR, OBSERVER, agent_uri, agents_uri, relay_uri

if TYPE_CHECKING:
    from types import ModuleType

    from cospan.wire.security.authority import Certificate

_ALWAYS = ("localhost", "127.0.0.1", "::1")
"""Further hosts of a coordinator's certificate, for its health check and for tunnels."""


@dataclass(frozen=True, slots=True)
class IssueOptions:
    """Subjects of a certificate."""

    agents_one_by_one: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()
    coordinator: str | None = None
    admin: bool = False
    observer: bool = False
    name: str | None = None
    days: float | None = None


def initialise(folder: Path, *, name: str, days: float | None) -> int:
    """Makes an authority; the exit code."""
    authority = _authority()
    path = authority.make_authority(folder, name=name, days=_days(days, authority.CA_DAYS))
    print(f"{path} is the authority {name!r}; its key {folder / 'ca.key'} stays here, readable by you alone")
    return 0


def issue(folder: Path, chosen: IssueOptions) -> int:
    """Issues one certificate; the exit code."""
    authority = _authority()
    uris, hosts, name = _names(chosen)
    days = _days(chosen.days, authority.LEAF_DAYS)
    path = authority.issue(folder, chosen.name or name, uris=uris, hosts=hosts, days=days)
    print(
        f"{path.parent} is for {', '.join((*uris, *hosts))}, valid for {days:g} days: cert.pem, key.pem and ca.pem"
    )
    return 0


def renew(folder: Path, names: tuple[str, ...], *, every: bool, days: float | None) -> int:
    """Issues certificates again; the exit code."""
    if bool(names) == every:
        raise InvalidValueError("say which certificates to renew by their folders' names, or --all")
    authority = _authority()
    chosen = authority.issued_names(folder) if every else names
    if not chosen:
        raise RunFileError(f"{folder} holds no certificate to renew")
    for name in chosen:
        path = authority.renew(folder, name, days=None if days is None else _days(days, days))
        until = authority.read_certificate(path).not_after
        print(f"{path.parent} is renewed until {until:%Y-%m-%d}; running processes reload it within seconds")
    return 0


def show(paths: tuple[Path, ...], *, as_json: bool) -> int:
    """Prints certificates of PEM files or folders; the exit code."""
    authority = _authority()
    found = [authority.read_certificate(path) for given in paths for path in _files(given)]
    if as_json:
        print(json.dumps([_document(certificate) for certificate in found], indent=2, ensure_ascii=False))
        return 0
    rows = [_row(certificate) for certificate in found]
    print("\n".join(table(("file", "for", "until", "days left", "SHA-256"), rows)))
    return 0


def _authority() -> "ModuleType":
    """The module that needs `cryptography`.

    Raises:
        InvalidValueError: it is not installed.
    """
    try:
        from cospan.wire.security import authority
    except ImportError as failure:
        raise InvalidValueError("`cospan certs` needs cryptography; pip install '.[tls]'") from failure
    return authority


def _names(chosen: IssueOptions) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """URIs, hosts, and the name of the folder.

    Raises:
        InvalidValueError: there is no subject, or an invalid one.
    """
    uris = [*map(agent_uri, chosen.agents_one_by_one), *map(agents_uri, chosen.agents)]
    uris += map(relay_uri, chosen.relay)
    uris += [uri for uri, said in ((ADMIN, chosen.admin), (OBSERVER, chosen.observer)) if said]
    hosts: list[str] = []
    if chosen.coordinator is not None:
        uris.append(COORDINATOR)
        said = [host.strip() for host in chosen.coordinator.split(",") if host.strip()]
        if not said:
            raise InvalidValueError(
                "--coordinator names the hosts that agents connect to, as in coordinator,10.0.0.7"
            )
        hosts = list(dict.fromkeys((*said, *_ALWAYS)))
    if not uris:
        raise InvalidValueError(
            "say whom the certificate is for: --agent ID, --agents FIRST..LAST, --relay FIRST..LAST, "
            "--coordinator HOSTS, --admin or --observer"
        )
    name = uris[-1].removeprefix("cospan:").rpartition(":")[2].replace("*", "fleet")
    name = f"relay-{name}" if chosen.relay and uris[-1] == relay_uri(chosen.relay[-1]) else name
    _check_name(chosen.name or name)
    return tuple(uris), tuple(hosts), name


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name or name in ("ca.pem", "ca.key"):
        raise InvalidValueError(
            f"name is {name!r}; it must be a folder's name, without / and not beginning with '.'"
        )


def _days(said: float | None, otherwise: float) -> float:
    days = otherwise if said is None else said
    if not 0 < days <= 36500:
        raise InvalidValueError(f"days is {days:g}; it must be a number above 0, at most 36500")
    return days


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [
        file for file in (path / "ca.pem", path / "cert.pem", *sorted(path.glob("*/cert.pem"))) if file.is_file()
    ]
    if (path / "cert.pem") in found:  # the folder of a certificate holds a copy of its authority's
        found.remove(path / "ca.pem")
    if not found:
        raise RunFileError(f"{path} holds no certificate; name a PEM file, or a folder of `cospan certs`")
    return found


def _row(certificate: "Certificate") -> tuple[str, ...]:
    whom = ", ".join(certificate.names) or "no name"
    return (
        str(certificate.path),
        f"authority {certificate.issuer!r}" if certificate.is_authority else whom,
        f"{certificate.not_after:%Y-%m-%d %H:%M}",
        "expired" if certificate.days_left < 0 else f"{certificate.days_left:.0f}",
        certificate.fingerprint[:16],
    )


def _document(certificate: "Certificate") -> dict[str, object]:
    return {
        "path": str(certificate.path),
        "authority": certificate.is_authority,
        "names": list(certificate.names),
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "days_left": round(certificate.days_left, 3),
        "sha256": certificate.fingerprint,
    }
