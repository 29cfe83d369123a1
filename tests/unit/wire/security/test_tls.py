"""The three files of TLS: what is wrong with them in one sentence, and their renewal."""

import logging
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cospan.wire.errors import InvalidValueError
from cospan.wire.security import authority
from cospan.wire.security.tls import (
    TlsFiles,
    TlsSource,
    certificate_facts,
    is_issued_by_own_authority,
    read_tls,
    tls_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority.make_authority(tmp_path, name="the fleet's", days=2)
    return tmp_path


def issued(folder: Path, name: str = "site-7", *, days: float = 1.0, hosts: tuple[str, ...] = ()) -> TlsFiles:
    authority.issue(folder, name, uris=[f"cospan:agent:{name}"], hosts=hosts, days=days)
    return TlsFiles(*(folder / name / file for file in ("cert.pem", "key.pem", "ca.pem")))


# Reading --------------------------------------------------------------------------------------------------------


def test_the_files_are_said_together_or_not_at_all() -> None:
    assert tls_files(None, None, None) is None
    assert tls_files("", None, "") is None
    assert tls_files("c", "k", "a") == TlsFiles(Path("c"), Path("k"), Path("a"))
    with pytest.raises(
        InvalidValueError, match=r"^tls_cert is said and tls_key and tls_ca are not; TLS needs all three"
    ):
        tls_files("c", None, None)
    with pytest.raises(InvalidValueError, match=r"^tls_cert and tls_ca are said and tls_key is not"):
        tls_files("c", "", "a")


def test_what_is_read_stays_out_of_logs(folder: Path) -> None:
    material = read_tls(issued(folder))
    assert b"PRIVATE KEY" in material.key
    assert "PRIVATE" not in repr(material)


@pytest.mark.parametrize(
    ("setting", "file"), [("tls_cert", "cert.pem"), ("tls_key", "key.pem"), ("tls_ca", "ca.pem")]
)
def test_a_missing_file_is_named_with_its_setting(folder: Path, setting: str, file: str) -> None:
    files = issued(folder)
    (folder / "site-7" / file).unlink()
    with pytest.raises(InvalidValueError, match=f"{setting} is .*{file}, which cannot be read: No such file"):
        read_tls(files)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    mixed = TlsFiles(issued(folder).certificate, issued(folder, "site-8").key, folder / "ca.pem")
    with pytest.raises(
        InvalidValueError, match=r"site-8/key.pem is not the key of the certificate .*site-7/cert.pem"
    ):
        read_tls(mixed)


@pytest.mark.parametrize("file", ["cert.pem", "key.pem"])
def test_what_is_no_pem_is_refused(folder: Path, file: str) -> None:
    files = issued(folder)
    (folder / "site-7" / file).write_bytes(b"hello")
    with pytest.raises(InvalidValueError, match="are no certificate and its unencrypted key in PEM"):
        read_tls(files)


def test_an_authority_that_is_none_is_refused(folder: Path) -> None:
    files = issued(folder)
    files.authority.write_bytes(b"hello")
    with pytest.raises(InvalidValueError, match="which holds no certificate of an authority in PEM"):
        read_tls(files)


def test_an_encrypted_key_asks_nobody_for_a_password(folder: Path) -> None:
    files = issued(folder)
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    encryption = BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(InvalidValueError, match="unencrypted key"):
        read_tls(files)


# Facts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [1.0, -0.001])
def test_the_facts_of_a_certificate_are_known_whether_it_is_valid_or_not(folder: Path, days: float) -> None:
    files = issued(folder, days=days, hosts=("example.org", "10.0.0.7"))
    facts, known = certificate_facts(files), authority.read_certificate(files.certificate)
    assert facts.serial.lstrip("0") == known.serial
    assert facts.issuer == known.issuer == "the fleet's"
    assert facts.uris == ("cospan:agent:site-7",)
    assert facts.hosts == ("example.org", "10.0.0.7")
    assert facts.not_before == known.not_before.timestamp()
    assert facts.not_after == known.not_after.timestamp()


def test_a_certificate_is_valid_between_its_times(folder: Path) -> None:
    facts = certificate_facts(issued(folder))
    assert facts.time_problem(facts.not_before) is None
    assert facts.time_problem(facts.not_after) is None
    assert str(facts.time_problem(facts.not_after + 1)).startswith("expired on 20")
    assert str(facts.time_problem(facts.not_before - 1)).endswith("is the clock right?")


def test_who_has_issued_a_certificate_is_checked_by_its_signature(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another authority of the same name is another one; an expired certificate is still one of its authority."""
    files = issued(folder)
    other = tmp_path_factory.mktemp("other")
    authority.make_authority(other, name="the fleet's", days=2)
    assert is_issued_by_own_authority(files)
    assert is_issued_by_own_authority(issued(folder, "old", days=-0.001))
    assert not is_issued_by_own_authority(TlsFiles(files.certificate, files.key, other / "ca.pem"))


# Renewal --------------------------------------------------------------------------------------------------------


def test_a_renewal_is_noticed_once(folder: Path) -> None:
    source = TlsSource(issued(folder))
    former = source.material
    assert not source.refresh()
    authority.renew(folder, "site-7")
    assert source.refresh()
    assert source.material != former
    assert source.material == read_tls(source.files)
    assert not source.refresh()


def test_the_same_content_written_again_is_no_renewal(folder: Path) -> None:
    source = TlsSource(issued(folder))
    former = source.material
    source.files.certificate.write_bytes(former.certificate)
    os.utime(source.files.certificate, ns=(1, 1))
    assert not source.refresh()
    assert source.material is former


@pytest.mark.parametrize("first", ["cert.pem", "key.pem"])
def test_half_a_renewal_leaves_the_former_pair_in_use(
    folder: Path, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    source = TlsSource(issued(folder))
    former = source.material
    own = folder / "site-7"
    authority.issue(folder, "next", uris=["cospan:agent:site-7"])
    second = {"cert.pem": "key.pem", "key.pem": "cert.pem"}[first]
    (own / first).write_bytes((folder / "next" / first).read_bytes())
    with caplog.at_level(logging.WARNING):
        assert not source.refresh()
        assert not source.refresh()
        assert source.material is former
    assert len(caplog.records) == 1, "it is said once"
    assert "the former certificate stays in use, for" in caplog.text
    (own / second).write_bytes((folder / "next" / second).read_bytes())
    assert source.refresh()
    assert source.material.certificate == (folder / "next" / "cert.pem").read_bytes()


def test_files_that_vanish_leave_the_former_pair_in_use(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = TlsSource(issued(folder))
    former = source.material
    source.files.key.unlink()
    assert not source.refresh()
    assert source.material is former
    assert "cannot be read" in caplog.text
