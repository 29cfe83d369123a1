"""`cospan certs`: what it makes, what it refuses, and what it says of certificates."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cospan.cli import main as entry

HOUR = 3600.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the command sets what its children inherit
    return tmp_path / "certs"


@pytest.fixture
def authority(folder: Path) -> Path:
    certs("init", "certs")
    return folder


def certs(*arguments: str) -> None:
    """A command that succeeds."""
    assert code_of(*arguments) == 0


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        entry.main(["certs", *arguments])
    return end.value.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Exit code and sentence of a command that fails."""
    capsys.readouterr()
    code = code_of(*arguments)
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("cospan: ")
    assert err.count("\n") == 1
    return code, err


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(path: Path, kind: type[Any]) -> Any:
    return certificate(path).extensions.get_extension_for_class(kind)


def names(path: Path) -> list[str]:
    return [str(name.value) for name in extension(path, x509.SubjectAlternativeName).value]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# init -----------------------------------------------------------------------------------------------------------


def test_an_authority_can_issue_and_nothing_else(authority: Path) -> None:
    path = authority / "ca.pem"
    constraints, usage = extension(path, x509.BasicConstraints), extension(path, x509.KeyUsage)
    assert constraints.critical
    assert usage.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    assert certificate(path).public_key().curve.name == "secp256r1"  # type: ignore[union-attr]
    lifetime = certificate(path).not_valid_after_utc - certificate(path).not_valid_before_utc
    assert lifetime.days == 3650


def test_keys_are_for_their_owner_alone(authority: Path) -> None:
    certs("issue", "certs", "--agent", "site-7")
    assert {path.name: mode(path) for path in (authority / "ca.key", authority / "site-7" / "key.pem")} == {
        "ca.key": 0o600,
        "key.pem": 0o600,
    }
    assert mode(authority / "site-7" / "cert.pem") == 0o644
    assert not list(authority.rglob(".*")), "no temporary file is left"


@pytest.mark.parametrize("gone", ["ca.pem", "ca.key"])
def test_an_authority_is_never_overwritten(authority: Path, capsys: pytest.CaptureFixture[str], gone: str) -> None:
    (authority / gone).unlink()
    before = snapshot(authority)
    code, err = refused(capsys, "init", "certs")
    assert code == 1
    assert "is there already; choose another folder" in err
    assert snapshot(authority) == before


# issue ----------------------------------------------------------------------------------------------------------

LEAVES = {
    "agent": (("--agent", "site-7"), "site-7", ["cospan:agent:site-7"]),
    "group": (("--agents", "site-0..99"), "site-0..99", ["cospan:agents:site-0..99"]),
    "relay": (("--relay", "site-0..99"), "relay-site-0..99", ["cospan:relay:site-0..99"]),
    "relay of all": (("--relay", "*", "--admin"), "admin", ["cospan:relay:*", "cospan:admin"]),
    "fleet": (("--agents", "*"), "fleet", ["cospan:agents:*"]),
    "admin": (("--admin",), "admin", ["cospan:admin"]),
    "observer": (("--observer",), "observer", ["cospan:observer"]),
    "several": (
        ("--agent", "a-1", "--agent", "a-2", "--admin", "--name", "mine"),
        "mine",
        ["cospan:agent:a-1", "cospan:agent:a-2", "cospan:admin"],
    ),
    "coordinator": (
        ("--coordinator", "fleet.example.org, 10.0.0.7,localhost"),
        "coordinator",
        ["cospan:coordinator", "fleet.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1"],
    ),
}


