"""Who speaks for whom: the names in certificates, and what each allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cospan.server.admission.auth import peer_identity
from cospan.wire.errors import AdminRequiredError, IdentityMismatchError, InvalidValueError
from cospan.wire.security.identity import (
    ADMIN,
    ANY_AGENT,
    COORDINATOR,
    OBSERVER,
    Identity,
    Right,
    agent_uri,
    agents_uri,
    host_of,
    of_certificate,
    relay_uri,
    without_certificate,
)

HERE = "ipv4:127.0.0.1:4242"


def identity(*uris: str, address: str = HERE) -> Identity:
    return of_certificate(uris, address=address)


def test_an_agent_speaks_for_itself_alone() -> None:
    own = identity("cospan:agent:site-7")
    assert [
        name for name in ("site-7", "site-70", "site-07", "Site-7", "site-", "", "7") if own.speaks_for(name)
    ] == ["site-7"]


@pytest.mark.parametrize(
    ("agent", "inside"),
    [
        ("site-0", True),
        ("site-9", True),
        ("site-99", True),
        ("site-100", False),
        ("site-09", False),
        ("site-007", False),
        ("site-", False),
        ("site", False),
        ("other-5", False),
        ("xsite-5", False),
        ("site-5x", False),
        ("site--5", False),
        ("site-5\n", False),
        ("site-٣", False),
        ("site-99999999999999999999", False),
    ],
)
def test_a_range_holds_its_ends_and_what_is_between(agent: str, inside: bool) -> None:
    assert identity("cospan:agents:site-0..99").speaks_for(agent) is inside


@given(st.integers(0, 1200), st.integers(0, 1200), st.integers(0, 1200))
def test_a_range_holds_a_number_exactly_when_it_is_between(first: int, last: int, number: int) -> None:
    held = identity(f"cospan:agents:a.b-{first}..{last}").speaks_for(f"a.b-{number}")
    assert held is (first <= number <= last)


@pytest.mark.parametrize(
    "uri",
    [
        "cospan:agents:",
        "cospan:agents:site-",
        "cospan:agents:site-0..",
        "cospan:agents:site-5..3",
        "cospan:agents:site-00..9",
        "cospan:agents:**",
        "cospan:agents:site-*",
        "cospan:agent:",
        "cospan:administrator",
        "COSPAN:ADMIN",
        " cospan:admin",
        "https://example.org/cospan:admin",
        "spiffe://example.org/site-0",
        "cospan:",
    ],
)
def test_a_name_that_is_not_understood_allows_nothing(uri: str) -> None:
    stranger = identity(uri)
    assert not stranger.any_agent
    assert not stranger.rights
    for agent in ("site-0", "site-5", "*", "site-*"):
        assert not stranger.speaks_for(agent)


def test_names_add_up() -> None:
    many = identity("cospan:agent:a-1", "cospan:agents:b-1..3", OBSERVER, "https://example.org")
    many.require_agents(("a-1", "b-2"))
    many.require(Right.READ)
    with pytest.raises(IdentityMismatchError, match=r"does not speak for 'c-1', 'c-2', 'c-3' and 1 more; use"):
        many.require_agents(("a-1", "c-1", "c-2", "c-3", "c-4"))
    with pytest.raises(
        AdminRequiredError, match="needs a certificate for cospan:admin; this one is for cospan:agent"
    ):
        many.require(Right.STOP)


@pytest.mark.parametrize(
    ("uri", "rights"),
    [
        (ADMIN, {Right.READ, Right.STOP}),
        (OBSERVER, {Right.READ}),
        (COORDINATOR, set()),
        (ANY_AGENT, set()),
        ("cospan:agent:admin", set()),
    ],
)
def test_rights_follow_from_the_names(uri: str, rights: set[Right]) -> None:
    assert identity(uri).rights == rights
    for right in Right:
        if right not in rights:
            with pytest.raises(AdminRequiredError):
                identity(uri).require(right)


def test_a_free_site_is_for_a_certificate_of_the_whole_fleet() -> None:
    identity(ANY_AGENT).require_agents(())
    identity(ANY_AGENT).require_agents(("anything",))
    for uri in ("cospan:agent:site-0", "cospan:agents:site-0..9", ADMIN, COORDINATOR):
        with pytest.raises(IdentityMismatchError, match="say which agent it is with --id"):
            identity(uri).require_agents(())


def test_limits_count_by_certificate_and_by_host_where_many_share_one() -> None:
    far = "ipv4:10.0.0.9:1"
    assert identity("cospan:agent:a-1").key == identity("cospan:agent:a-1", address=far).key
    assert identity("cospan:agent:a-1").key != identity("cospan:agent:a-2").key
    assert identity(ANY_AGENT).key != identity(ANY_AGENT, address=far).key
    assert identity(ANY_AGENT).key == identity(ANY_AGENT, address="ipv4:127.0.0.1:9").key
    assert identity().key != identity(address=far).key
    assert identity().name == "a peer of another fleet"
    assert identity("cospan:agent:a-1").proven
    assert not any(one.proven for one in (identity(ANY_AGENT), identity(), without_certificate(address=far)))


@pytest.mark.parametrize(
    ("address", "host", "local"),
    [
        ("ipv4:127.0.0.1:4242", "127.0.0.1", True),
        ("ipv4:127.8.0.1:4242", "127.8.0.1", True),
        ("ipv6:%5B::1%5D:4242", "::1", True),
        ("ipv6:[::1]:4242", "::1", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:4242", "::ffff:127.0.0.1", True),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4242", "::ffff:10.0.0.7", False),
        ("unix:/run/cospan.sock", "this machine", True),
        ("ipv4:10.0.0.7:4242", "10.0.0.7", False),
        ("ipv6:%5B2001:db8::7%5D:4242", "2001:db8::7", False),
        ("", "an unknown address", False),
        ("nonsense", "nonsense", False),
    ],
)
def test_without_tls_only_this_machine_may_stop_a_run(address: str, host: str, local: bool) -> None:
    stranger = without_certificate(address=address)
    assert host_of(address) == host
    assert stranger.key == ("2001:db8::/64" if host == "2001:db8::7" else host)
    assert (Right.STOP in stranger.rights) is local
    assert Right.READ in stranger.rights
    stranger.require_agents(())
    stranger.require_agents(("site-0",))


@pytest.mark.parametrize("text", ["site-0..99", "*", "a..b-1..2", "7..9"])
def test_a_range_is_written_as_it_is_read(text: str) -> None:
    assert agents_uri(text) == f"cospan:agents:{text}"
    assert identity(agents_uri(text)).speaks_for(
        {"*": "x", "a..b-1..2": "a..b-2", "7..9": "8"}.get(text, "site-42")
    )


@pytest.mark.parametrize(
    "text", ["", "site", "site-9", "site-9..1", "site-01..9", ".a-1..2", "a b-1..2", "x" * 64 + "1..2"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        agents_uri(text)


@pytest.mark.parametrize(("text", "brought"), [("site-0..9", ("site-0", "site-9")), ("*", ("anything",))])
def test_a_relay_brings_agents_and_is_none_of_them(text: str, brought: tuple[str, ...]) -> None:
    relay = identity(relay_uri(text))
    relay.require_agents(brought, as_relay=True)
    assert not any(relay.speaks_for(agent) for agent in brought)
    with pytest.raises(IdentityMismatchError, match="does not speak for"):
        relay.require_agents(brought)
    with pytest.raises(IdentityMismatchError, match="may ask for a free site"):
        relay.require_agents((), as_relay=True)


def test_a_relay_brings_no_other_agents() -> None:
    with pytest.raises(IdentityMismatchError, match="does not speak for 'site-10'"):
        identity("cospan:relay:site-0..9", "cospan:relay:").require_agents(("site-1", "site-10"), as_relay=True)
    with pytest.raises(InvalidValueError, match="no range of agents"):
        relay_uri("site")


def test_an_agents_name_is_checked() -> None:
    assert agent_uri("site-7") == "cospan:agent:site-7"
    with pytest.raises(InvalidValueError, match="agent id 'a b' must be"):
        agent_uri("a b")


# From a call ----------------------------------------------------------------------------------------------------


class FakeCall:
    """A call's context, as far as anybody looks at it."""

    def __init__(self, **facts: list[bytes]) -> None:
        self._facts = facts

    def peer(self) -> str:
        return HERE

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._facts


