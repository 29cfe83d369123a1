"""What `cospan doctor` finds about certificates and clocks."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.wire.security.test_tls import issued

from cospan.cli.diagnostics.findings import Finding, Grade
from cospan.cli.diagnostics.network import of_clock, of_tls
from cospan.wire.errors import InvalidValueError
from cospan.wire.security import authority
from cospan.wire.security.tls import TlsFiles


def grades(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.subject: finding.grade.value for finding in findings}


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    authority.make_authority(tmp_path, name="the fleet's", days=30)
    assert grades(of_tls(issued(tmp_path, days=20), None)) == {"certificate": "ok", "names": "ok"}
    assert grades(of_tls(issued(tmp_path, "site-8", days=1), None))["certificate"] == "note"
    expired = of_tls(issued(tmp_path, "site-9", days=-0.001), None)
    assert expired[0].grade is Grade.BAD
    assert "cospan certs renew" in expired[0].remedy
    one, other = issued(tmp_path, "site-1"), issued(tmp_path, "site-2")
    with pytest.raises(InvalidValueError, match="is not the key of the certificate"):
        of_tls(TlsFiles(one.certificate, other.key, one.authority), None)
    assert of_tls(None, "example.org:1")[0].grade is Grade.NOTE
    assert of_tls(None, "127.0.0.1:1")[0].grade is Grade.GOOD


def test_clocks_are_compared_within_what_an_answer_tells() -> None:
    assert of_clock(1000.0, 999.0, 2.0).grade is Grade.GOOD
    assert of_clock(1100.0, 999.0, 2.0).found == "the coordinator's is 100 s ahead of this one"
    assert of_clock(900.0, 999.0, 2.0).found == "the coordinator's is 100 s behind this one"
    assert of_clock(1012.0, 1000.0, 8.0).grade is Grade.GOOD, "it may have been read at any time of these 8 s"
    assert of_clock(0.0, 999.0, 2.0).grade is Grade.NOTE