@pytest.mark.parametrize("kind", LEAVES)
def test_a_certificate_is_for_what_was_said(authority: Path, kind: str) -> None:
    arguments, name, said = LEAVES[kind]
    certs("issue", "certs", *arguments)
    path = authority / name / "cert.pem"
    assert names(path) == said
    assert sorted(file.name for file in path.parent.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert (path.parent / "ca.pem").read_bytes() == (authority / "ca.pem").read_bytes()
    constraints = extension(path, x509.BasicConstraints)
    assert (constraints.value.ca, constraints.critical) == (False, True)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    purposes += [ExtendedKeyUsageOID.SERVER_AUTH] if kind == "coordinator" else []
    assert list(extension(path, x509.ExtendedKeyUsage).value) == purposes, "an agent's is none for a server"
    certificate(path).verify_directly_issued_by(certificate(authority / "ca.pem"))
    lifetime = certificate(path).not_valid_after_utc - certificate(path).not_valid_before_utc
    assert lifetime.days == 90


def test_nothing_issued_is_overwritten(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certs("issue", "certs", "--agent", "site-7")
    before = snapshot(authority)
    code, err = refused(capsys, "issue", "certs", "--agent", "site-7")
    assert code == 1
    assert "site-7 is there already; renew it" in err
    assert snapshot(authority) == before


WRONG = {
    "no identity": ((), 2, "say whom the certificate is for"),
    "no id": (("--agent", "a b"), 2, "agent id 'a b' must be 1 to 64"),
    "no range": (("--agents", "site-9..1"), 2, "'site-9..1' is no range of agents"),
    "no host": (("--coordinator", ","), 2, "--coordinator names the hosts"),
    "odd host": (("--coordinator", "host:15051"), 2, "'host:15051' is neither a host name nor an address"),
    "non-ASCII host": (("--coordinator", "höst"), 2, "'höst' is neither a host name nor an address"),
    "no days": (("--admin", "--days", "0"), 2, "days is 0; it must be a number above 0"),
    "not a number of days": (("--admin", "--days", "nan"), 2, "days is nan; it must be"),
    "path": (("--admin", "--name", "../admin"), 2, "name is '../admin'; it must be a folder's name"),
    "hidden": (("--admin", "--name", ".."), 2, "name is '..'; it must be"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_issued_is_said(authority: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    arguments, code, text = WRONG[kind]
    before = snapshot(authority.parent)
    found, err = refused(capsys, "issue", "certs", *arguments)
    assert (found, text in err) == (code, True), err
    assert snapshot(authority.parent) == before


def test_without_an_authority_nothing_is_issued(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = refused(capsys, "issue", "elsewhere", "--admin")
    assert code == 1
    assert "elsewhere holds no authority; make one with `cospan certs init elsewhere`" in err


def test_an_authority_that_has_expired_issues_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cospan.wire.security.authority import make_authority

    make_authority(folder, name="old", days=-0.001)
    assert "ca.pem has expired; make a new one" in refused(capsys, "issue", "certs", "--admin")[1]


# renew ----------------------------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_for_the_same_with_a_new_key(authority: Path) -> None:
    certs("issue", "certs", "--coordinator", "host", "--days", "30")
    path = authority / "coordinator" / "cert.pem"
    former, key = certificate(path), (path.parent / "key.pem").read_bytes()
    certs("renew", "certs", "coordinator")
    renewed = certificate(path)
    assert renewed.serial_number != former.serial_number
    assert (path.parent / "key.pem").read_bytes() != key
    assert mode(path.parent / "key.pem") == 0o600
    assert renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName) == (
        former.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    )
    assert list(extension(path, x509.ExtendedKeyUsage).value)[1] == ExtendedKeyUsageOID.SERVER_AUTH
    lifetimes = [one.not_valid_after_utc - one.not_valid_before_utc for one in (former, renewed)]
    assert abs((lifetimes[1] - lifetimes[0]).total_seconds()) < 2
    certs("renew", "certs", "coordinator", "--days", "2")
    assert (certificate(path).not_valid_after_utc - certificate(path).not_valid_before_utc).days == 2


def test_all_can_be_renewed_at_once(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certs("issue", "certs", "--admin")
    certs("issue", "certs", "--agent", "a-1")
    before = {name: certificate(authority / name / "cert.pem").serial_number for name in ("a-1", "admin")}
    capsys.readouterr()
    certs("renew", "certs", "--all")
    assert [line.split(" is renewed")[0] for line in capsys.readouterr().out.splitlines()] == [
        "certs/a-1",
        "certs/admin",
    ]
    assert all(
        certificate(authority / name / "cert.pem").serial_number != serial for name, serial in before.items()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "say which certificates to renew"),
        (("admin", "--all"), 2, "say which certificates to renew"),
        (("--all",), 1, "certs holds no certificate to renew"),
        (("absent",), 1, "certs holds no certificate 'absent' to renew; `cospan certs show certs` says"),
    ],
)
@pytest.mark.usefixtures("authority")
def test_what_cannot_be_renewed_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, text: str
) -> None:
    found, err = refused(capsys, "renew", "certs", *arguments)
    assert (found, text in err) == (code, True), err


# show -----------------------------------------------------------------------------------------------------------


def test_certificates_are_shown_as_a_table_and_as_json(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certs("issue", "certs", "--agents", "site-0..99", "--days", "30")
    capsys.readouterr()
    certs("show", "certs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "for", "until", "days", "left", "SHA-256"]
    assert lines[1].startswith("certs/ca.pem")
    assert "authority 'Cospan development CA'" in lines[1]
    assert lines[2].startswith("certs/site-0..99/cert.pem  cospan:agents:site-0..99")
    certs("show", "certs/site-0..99", "--json")
    (shown,) = json.loads(capsys.readouterr().out)
    known = certificate(authority / "site-0..99" / "cert.pem")
    assert shown["path"] == "certs/site-0..99/cert.pem"
    assert (shown["names"], shown["issuer"]) == (["cospan:agents:site-0..99"], "Cospan development CA")
    assert shown["serial"] == f"{known.serial_number:x}"
    assert shown["not_after"] == known.not_valid_after_utc.isoformat()
    assert (shown["authority"], 29.9 < shown["days_left"] <= 30) == (False, True)
    assert len(shown["sha256"]) == 64
    assert "PRIVATE" not in str(shown)


def test_what_is_no_certificate_is_said(
    authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no certificate; name a PEM file" in refused(capsys, "show", "empty")[1]
    assert "certs/ca.key holds no certificate in PEM" in refused(capsys, "show", "certs/ca.key")[1]
    assert authority.is_dir()


# Without cryptography -------------------------------------------------------------------------------------------


def test_without_cryptography_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cospan.wire.security

    monkeypatch.delattr(cospan.wire.security, "authority", raising=False)
    monkeypatch.setitem(sys.modules, "cospan.wire.security.authority", None)
    code, err = refused(capsys, "init", "certs")
    assert code == 2
    assert err == "cospan: `cospan certs` needs cryptography; pip install '.[tls]'\n"
