"""Checks of `cospan doctor` between this machine and a coordinator: certificates, protocol, clocks."""

import math
import time
from collections.abc import Sequence

from cospan.cli.diagnostics.findings import Finding, bad, good, note, of_failure
from cospan.cli.processes.admin_client import fetch_specification
from cospan.client.session.proxy import named, proxy_of
from cospan.wire.address import parse_address
from cospan.wire.codec.specification import decode_specification
from cospan.wire.errors import CospanError, RemoteError
from cospan.wire.security.tls import (
    CertificateFacts,
    TlsFiles,
    certificate_facts,
    is_issued_by_own_authority,
    read_tls,
)
from cospan.wire.text import split_remedy

_ANSWER_SECONDS = 5.0
_SOON_SECONDS = 7 * 86400.0
_APART_SECONDS = 5.0


def of_tls(files: TlsFiles | None, coordinator: str | None) -> Sequence[Finding]:
    """The own certificate: readable, a pair with its key, valid now and for a while, of the own authority.

    Raises:
        InvalidValueError: the files cannot be used; the text says what to do.
    """
    if files is None:
        if coordinator is not None and not parse_address(coordinator, "coordinator").is_local:
            remedy = "give --tls-cert, --tls-key and --tls-ca; see docs/security.md"
            return [note("certificate", "none, and the coordinator is on another machine", remedy)]
        return [good("certificate", "none is named: no TLS")]
    read_tls(files)
    facts = certificate_facts(files)
    names = ", ".join((*facts.uris, *facts.hosts)) or "no name"
    found = [_validity(files, facts)]
    ours = [uri for uri in facts.uris if uri.startswith("cospan:")]
    if not ours:
        remedy = "issue one for an agent or coordinator: cospan certs issue CERTS --agent ID"
        found.append(bad("names", f"{names}: nothing that Cospan knows", remedy))
    else:
        found.append(good("names", names))
    if not is_issued_by_own_authority(files):
        remedy = "let both ends have certificates of one authority, or see that the other end trusts this one's"
        found.append(note("authority", f"{facts.issuer!r} has issued it, and not {files.authority}", remedy))
    return found


def _validity(files: TlsFiles, facts: CertificateFacts) -> Finding:
    now = time.time()
    problem = facts.time_problem(now)
    if problem is not None:
        return bad(
            "certificate", f"{files.certificate} {problem}", "cospan certs renew CERTS NAME; or set the clock"
        )
    days = (facts.not_after - now) / 86400.0
    if facts.not_after - now < _SOON_SECONDS:
        remedy = "cospan certs renew CERTS NAME; running processes take it up"
        return note("certificate", f"{files.certificate} is valid for {days:.1f} days more", remedy)
    return good("certificate", f"{files.certificate} and its key belong together; valid for {days:.0f} days more")


async def of_proxy(address: str) -> Sequence[Finding]:
    """Whether the environment names a proxy, and whether it is used for the coordinator."""
    proxy = named()
    if proxy is None:
        return []
    if await proxy_of(address) is None:
        return [good("proxy", f"{proxy.variable} is {proxy.value}; {address} is reached without it")]
    return [note("proxy", *split_remedy(proxy.sentence(address)))]


async def of_coordinator(
    address: str, tls: TlsFiles | None, *, seconds: float = _ANSWER_SECONDS
) -> Sequence[Finding]:
    """Whether a coordinator answers there within some seconds, and speaks our protocol."""
    begun, asked = time.monotonic(), time.time()
    try:
        response = await fetch_specification(address, tls, seconds=seconds)
    except RemoteError as failure:
        return [bad("coordinator", f"{address} refuses: {failure}", failure.remedy)]
    except CospanError as failure:
        return [of_failure("coordinator", failure)]
    took = time.monotonic() - begun
    try:
        spec = decode_specification(response.specification)
    except CospanError as failure:
        remedy = "use the same version of Cospan on both sides"
        return [bad("protocol", f"what {address} says of its run cannot be read: {failure}", remedy)]
    what = f"{spec.workload or 'a run'}, d = {spec.feature_dim}, r = {spec.rank}, round {response.stamp.round}"
    return [
        good("coordinator", f"{address} answers in {1000.0 * took:.0f} ms: {what}"),
        good("protocol", "cospan.rpc.v1 fits"),
        of_clock(response.unix_seconds, asked, took),
    ]


def of_clock(theirs: float, asked: float, took: float) -> Finding:
    """How far the coordinator's clock is from this one.

    Args:
        theirs: what it said, in seconds since 1970; 0 if it did not say.
        asked: when it was asked, by this clock.
        took: how many seconds later the answer was here.
    """
    if not math.isfinite(theirs) or theirs < 0.0:
        return bad("clock", f"the coordinator says that it is {theirs} s after 1970", "ask who runs it")
    if theirs == 0.0:
        return note(
            "clock", "the coordinator does not report its time", "use the same version of Cospan on both sides"
        )
    # It read its clock at some time between the question and the answer.
    apart = theirs - asked - took / 2.0
    if abs(apart) <= _APART_SECONDS + took / 2.0:
        return good("clock", f"the coordinator's is within {abs(apart) + took / 2.0:.1f} s of this one")
    direction = "ahead of" if apart > 0.0 else "behind"
    remedy = "set both by NTP: certificates are valid from one time to another, and logs are compared by theirs"
    return note("clock", f"the coordinator's is {abs(apart):.0f} s {direction} this one", remedy)