def test_a_call_without_tls_is_of_its_address() -> None:
    assert peer_identity(FakeCall()) == without_certificate(address=HERE)


@pytest.mark.parametrize(
    ("uris", "agents"),
    [
        (("cospan:agent:a",), 1),
        (("cospan:agent:a", "cospan:agent:b"), 2),
        (("cospan:agent:a", "cospan:agents:site-0..9"), 11),
        (("cospan:agent:a", "cospan:relay:site-0..9"), 11),
        (("cospan:relay:*",), 50),
        (("cospan:agents:site-0..9999",), 50),
        ((ANY_AGENT,), 50),
        ((ADMIN,), 0),
        ((), 0),
    ],
)
def test_a_certificate_stands_for_as_many_agents_as_it_names(uris: tuple[str, ...], agents: int) -> None:
    """And for no more than the fleet has."""
    assert identity(*uris).most_agents(50) == agents


def test_without_a_certificate_a_host_may_be_the_whole_fleet() -> None:
    assert without_certificate(address="ipv4:10.0.0.7:1").most_agents(50) == 50


def test_whoever_has_one_address_of_an_ipv6_network_has_all_of_them() -> None:
    keys = [without_certificate(address=f"ipv6:%5B{host}%5D:1").key for host in ("2001:db8::7", "2001:db8::1:9")]
    assert keys[0] == keys[1]
    assert without_certificate(address="ipv6:%5B2001:db8:0:1::7%5D:1").key != keys[0]
    assert without_certificate(address="ipv6:%5Bfe80::1%25eth0%5D:1").key == "fe80::/64"
